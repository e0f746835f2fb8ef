//! Makes transactions of SQLite survive a power failure: one sync of the write-ahead log for all that wait for it.
//!
//! The writer does not wait for the disk: what it has committed can be read at once, and it commits the next group while
//! the one before is synced. Nobody is answered before the sync. If it fails, nobody knows what the disk holds (the
//! kernel may have dropped the pages), so the store stops: a new process reads what is there.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use tokio::sync::watch;

use super::{
    StoreError,
    commit::{Ended, TransactionEnds},
    sqlite,
};

/// Transactions that have ended and wait for the disk.
pub(crate) struct WalSync {
    ended: mpsc::Sender<Ended>,
    committed: Arc<AtomicU64>,
}

/// How far the disk is behind. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Durability {
    committed: Arc<AtomicU64>,
    synced: watch::Receiver<u64>,
}

impl WalSync {
    /// Starts the thread that syncs the log of the SQLite file at `path`.
    pub(crate) fn start(path: &Path, ends: TransactionEnds) -> Result<(Self, Durability), StoreError> {
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        let log = File::options().write(true).create(true).truncate(false).open(&name);
        let log = log.map_err(|error| StoreError::Database(format!("can't open {}: {error}", name.display())))?;
        let committed = Arc::new(AtomicU64::new(0));
        let (synced, receiver) = watch::channel(0);
        let (ended, waiting) = mpsc::channel::<Ended>();
        sqlite::spawn("store-sync".into(), move || {
            while let Ok(first) = waiting.recv() {
                let group: Vec<Ended> = std::iter::once(first).chain(waiting.try_iter()).collect();
                if let Err(error) = log.sync_data() {
                    let error = format!("the disk does not keep what was written: {error}; restart the coordinator");
                    group.into_iter().for_each(|ended| ended.fail(&error, &ends));
                    // With this thread the writer ends as well.
                    return;
                }
                let number = group.iter().map(Ended::number).max().unwrap_or_default();
                synced.send_replace(number);
                group.into_iter().for_each(|ended| ended.finish(&ends));
            }
        })?;
        let durability = Durability { committed: committed.clone(), synced: receiver };
        Ok((Self { ended, committed }, durability))
    }

    /// The number of the transaction that ends now.
    pub(crate) fn next_number(&self) -> u64 {
        self.committed.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Answers a transaction's callers once it is on the disk. False: nothing gets there any more.
    pub(crate) fn finish_synced(&self, ended: Ended, ends: &TransactionEnds) -> bool {
        match self.ended.send(ended) {
            Ok(()) => true,
            Err(mpsc::SendError(ended)) => {
                ended.fail(&StoreError::Stopped.to_string(), ends);
                false
            }
        }
    }
}

impl Durability {
    /// Of a store whose transactions are on the disk, or need no disk, as soon as they can be read.
    pub(crate) fn immediate() -> Self {
        Self { committed: Arc::default(), synced: watch::channel(0).1 }
    }

    /// Waits until everything that can be read now is on the disk.
    pub(crate) async fn reached(&self) -> Result<(), StoreError> {
        let wanted = self.committed.load(Ordering::Acquire);
        if wanted == 0 {
            return Ok(());
        }
        self.synced.clone().wait_for(|synced| *synced >= wanted).await.map(drop).map_err(|_| StoreError::Stopped)
    }
}
