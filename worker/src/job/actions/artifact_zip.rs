//! Artifacts as zip: made of files that come as tar, and checked on their way back. Both are hostile.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream::BoxStream};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::log::mask::Masker;

/// Bytes of all files of one artifact.
const LARGEST: u64 = 10 << 30;
/// Files of one artifact.
const FILES: usize = 500_000;
/// Bytes of an archive's directory, which is kept in memory: an entry has these besides its name.
const DIRECTORY: u64 = 4 * zip_reader::DIRECTORY;
const ENTRY: u64 = 64;
/// What may come of every byte of an archive, once it is more than [`FREE`].
const RATIO: u64 = 500;
const FREE: u64 = 1 << 30;

/// An archive on this machine, which goes with its handle.
#[derive(Debug)]
pub(super) struct ZippedArtifact {
    pub(super) file: tokio::fs::File,
    pub(super) size: u64,
    pub(super) sha256: String,
    pub(super) files: u64,
}

/// Makes an archive of files that come as tar with absolute names; they are named below `root`.
pub(super) async fn make(
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    root: String,
    level: u32,
    hidden: bool,
    masker: Arc<Masker>,
) -> Result<ZippedArtifact, String> {
    let input = SyncIoBridge::new(StreamReader::new(ReceiverStream::new(pieces)));
    let made = tokio::task::spawn_blocking(move || pack(input, &root, level, hidden, &masker)).await;
    let (file, size, sha256, files) = made.map_err(|error| error.to_string())??;
    Ok(ZippedArtifact { file: tokio::fs::File::from_std(file), size, sha256, files })
}

/// Packs a tar archive as zip. Returns the file, its bytes, its SHA-256 in hex, and how many files are in it.
///
/// # Errors
/// What is wrong with the archive, or may not be in an artifact; for the job's log.
pub fn pack(
    input: impl Read,
    root: &str,
    level: u32,
    hidden: bool,
    masker: &Masker,
) -> Result<(File, u64, String, u64), String> {
    let said = |error: &dyn std::fmt::Display| format!("the archive of the artifact: {error}");
    let mut zip = ZipWriter::new(tempfile::tempfile().map_err(|error| said(&error))?);
    let method = if level == 0 { CompressionMethod::Stored } else { CompressionMethod::Deflated };
    let level = (level > 0).then_some(i64::from(level));
    let (mut files, mut total, mut directory) = (0_u64, 0_u64, 0_u64);
    let mut archive = tar::Archive::new(input);
    for entry in archive.entries().map_err(|error| said(&error))? {
        let mut entry = entry.map_err(|error| said(&error))?;
        let path = entry.path().map_err(|error| said(&error))?.into_owned();
        let name = below(&path, root);
        let name = name.to_str().ok_or_else(|| format!("{}: the file's name is not UTF-8", path.display()))?;
        if !hidden && name.split('/').any(|part| part.starts_with('.')) {
            continue;
        }
        check(name)?;
        // Names stand on the page of the run, the content does not.
        if masker.finds(name) {
            return Err(format!("the path {name:?} cannot be in an artifact: it holds a secret"));
        }
        total = total.saturating_add(entry.size());
        files += 1;
        directory = directory.saturating_add(ENTRY + name.len() as u64);
        // What is kept must be what can be read again.
        if files > FILES as u64 || directory > DIRECTORY {
            return Err("the artifact has too many files, or too long names: pack them with tar before".into());
        }
        if total > LARGEST {
            return Err(format!("the artifact's files have more than {} GiB", LARGEST >> 30));
        }
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .compression_level(level)
            .large_file(entry.size() >= u64::from(u32::MAX))
            .unix_permissions(mode);
        zip.start_file(name, options).map_err(|error| said(&error))?;
        io::copy(&mut entry, &mut zip).map_err(|error| said(&error))?;
    }
    let mut file = zip.finish().map_err(|error| said(&error))?;
    let hashed = hash(&mut file).map_err(|error| said(&error))?;
    Ok((file, hashed.0, hashed.1, files))
}

/// A file's name below the root; where the root is the file itself, its own name.
fn below<'p>(path: &'p Path, root: &str) -> &'p Path {
    match path.strip_prefix(root) {
        Ok(rest) if rest.as_os_str().is_empty() => path.file_name().map_or(path, Path::new),
        Ok(rest) => rest,
        Err(_) => path,
    }
}

/// Names that another system could not have (as GitHub's action refuses them).
fn check(name: &str) -> Result<(), String> {
    match name.chars().find(|char| char.is_control() || "\":<>|*?".contains(*char)) {
        Some(char) => Err(format!("the path {name:?} cannot be in an artifact: it contains {char:?}")),
        None => Ok(()),
    }
}

fn hash(file: &mut File) -> io::Result<(u64, String)> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => {
                hash.update(buffer.get(..count).unwrap_or_default());
                size += count as u64;
            }
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok((size, hex::encode(hash.finalize())))
}

/// What was left out of an archive, once it was unpacked.
pub(super) type SkippedEntries = BoxFuture<'static, Vec<String>>;

/// An archive that comes, as tar of plain files and folders with harmless names.
pub(super) async fn open(
    mut archive: BoxStream<'static, io::Result<Bytes>>,
) -> Result<(BoxStream<'static, io::Result<Bytes>>, SkippedEntries), String> {
    let said = |error: io::Error| format!("the archive of the artifact: {error}");
    let mut file = tokio::fs::File::from_std(tempfile::tempfile().map_err(said)?);
    let mut size = 0;
    while let Some(piece) = archive.next().await {
        let piece = piece.map_err(said)?;
        size += piece.len() as u64;
        if size > LARGEST {
            return Err(format!("the artifact has more than {} GiB", LARGEST >> 30));
        }
        tokio::io::AsyncWriteExt::write_all(&mut file, &piece).await.map_err(said)?;
    }
    tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(said)?;
    let file = file.into_std().await;
    let (near, far) = tokio::io::duplex(256 << 10);
    let (failed, failure) = tokio::sync::oneshot::channel();
    let writing = tokio::task::spawn_blocking(move || {
        let mut out = SyncIoBridge::new(far);
        let limit = size.saturating_mul(RATIO).clamp(FREE, LARGEST);
        let done = unpack(file, &mut out, limit);
        let (left, failure) = match done {
            Ok(left) => (left, None),
            Err(error) => (Vec::new(), Some(io::Error::other(error))),
        };
        // Said before the end of the bytes is seen.
        let _ = failed.send(failure);
        left
    });
    let bytes = ReaderStream::with_capacity(near, 64 << 10);
    let end = futures::stream::once(async { failure.await.ok().flatten().map_or(Ok(Bytes::new()), Err) });
    let left = async move { writing.await.unwrap_or_default() };
    Ok((bytes.chain(end).try_filter(|piece| std::future::ready(!piece.is_empty())).boxed(), Box::pin(left)))
}

/// Writes a zip archive as tar, with plain files and folders below the place where it is unpacked. Returns what was left out.
/// `limit`: bytes of all files.
///
/// # Errors
/// What is wrong with the archive; for the job's log.
pub fn unpack(file: File, out: &mut impl Write, limit: u64) -> Result<Vec<String>, String> {
    let opened = zip_reader::open(BufReader::new(file), DIRECTORY);
    let mut zip = opened.map_err(|error| format!("the artifact is no zip archive that can be read: {error}"))?;
    if zip.len() > FILES {
        return Err(format!("the artifact has more than {FILES} files"));
    }
    let mut archive = tar::Builder::new(out);
    let (mut total, mut left) = (0_u64, Vec::new());
    for index in 0..zip.len() {
        let entry = zip.by_index(index).map_err(|error| format!("the artifact's archive: {error}"))?;
        let name = entry.name().map_err(|error| format!("the artifact's archive: {error}"))?.into_owned();
        let path = entry.enclosed_name().filter(|_| !name.starts_with('/') && !name.contains(['\\', '\0']));
        let path = path.ok_or_else(|| format!("the artifact's entry {name:?} leads out of its folder: refused"))?;
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        // No set-user-id and the like.
        let mode = entry.unix_mode().unwrap_or(0o644);
        if entry.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            archive.append_data(&mut header, &path, io::empty()).map_err(|error| error.to_string())?;
            continue;
        }
        if !matches!(mode & 0o170_000, 0 | 0o100_000) {
            left.push(name);
            continue;
        }
        let size = entry.size();
        total = total.saturating_add(size);
        if total > limit {
            return Err(format!("the artifact unpacks to more than {limit} bytes: refused"));
        }
        header.set_mode(if mode & 0o111 == 0 { 0o644 } else { 0o755 });
        header.set_size(size);
        // What an entry says of its size is not believed.
        let mut content = entry.take(size);
        archive.append_data(&mut header, &path, &mut content).map_err(|error| error.to_string())?;
        if content.limit() > 0 {
            return Err(format!("the artifact's entry {name:?} is shorter than it says"));
        }
    }
    archive.finish().map_err(|error| error.to_string())?;
    Ok(left)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;

    fn zip(fill: impl FnOnce(&mut ZipWriter<File>)) -> File {
        let mut zip = ZipWriter::new(tempfile::tempfile().unwrap());
        fill(&mut zip);
        let mut file = zip.finish().unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file
    }

    fn named(name: &str) -> File {
        zip(|zip| {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(b"x").unwrap();
        })
    }

    #[test]
    fn attack_43_no_entry_leads_out_of_its_folder() {
        for name in ["../x", "a/../../x", "/etc/passwd", "..\\x", "a\\b"] {
            let refused = unpack(named(name), &mut Vec::new(), 100).unwrap_err();
            assert!(refused.contains("refused"), "{name}: {refused}");
        }
        assert!(unpack(named("a/b"), &mut Vec::new(), 100).is_ok());
    }

    #[test]
    fn attack_44_and_46_links_and_modes_that_give_rights_are_left_out() {
        let file = zip(|zip| {
            zip.add_symlink("link", "/etc/shadow", SimpleFileOptions::default()).unwrap();
            zip.start_file("tool", SimpleFileOptions::default().unix_permissions(0o4755)).unwrap();
        });
        let mut out = Vec::new();
        assert_eq!(unpack(file, &mut out, 100).unwrap(), ["link"]);
        let mut archive = tar::Archive::new(out.as_slice());
        let entries: Vec<_> = archive.entries().unwrap().map(Result::unwrap).collect();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].header().mode().unwrap(), 0o755);
    }

    #[test]
    fn attack_45_an_archive_that_unpacks_to_too_much_is_refused() {
        let file = zip(|zip| {
            zip.start_file("zeros", SimpleFileOptions::default()).unwrap();
            zip.write_all(&vec![0; 1 << 20]).unwrap();
        });
        assert!(unpack(file, &mut io::sink(), 1 << 19).unwrap_err().contains("refused"));
    }

    #[test]
    fn attack_45_an_archive_that_is_a_directory_and_little_else_is_refused() {
        let file = zip(|zip| {
            // Names of 64 KiB: the directory alone has more than it may.
            let name = "n".repeat(60_000);
            for number in 0..=DIRECTORY / 60_000 {
                zip.start_file(format!("{number}{name}"), SimpleFileOptions::default()).unwrap();
            }
        });
        assert!(unpack(file, &mut io::sink(), 100).unwrap_err().contains("directory has more than"));
    }

    #[test]
    fn attack_48_names_that_break_lines_are_refused_and_others_kept() {
        let tar = |name: &str| {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            archive.append_data(&mut header, name, b"x".as_slice()).unwrap();
            archive.into_inner().unwrap()
        };
        let masker = Masker::default();
        let refused = |name: &str| pack(tar(name).as_slice(), "w/out", 6, false, &masker).unwrap_err();
        assert!(refused("w/out/a\nb").contains("cannot be"));
        let long = format!("w/out/{}", ["x".repeat(200).as_str(); 18].join("/"));
        for name in ["w/out/résumé", "w/out/ﬁle", &long] {
            let (file, _, _, files) = pack(tar(name).as_slice(), "w/out", 6, false, &masker).unwrap();
            assert_eq!(files, 1);
            let mut zip = zip::ZipArchive::new(file).unwrap();
            assert_eq!(zip.by_index(0).unwrap().name().unwrap(), name.strip_prefix("w/out/").unwrap());
        }
    }

    #[test]
    fn attack_28_no_path_in_an_artifact_holds_a_secret() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        archive.append_data(&mut header, "w/out/s3cret-word.txt", b"x".as_slice()).unwrap();
        let archive = archive.into_inner().unwrap();
        let masker = Masker::default();
        assert!(pack(archive.as_slice(), "w/out", 6, false, &masker).is_ok());
        masker.add("s3cret-word");
        assert!(pack(archive.as_slice(), "w/out", 6, false, &masker).unwrap_err().contains("holds a secret"));
    }
}
