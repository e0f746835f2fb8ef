//! Reads zip archives in place, stored and downloaded ones, within limits: their content comes from jobs.
//!
//! The central directory is read whole; a file is unpacked when it is requested, or all files into a folder. Nothing is
//! cached.

use domain::id::BlobHash;

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use tokio::{
    runtime::Handle,
    sync::{
        OwnedSemaphorePermit, Semaphore,
        mpsc::{self, error::TrySendError},
    },
};
use tokio_stream::wrappers::ReceiverStream;
use zip::ZipArchive;
use zip_reader::DIRECTORY;

use blobs::Blobs;

/// Bytes of the directory of an archive whose files are listed one by one: some 10,000 files.
const LISTED: u64 = 1 << 20;
/// Bytes that are read ahead.
const AHEAD: u64 = 256 << 10;
/// Bytes of one piece of an unpacked file.
const PIECE: usize = 64 << 10;
/// Files that are unpacked at the same time.
const AT_ONCE: usize = 8;
/// Archives whose files are read here at the same time.
const READ_AT_ONCE: usize = 2;
/// How long a reader may leave an unpacked piece waiting, and all of them together before [`PACE`] counts.
const PATIENCE: Duration = Duration::from_secs(60);
/// What it may wait longer for each piece that it took: who reads less than 64 KiB a second is not waited for.
const PACE: Duration = Duration::from_secs(1);

/// Why an archive is not read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is not an archive, or a broken one.
    #[error("it is no ZIP archive that can be read: {0}")]
    Unreadable(String),
    /// It would unpack to more than is allowed.
    #[error("it unpacks to more than {0} bytes: let its job upload less at a time")]
    TooLarge(u64),
    /// It has more files than are listed.
    #[error("it has too many files to list them")]
    TooMany,
    /// A file of it is larger than is unpacked for one reader.
    #[error("no file of more than {0} bytes is given by itself: take the whole artifact")]
    LargeFile(u64),
    /// It has no such entry.
    #[error("the archive has no such file")]
    Missing,
    /// One of its files would replace another one.
    #[error("{0} is there already")]
    Occupied(String),
    /// One of its files could not be written.
    #[error("{path}: {cause}")]
    Unwritten {
        /// Path of the file.
        path: String,
        /// What went wrong.
        cause: io::Error,
    },
}

/// What happens to an existing file in the place of an unpacked one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is kept, and nothing is unpacked.
    Kept,
    /// It is replaced.
    Replaced,
}

/// Writes the files of a downloaded archive, which together unpack to `limit` bytes at most, into a folder. Links, and
/// paths that lead out of the folder, are left out.
///
/// # Errors
/// It can't be read, unpacks to too much, or its files can't be written.
pub fn unpack_archive(archive: File, limit: u64, existing: Existing, folder: &Path) -> Result<(), ArchiveError> {
    write(BufReader::new(archive), limit, existing, folder)
}

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileEntry {
    /// Its index in the archive.
    pub(super) index: usize,
    /// Its path, relative and without `..`.
    pub(super) path: String,
    /// Unpacked bytes.
    pub(super) size: u64,
}

/// How much of an archive is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadLimits {
    /// Files.
    pub(super) files: usize,
    /// Bytes of one, and of all of them.
    pub(super) file: u64,
    pub(super) all: u64,
}

/// Unpacks stored archives, a few at a time. Clones share the limit.
#[derive(Clone)]
pub(super) struct Archives {
    blobs: Blobs,
    turns: Arc<Semaphore>,
    /// For what the coordinator itself reads of them.
    reading: Arc<Semaphore>,
}

impl Archives {
    pub(super) fn new(blobs: Blobs) -> Self {
        Self { blobs, turns: Arc::new(Semaphore::new(AT_ONCE)), reading: Arc::new(Semaphore::new(READ_AT_ONCE)) }
    }

    /// The files of an archive of this size, some 10,000, which together unpack to `limit` bytes at most.
    pub(super) async fn entries(
        &self,
        sha256: &BlobHash,
        size: u64,
        limit: u64,
    ) -> Result<Vec<FileEntry>, ArchiveError> {
        let stored = self.stored(sha256, size);
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let listed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            list(&zip_reader::open(stored, LISTED).map_err(unreadable)?, limit)
        });
        listed.await.map_err(unreadable)?
    }

    /// Writes the files of an archive, which together unpack to `limit` bytes at most, into a folder.
    pub(super) async fn unpack(
        &self,
        sha256: &BlobHash,
        size: u64,
        limit: u64,
        folder: PathBuf,
    ) -> Result<(), ArchiveError> {
        let stored = self.stored(sha256, size);
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let written = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            write(stored, limit, Existing::Replaced, &folder)
        });
        written.await.map_err(unreadable)?
    }

    /// Hands the files whose names end so to `reader`, one after the other, each with its path, and returns the reader.
    /// A file beyond the limits, or a broken one, is handed over as the reason.
    pub(super) async fn read_each<S: Send + 'static>(
        &self,
        sha256: &BlobHash,
        size: u64,
        (end, limits): (&'static str, ReadLimits),
        mut reader: S,
        read: impl Fn(&mut S, &str, Result<Vec<u8>, String>) + Send + 'static,
    ) -> Result<S, ArchiveError> {
        let stored = self.stored(sha256, size);
        let turn = Arc::clone(&self.reading).acquire_owned().await;
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let mut archive = zip_reader::open(stored, LISTED).map_err(unreadable)?;
            let (mut files, mut room) = (0, limits.all);
            for FileEntry { index, path, size } in list(&archive, u64::MAX)? {
                if !path.to_ascii_lowercase().ends_with(end) {
                    continue;
                }
                files += 1;
                if files > limits.files {
                    read(&mut reader, &path, Err(format!("no more than {} files are read", limits.files)));
                    break;
                }
                let bytes = if size > limits.file {
                    Err(format!("no more than {} bytes of one file are read: it has {size}", limits.file))
                } else if size > room {
                    Err(format!("no more than {} bytes of all files are read", limits.all))
                } else {
                    room -= size;
                    content(&mut archive, index, size).map_err(|error| error.to_string())
                };
                read(&mut reader, &path, bytes);
            }
            Ok(reader)
        });
        reading.await.map_err(unreadable)?
    }

    /// The content of one file, and its length in bytes. `kept` is dropped when all was read, or the reader is given up.
    pub(super) async fn file(
        &self,
        sha256: &BlobHash,
        size: u64,
        index: usize,
        limit: u64,
        kept: impl Send + 'static,
    ) -> Result<(u64, ReceiverStream<io::Result<Bytes>>), ArchiveError> {
        let entries = self.entries(sha256, size, limit).await?;
        let length = entries.iter().find(|entry| entry.index == index).ok_or(ArchiveError::Missing)?.size;
        let stored = self.stored(sha256, size);
        let (pieces, unpacked) = mpsc::channel(2);
        let turns = Arc::clone(&self.turns);
        let turn = Arc::clone(&turns).acquire_owned().await.ok();
        let mut reader = Reader { pieces, handle: Handle::current(), turns, turn, patience: PATIENCE };
        tokio::task::spawn_blocking(move || {
            let _kept = kept;
            if let Err(error) = unpack(stored, index, length, |bytes| reader.give(Ok(bytes))) {
                reader.give(Err(error));
            }
        });
        Ok((length, ReceiverStream::new(unpacked)))
    }

    fn stored(&self, sha256: &BlobHash, size: u64) -> StoredFile {
        StoredFile {
            blobs: self.blobs.clone(),
            handle: Handle::current(),
            sha256: sha256.clone(),
            size,
            at: 0,
            ahead: (0, Bytes::new()),
        }
    }
}

/// Where an unpacked file goes.
struct Reader {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    handle: Handle,
    turns: Arc<Semaphore>,
    /// The turn, while something is unpacked.
    turn: Option<OwnedSemaphorePermit>,
    /// How long it is waited for from now on.
    patience: Duration,
}

impl Reader {
    /// Whether it took a piece. While it does not read, others have the turn.
    fn give(&mut self, piece: io::Result<Bytes>) -> bool {
        let piece = match self.pieces.try_send(piece) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(piece)) => piece,
        };
        self.turn = None;
        let (begun, most) = (Instant::now(), self.patience.min(PATIENCE));
        let taken = self.handle.block_on(self.pieces.send_timeout(piece, most)).is_ok();
        self.patience = self.patience.saturating_sub(begun.elapsed()) + PACE;
        if taken {
            self.turn = self.handle.block_on(Arc::clone(&self.turns).acquire_owned()).ok();
        }
        taken
    }
}

fn unreadable(error: impl std::fmt::Display) -> ArchiveError {
    ArchiveError::Unreadable(error.to_string())
}

fn list<R: Read + Seek>(archive: &ZipArchive<R>, limit: u64) -> Result<Vec<FileEntry>, ArchiveError> {
    let (mut entries, mut total) = (Vec::with_capacity(archive.len()), 0_u64);
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).map_err(unreadable)?;
        // A path that leads out of the folder, or is not UTF-8, is skipped.
        let Some(path) = entry.enclosed_name().filter(|_| entry.is_file() && !entry.is_symlink()) else { continue };
        let Some(path) = path.to_str().map(str::to_owned) else { continue };
        total = total.saturating_add(entry.size());
        if total > limit {
            return Err(ArchiveError::TooLarge(limit));
        }
        entries.push(FileEntry { index, path, size: entry.size() });
    }
    Ok(entries)
}

/// Writes of each file as many bytes as the directory says, however many there are.
fn write<R: Read + Seek>(source: R, limit: u64, existing: Existing, folder: &Path) -> Result<(), ArchiveError> {
    let mut archive = zip_reader::open(source, DIRECTORY).map_err(unreadable)?;
    let entries = list(&archive, limit)?;
    if existing == Existing::Kept {
        // Checked before anything is written: all files are unpacked, or none.
        let mut places = entries.iter().map(|entry| folder.join(&entry.path));
        if let Some(occupied) = places.find(|place| place.symlink_metadata().is_ok()) {
            return Err(ArchiveError::Occupied(occupied.display().to_string()));
        }
    }
    let mut copy = |index, size, to: &Path| -> io::Result<()> {
        std::fs::create_dir_all(to.parent().unwrap_or(folder))?;
        // Removed, not overwritten: through a link another file would be written.
        if existing == Existing::Replaced
            && let Err(error) = std::fs::remove_file(to)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let entry = archive.by_index(index).map_err(io::Error::other)?;
        let runs = entry.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
        let mode = if runs { 0o777 } else { 0o666 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(to)?;
        match io::copy(&mut entry.take(size), &mut file)? {
            copied if copied < size => Err(io::Error::other("the archive holds less than it says")),
            _ => Ok(()),
        }
    };
    for FileEntry { index, path, size } in entries {
        let to = folder.join(path);
        copy(index, size, &to).map_err(|cause| ArchiveError::Unwritten { path: to.display().to_string(), cause })?;
    }
    Ok(())
}

/// A file, of no more bytes than the directory says, however many there are.
fn content<R: Read + Seek>(archive: &mut ZipArchive<R>, index: usize, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    archive.by_index(index).map_err(io::Error::other)?.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Unpacks as many bytes as the directory says that the file has, however many there are.
fn unpack(stored: StoredFile, index: usize, length: u64, mut give: impl FnMut(Bytes) -> bool) -> io::Result<()> {
    let mut archive = zip_reader::open(stored, DIRECTORY).map_err(io::Error::other)?;
    let mut inner = archive.by_index(index).map_err(io::Error::other)?.take(length);
    let mut sent = 0;
    loop {
        let mut piece = vec![0; PIECE];
        let read = inner.read(&mut piece)?;
        if read == 0 {
            break;
        }
        piece.truncate(read);
        sent += read as u64;
        if !give(piece.into()) {
            // The reader is gone.
            return Ok(());
        }
    }
    if sent < length { Err(io::Error::other("the archive holds less than it says")) } else { Ok(()) }
}

/// Stored bytes as a file.
struct StoredFile {
    blobs: Blobs,
    handle: Handle,
    sha256: BlobHash,
    size: u64,
    at: u64,
    /// The piece that was read last, and its offset.
    ahead: (u64, Bytes),
}

impl StoredFile {
    /// The bytes at the current position; none at the end.
    fn here(&mut self) -> io::Result<Bytes> {
        let (from, bytes) = &self.ahead;
        let known = self.at.checked_sub(*from).and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = known.filter(|skip| *skip < bytes.len()) {
            return Ok(bytes.slice(skip..));
        }
        let end = self.size.min(self.at.saturating_add(AHEAD));
        if end <= self.at {
            return Ok(Bytes::new());
        }
        let range = self.at..end;
        let read = self.handle.block_on(async {
            let found = self.blobs.get(&self.sha256, Some(range)).await.map_err(io::Error::other)?;
            let parts: Vec<Bytes> = match found {
                Some(parts) => parts.try_collect().await?,
                None => return Err(io::Error::other("the bytes were removed meanwhile")),
            };
            Ok(Bytes::from(parts.concat()))
        })?;
        self.ahead = (self.at, read.clone());
        Ok(read)
    }
}

impl Read for StoredFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let here = self.here()?;
        let read = here.len().min(into.len());
        into.iter_mut().zip(here).for_each(|(to, from)| *to = from);
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for StoredFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a place before the beginning"))?;
        Ok(self.at)
    }
}
