//! Whether the store can be written, and how much room is left for it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{Store, StoreError};

/// Writes that fail, and the folder whose file system is watched. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    failing: Arc<Mutex<Option<(Instant, String)>>>,
    folder: Option<Arc<FolderLimit>>,
}

#[derive(Debug)]
struct FolderLimit {
    folder: PathBuf,
    min_free: u64,
}

/// Why the store, or the disk it is on, can't serve as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreProblem {
    /// The last write failed, and none has succeeded since.
    #[error("the database can't be written for {} s: {error}. Nothing is lost; what came is stored once it can be", lasted.as_secs())]
    Failing {
        /// For how long.
        lasted: Duration,
        /// What the database says.
        error: String,
    },
    /// Less room than `store.min_free` is left.
    #[error("the disk of {} has {free} bytes free, less than store.min_free = {min_free}: make room there", folder.display())]
    LowSpace {
        /// The data folder.
        folder: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that should be.
        min_free: u64,
    },
}

impl Health {
    /// Notes how a transaction ended. The first failure of a row is logged, and that it is over.
    pub(crate) fn note(&self, transaction: &Result<(), StoreError>) {
        let mut failing = self.failing.lock();
        match (transaction, failing.as_mut()) {
            (Ok(()), Some((since, _))) => {
                tracing::warn!("the database is written again, after {} s", since.elapsed().as_secs());
                *failing = None;
            }
            (Ok(()), None) => {}
            (Err(error), Some((_, text))) => *text = error.to_string(),
            (Err(error), None) => {
                tracing::error!("the database can't be written: {error}");
                *failing = Some((Instant::now(), error.to_string()));
            }
        }
    }

    fn failing(&self) -> Option<StoreProblem> {
        let failing = self.failing.lock();
        failing.as_ref().map(|(since, error)| StoreProblem::Failing { lasted: since.elapsed(), error: error.clone() })
    }

    fn low_space(&self) -> Option<StoreProblem> {
        let FolderLimit { folder, min_free } = &**self.folder.as_ref()?;
        let free = free(folder)?;
        (free < *min_free).then(|| StoreProblem::LowSpace { folder: folder.clone(), free, min_free: *min_free })
    }
}

/// Bytes that are free where a folder lies. A file system that doesn't answer is no full one.
fn free(folder: &Path) -> Option<u64> {
    let system = nix::sys::statvfs::statvfs(folder).ok()?;
    Some(system.blocks_available().saturating_mul(system.fragment_size()))
}

impl Store {
    /// The same store; a file system of `folder` with less than `min_free` bytes free is a problem.
    #[must_use]
    pub fn with_min_free(mut self, folder: &Path, min_free: u64) -> Self {
        self.health.folder = Some(Arc::new(FolderLimit { folder: folder.to_owned(), min_free }));
        self
    }

    /// Whether there is too little room for new runs. Running ones may need what is left.
    pub fn low_space(&self) -> Option<StoreProblem> {
        self.health.low_space()
    }

    /// Whether the file system of the data folder has at least so many bytes free; one that nobody watches has.
    pub fn has_free(&self, bytes: u64) -> bool {
        self.health.folder.as_ref().and_then(|watched| free(&watched.folder)).is_none_or(|free| free >= bytes)
    }

    /// What is wrong with the store. After a failed write it tries another one, so that an end of the problem is noticed
    /// even if nothing else writes.
    ///
    /// # Errors
    /// It can't be read.
    pub async fn problem(&self) -> Result<Option<StoreProblem>, StoreError> {
        self.latest_change().await?;
        if self.health.failing().is_some() {
            // Its failure is noted as that of any other write.
            let _ = self.next("probe").await;
        }
        Ok(self.health.failing().or_else(|| self.health.low_space()))
    }
}
