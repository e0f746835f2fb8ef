//! Files of an archive, chosen and placed as `COPY` of a Dockerfile does. Hostile input: nothing of it touches the disk.

use std::{
    collections::HashSet,
    io::{self, Cursor, Read as _},
    ops::Range,
};

use globset::GlobBuilder;
use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType, Header};

use super::dockerignore::DockerIgnore;
use crate::github::uses::inside;

/// Files below one folder.
pub(super) struct BuildContext {
    bytes: Vec<u8>,
    entries: Vec<ContextEntry>,
}

struct ContextEntry {
    /// Below the folder; empty: the folder or the single file itself.
    path: String,
    kind: EntryType,
    mode: u32,
    /// Of symbolic links.
    target: Option<String>,
    data: Range<usize>,
}

/// Where copied files go: a folder, and an archive to unpack there.
pub(super) struct CopyPlan {
    pub(super) folder: String,
    pub(super) archive: Vec<u8>,
    /// Absolute paths of what was copied, without what is below a copied folder.
    pub(super) tops: Vec<String>,
}

impl BuildContext {
    /// Reads an archive whose names begin with that of its one file or folder, but not the entries below `without`.
    pub(super) fn read(bytes: Vec<u8>, without: &str) -> io::Result<Self> {
        let mut entries: Vec<ContextEntry> = Vec::new();
        let mut archive = Archive::new(Cursor::new(&bytes));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let whole = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let Some(path) =
                whole.trim_end_matches('/').split_once('/').map_or(Some(String::new()), |(_, p)| inside(p))
            else {
                continue;
            };
            if !without.is_empty() && path.split('/').next() == Some(without) {
                continue;
            }
            let link = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
            let mode = entry.header().mode()?;
            let start = usize::try_from(entry.raw_file_position()).map_err(io::Error::other)?;
            let (kind, data, target) = match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let end = start.saturating_add(usize::try_from(entry.size()).map_err(io::Error::other)?);
                    // Read to its end, so that a cut archive is an error here.
                    io::copy(&mut entry.by_ref(), &mut io::sink())?;
                    (EntryType::Regular, start..end, None)
                }
                EntryType::Link => {
                    let of = link.unwrap_or_default();
                    let of = of.split_once('/').map_or("", |(_, path)| path);
                    let data = entries.iter().find(|entry| entry.path == of).map(|entry| entry.data.clone());
                    (EntryType::Regular, data.unwrap_or_default(), None)
                }
                EntryType::Symlink => (EntryType::Symlink, 0..0, link),
                EntryType::Directory => (EntryType::Directory, 0..0, None),
                _ => continue,
            };
            entries.push(ContextEntry { path, kind, mode, target, data });
        }
        Ok(Self { bytes, entries })
    }

    /// Leaves out what an ignore file names; folders stay that something is kept in.
    pub(super) fn leave_out(&mut self, ignore: &DockerIgnore) {
        let kept: Vec<String> = self
            .entries
            .iter()
            .filter(|entry| entry.path.is_empty() || !ignore.leaves_out(&entry.path))
            .map(|entry| entry.path.clone())
            .collect();
        let around: HashSet<&str> =
            kept.iter().flat_map(|path| path.match_indices('/').filter_map(|(end, _)| path.get(..end))).collect();
        let kept: HashSet<&str> = kept.iter().map(String::as_str).collect();
        self.entries.retain(|entry| kept.contains(entry.path.as_str()) || around.contains(entry.path.as_str()));
    }

    /// It is one file, not a folder.
    pub(super) fn is_file(&self) -> bool {
        self.entries.first().is_some_and(|entry| entry.path.is_empty() && entry.kind != EntryType::Directory)
    }

    /// The text of a file.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let entry = self.entries.iter().find(|entry| entry.path == path && entry.kind == EntryType::Regular)?;
        Some(String::from_utf8_lossy(self.data(entry)).into_owned())
    }

    /// Adds everything that a build can see to a digest.
    pub(super) fn digest(&self, hash: &mut Sha256) {
        let mut entries: Vec<&ContextEntry> = self.entries.iter().collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        for entry in entries {
            for part in
                [entry.path.as_bytes(), entry.target.as_deref().unwrap_or_default().as_bytes(), self.data(entry)]
            {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            hash.update([entry.kind.as_byte()]);
            hash.update(entry.mode.to_be_bytes());
        }
    }

    /// Chooses files by path or pattern. `is_folder`: the absolute target is one, or was written as one.
    pub(super) fn place(&self, sources: &[String], target: &str, is_folder: bool) -> Result<CopyPlan, String> {
        let is_folder = is_folder || sources.len() > 1;
        let (parent, own) = target.trim_end_matches('/').rsplit_once('/').unwrap_or(("", ""));
        let mut chosen: Vec<(String, &ContextEntry)> = Vec::new();
        let mut tops = Vec::new();
        let mut as_file = None;
        for source in sources {
            let pattern = inside(source).ok_or_else(|| format!("{source} lies outside of what can be copied"))?;
            let glob = GlobBuilder::new(&pattern).literal_separator(true).build();
            let glob = glob.map_err(|error| format!("{source}: {error}"))?.compile_matcher();
            let found = self.entries.iter().filter(|entry| entry.path == pattern || glob.is_match(&entry.path));
            let before = chosen.len();
            for top in found {
                if top.kind == EntryType::Directory {
                    let below = if top.path.is_empty() { String::new() } else { format!("{}/", top.path) };
                    for entry in self.entries.iter().filter(|entry| !entry.path.is_empty()) {
                        let Some(path) = entry.path.strip_prefix(&below).filter(|path| !path.is_empty()) else {
                            continue;
                        };
                        chosen.push((path.to_owned(), entry));
                        if !path.contains('/') {
                            tops.push(format!("{}/{path}", target.trim_end_matches('/')));
                        }
                    }
                    // An empty folder is a match as well.
                    chosen.push((String::new(), top));
                } else {
                    let name = top.path.rsplit('/').next().unwrap_or_default();
                    if is_folder && !name.is_empty() {
                        tops.push(format!("{}/{name}", target.trim_end_matches('/')));
                        chosen.push((name.to_owned(), top));
                    } else {
                        tops.push(target.to_owned());
                        as_file = Some(top);
                        chosen.push((String::new(), top));
                    }
                }
            }
            if chosen.len() == before {
                return Err(format!("{source} is not there"));
            }
        }
        if let Some(file) = as_file {
            if own.is_empty() || is_folder {
                return Err(format!("{target} is no name for a file"));
            }
            let archive = self.write(&[(own.to_owned(), file)]).map_err(|error| error.to_string())?;
            return Ok(CopyPlan { folder: format!("{parent}/"), archive, tops });
        }
        chosen.retain(|(path, _)| !path.is_empty());
        let archive = self.write(&chosen).map_err(|error| error.to_string())?;
        Ok(CopyPlan { folder: target.to_owned(), archive, tops })
    }

    fn write(&self, files: &[(String, &ContextEntry)]) -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in files {
            let mut header = Header::new_gnu();
            header.set_entry_type(entry.kind);
            header.set_mode(entry.mode);
            match &entry.target {
                Some(target) => {
                    header.set_size(0);
                    archive.append_link(&mut header, path, target)?;
                }
                None => {
                    let data = self.data(entry);
                    header.set_size(data.len() as u64);
                    archive.append_data(&mut header, path, data)?;
                }
            }
        }
        archive.into_inner()
    }

    fn data(&self, entry: &ContextEntry) -> &[u8] {
        self.bytes.get(entry.data.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tree(files: &[(&str, &str)]) -> BuildContext {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            header.set_entry_type(if path.ends_with('/') { EntryType::Directory } else { EntryType::Regular });
            header.set_size(text.len() as u64);
            archive.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        BuildContext::read(archive.into_inner().unwrap(), ".git").unwrap()
    }

    fn placed(
        tree: &BuildContext,
        sources: &[&str],
        target: &str,
        is_folder: bool,
    ) -> Result<(String, Vec<String>), String> {
        let sources: Vec<_> = sources.iter().map(|source| (*source).to_owned()).collect();
        let CopyPlan { folder, archive, .. } = tree.place(&sources, target, is_folder)?;
        let mut archive = Archive::new(Cursor::new(archive));
        let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        Ok((folder, names.collect()))
    }

    #[test]
    fn files_are_placed_as_copy_does() {
        let tree = tree(&[
            ("a/", ""),
            ("a/.git/", ""),
            ("a/.git/config", "x"),
            ("a/one.sh", "1"),
            ("a/two.sh", "2"),
            ("a/sub/", ""),
            ("a/sub/deep.txt", "3"),
        ]);
        assert_eq!(tree.text("sub/deep.txt").as_deref(), Some("3"));
        assert_eq!(tree.text(".git/config"), None);
        let of =
            |folder: &str, names: &[&str]| Ok((folder.to_owned(), names.iter().map(|n| (*n).to_owned()).collect()));
        assert_eq!(placed(&tree, &["./one.sh"], "/entry.sh", false), of("/", &["entry.sh"]));
        assert_eq!(placed(&tree, &["one.sh"], "/bin", true), of("/bin", &["one.sh"]));
        assert_eq!(placed(&tree, &["*.sh"], "/x/", true), of("/x/", &["one.sh", "two.sh"]));
        assert_eq!(placed(&tree, &["sub"], "/x", false), of("/x", &["deep.txt"]));
        assert_eq!(placed(&tree, &["."], "/x", false), of("/x", &["one.sh", "two.sh", "sub", "sub/deep.txt"]));
        for source in ["../x", "absent", "/../../etc/passwd"] {
            assert!(placed(&tree, &[source], "/x", false).is_err(), "{source}");
        }
    }
    #[test]
    fn what_an_ignore_file_names_can_be_copied_by_no_name() {
        let mut tree = tree(&[
            ("a/", ""),
            ("a/Dockerfile", "FROM x"),
            ("a/secret", "x"),
            ("a/data/", ""),
            ("a/data/drop", "x"),
            ("a/data/keep", "y"),
            ("a/empty/", ""),
        ]);
        tree.leave_out(&DockerIgnore::read("*\n!data/keep\n").unwrap());
        assert_eq!(placed(&tree, &["."], "/x", true).unwrap().1, ["data", "data/keep"]);
        for source in ["secret", "Dockerfile", "data/drop", "empty"] {
            assert!(placed(&tree, &[source], "/x/", true).is_err(), "{source}");
        }
    }
}
