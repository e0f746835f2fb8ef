//! The file of one attempt's log: appended by offset, checked by hash.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use sha2::{Digest, Sha256};

/// An open log file.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    path: PathBuf,
    length: u64,
    hash: Sha256,
    /// Bytes that are on the disk.
    durable: Arc<AtomicU64>,
}

/// The content of a segment at some moment.
#[derive(Debug)]
pub(super) struct Written {
    file: File,
    length: u64,
    path: PathBuf,
    durable: Arc<AtomicU64>,
}

impl Written {
    /// Its length, where all of it is on the disk already.
    pub(super) fn durable(&self) -> Option<u64> {
        (self.durable.load(Ordering::Acquire) >= self.length).then_some(self.length)
    }

    /// Survives a crash after this returns. Returns its length.
    pub(super) fn sync(&self) -> anyhow::Result<u64> {
        if self.durable().is_none() {
            self.file.sync_data().with_context(|| format!("can't put the log {} on the disk", self.path.display()))?;
            self.durable.fetch_max(self.length, Ordering::Release);
        }
        Ok(self.length)
    }
}

impl Segment {
    /// Opens or creates the file and hashes its content.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let explained = || format!("can't open the log {}: is the data folder writable?", path.display());
        let fresh = !path.exists();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(explained)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(explained)?;
        if fresh {
            for folder in path.ancestors().skip(1).take(3) {
                super::sync_folder(folder).with_context(explained)?;
            }
        }
        let (hash, length) = match fresh {
            true => (Sha256::new(), 0),
            false => hashed(&mut file).with_context(explained)?,
        };
        Ok(Self { file, path: path.to_owned(), length, hash, durable: Arc::default() })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn append(&mut self, offset: u64, data: &[u8]) -> anyhow::Result<u64> {
        anyhow::ensure!(
            offset <= self.length,
            "a log chunk begins at {offset}, but only {} bytes are there: send from there",
            self.length
        );
        let known = usize::try_from(self.length - offset).unwrap_or(usize::MAX);
        let Some(new) = data.get(known..).filter(|new| !new.is_empty()) else { return Ok(self.length) };
        let written = self.file.seek(SeekFrom::Start(self.length)).and_then(|_| self.file.write_all(new));
        if let Err(error) = written {
            // Readers take all of the file as accepted, so a part that was written is cut off; if that fails too, the
            // next append overwrites it.
            let _ = self.file.set_len(self.length);
            let what = format!("can't write the log {}: is the disk full?", self.path.display());
            return Err(anyhow::Error::new(error).context(what));
        }
        self.hash.update(new);
        self.length += new.len() as u64;
        Ok(self.length)
    }

    /// The current content, to be synced while more is appended.
    pub(super) fn written(&mut self) -> anyhow::Result<Written> {
        let explained = || format!("can't put the log {} on the disk", self.path.display());
        let file = self.file.try_clone().with_context(explained)?;
        Ok(Written { file, length: self.length, path: self.path.clone(), durable: Arc::clone(&self.durable) })
    }

    pub(super) fn close(&mut self, total: u64, sha256: &[u8]) -> anyhow::Result<()> {
        anyhow::ensure!(
            total == self.length,
            "the log has {} bytes, the worker sent {total}: send the rest before closing",
            self.length
        );
        let hash = self.hash.clone().finalize();
        anyhow::ensure!(
            hash.as_slice() == sha256,
            "the log {} differs from what the worker sent (SHA-256 {}): was the file changed?",
            self.path.display(),
            hex::encode(hash)
        );
        self.written()?.sync().map(drop)
    }
}

/// Hash and length of a file.
fn hashed(file: &mut File) -> std::io::Result<(Sha256, u64)> {
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hash, length)),
            count => {
                hash.update(buffer.get(..count).unwrap_or_default());
                length += count as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use std::process::Command;

    use super::*;

    /// Set for the process that may write files of 4 KiB only.
    const LIMITED: &str = "LONGSHORE_TEST_LIMITED_FOLDER";

    #[test]
    fn an_append_that_fails_halfway_leaves_nothing_of_it_in_the_file() {
        if let Some(folder) = std::env::var_os(LIMITED) {
            return append_beyond_the_limit(Path::new(&folder));
        }
        let folder = tempfile::tempdir().unwrap();
        let this = "segment::tests::an_append_that_fails_halfway_leaves_nothing_of_it_in_the_file";
        // The limit gives an error instead of a signal only to a process that ignores the signal.
        let limited = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact \"$1\"";
        let mut process = Command::new("sh");
        process.args(["-c", limited]).arg(std::env::current_exe().unwrap()).arg(this).env(LIMITED, folder.path());
        let output = process.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    fn append_beyond_the_limit(folder: &Path) {
        let path = folder.join("segment");
        let mut segment = Segment::open(&path).unwrap();
        assert_eq!(segment.append(0, &[b'a'; 3000]).unwrap(), 3000);
        let full = segment.append(3000, &[b'b'; 3000]).unwrap_err();
        assert!(full.to_string().contains("is the disk full?"), "{full:#}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3000);
        assert_eq!(segment.append(3000, b"c").unwrap(), 3001, "it goes on once there is room");
    }
}
