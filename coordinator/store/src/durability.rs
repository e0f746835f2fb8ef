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

use super::{StoreError, sqlite};

/// Answers the callers of a transaction, which is on the disk or for which that is not known.
pub(crate) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Transactions that are committed and wait for the disk.
pub(crate) struct WalSync {
    waiting: mpsc::Sender<(u64, Answer)>,
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
    pub(crate) fn start(path: &Path) -> Result<(Self, Durability), StoreError> {
        // SQLite has the log beside the file itself, not beside a link to it.
        let failed = |error| StoreError::Database(format!("can't open the log of {}: {error}", path.display()));
        let mut name = std::fs::canonicalize(path).map_err(failed)?.into_os_string();
        name.push("-wal");
        // It is there since the first statement: another one would be synced for nothing.
        let log = File::options().write(true).open(&name).map_err(failed)?;
        let committed = Arc::new(AtomicU64::new(0));
        let (synced, receiver) = watch::channel(0);
        let (waiting, transactions) = mpsc::channel::<(u64, Answer)>();
        sqlite::spawn("store-sync".into(), move || {
            while let Ok(first) = transactions.recv() {
                let group: Vec<_> = std::iter::once(first).chain(transactions.try_iter()).collect();
                if let Err(error) = log.sync_data() {
                    let text = format!("the disk does not keep what was written: {error}; restart the coordinator");
                    group.into_iter().for_each(|(_, answer)| answer(Err(StoreError::Database(text.clone()))));
                    // With this thread the writer ends as well.
                    return;
                }
                synced.send_replace(group.iter().map(|(number, _)| *number).max().unwrap_or_default());
                group.into_iter().for_each(|(_, answer)| answer(Ok(())));
            }
        })?;
        let durability = Durability { committed: committed.clone(), synced: receiver };
        Ok((Self { waiting, committed }, durability))
    }

    /// Numbers the transaction that is about to be committed, so that nobody reads what has no number yet.
    pub(crate) fn next_number(&self) -> u64 {
        self.committed.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Calls `answer` once the transaction with this number is on the disk. False: none gets there any more.
    pub(crate) fn answer_synced(&self, number: u64, answer: Answer) -> bool {
        match self.waiting.send((number, answer)) {
            Ok(()) => true,
            Err(mpsc::SendError((_, answer))) => {
                answer(Err(StoreError::Stopped));
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
