//! The store of actions: the files of each commit as one archive, named by the commit, the same for every job.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;

use super::Archive;

/// Bytes of one action's files.
const LARGEST: u64 = 1 << 30;
/// Bytes of all; beyond them those that were not used for longest go.
const ROOM: u64 = 8 << 30;
/// Bytes in one piece of an archive.
const PIECE: usize = 256 * 1024;

/// A folder of archives.
#[derive(Debug, Clone)]
pub struct ActionStore {
    folder: PathBuf,
}

impl ActionStore {
    /// Archives in a folder, which is made when needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The files of a commit, where they are here.
    pub(super) async fn open(&self, commit: &str) -> Option<Archive> {
        let file = std::fs::File::open(self.path(commit)).ok()?;
        // When it was used last; where that can't be written, it may go a little early.
        let _ = file.set_modified(SystemTime::now());
        Some(ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE).boxed())
    }

    /// Keeps the files of a commit, whole or not at all.
    pub(super) async fn keep(&self, commit: &str, mut archive: Archive) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.folder).with_context(|| format!("folder {}", self.folder.display()))?;
        let part = tempfile::Builder::new().prefix("part-").tempfile_in(&self.folder).context("store of actions")?;
        let mut file = tokio::fs::File::from_std(part.reopen().context("store of actions")?);
        let mut length = 0;
        while let Some(piece) = archive.next().await {
            let piece = piece?;
            length += piece.len() as u64;
            ensure!(length <= LARGEST, "its files have more than {} MiB", LARGEST >> 20);
            file.write_all(&piece).await.context("store of actions")?;
        }
        // On the disk before it has its name: after a crash nothing else may stand for the commit.
        file.sync_all().await.context("store of actions")?;
        part.persist(self.path(commit)).context("store of actions")?;
        tokio::fs::File::open(&self.folder).await?.sync_all().await.context("store of actions")?;
        trim(&self.folder, ROOM).context("store of actions")
    }

    fn path(&self, commit: &str) -> PathBuf {
        self.folder.join(format!("{commit}.tar"))
    }
}

/// Removes what was not used for longest until the rest fits.
fn trim(folder: &Path, room: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        files.push((data.modified()?, data.len(), entry.path()));
    }
    files.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
    let mut total = 0;
    for (_, length, path) in files {
        total += length;
        if total > room {
            // A job that reads it keeps its open file.
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_action_is_kept_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let store = ActionStore::new(folder.path().join("actions"));
        let whole = futures::stream::iter([Ok("one".into()), Ok("two".into())]).boxed();
        store.keep("a", whole).await.unwrap();
        let pieces: Vec<_> = store.open("a").await.unwrap().collect().await;
        assert_eq!(pieces.into_iter().map(Result::unwrap).collect::<Vec<_>>().concat(), b"onetwo");
        let broken = futures::stream::iter([Ok("one".into()), Err(io::Error::other("cut"))]).boxed();
        assert!(store.keep("b", broken).await.is_err());
        assert!(store.open("b").await.is_none());
        assert_eq!(std::fs::read_dir(folder.path().join("actions")).unwrap().count(), 1);
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        for (name, age) in [("old", 30), ("new", 10), ("older", 60)] {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            file.set_len(10).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        trim(folder.path(), 20).unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["new", "old"]);
    }
}
