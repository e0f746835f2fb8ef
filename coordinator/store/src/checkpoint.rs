//! Copies SQLite's write-ahead log into the database, on a thread and a connection of its own: a checkpoint by the writer
//! holds up every commit behind it for as long as it takes.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
};

use rusqlite::{Connection, hooks::Wal};

use super::{StoreError, sqlite};

/// Pages that the log grows by until they are copied (4 MiB): one that was written many times is copied once. What is copied
/// is brought to the disk at once, and commits wait for that: more pages would be a longer wait.
const PORTION: i32 = 1_000;
/// Pages beyond which the log is to begin anew (128 MiB). It does so when all of it is copied; under a steady load some page
/// is always new, so the writer copies the last ones itself.
const LONGEST: i32 = 32_000;
/// So few are the last ones (2 MiB).
const LAST: i32 = 500;

/// Whoever has the log copied. The thread ends with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints {
    wanted: SyncSender<()>,
    /// Pages of the log that the thread found copied.
    copied: Arc<AtomicI32>,
}

impl Checkpoints {
    /// Starts the thread for the SQLite file at `path`.
    pub(crate) fn start(path: &Path) -> Result<Self, StoreError> {
        let connection = sqlite::connect(path)?;
        let (wanted, requests) = mpsc::sync_channel(1);
        let copied = Arc::new(AtomicI32::new(0));
        let known = copied.clone();
        sqlite::spawn("store-checkpoint".into(), move || copy(&connection, &requests, &known))?;
        Ok(Self { wanted, copied })
    }

    /// Has the log copied as this connection writes it.
    pub(crate) fn follow(&self, writer: &mut Connection) -> Result<(), StoreError> {
        let (this, mut asked, mut completed) = (self.clone(), 0, 0);
        writer.wal_hook(Some(move |log: &mut Wal, length: i32| {
            if length < asked {
                (asked, completed) = (0, 0);
                this.copied.store(0, Ordering::Relaxed);
            }
            // Full: the thread is at it, and is asked again at the next commit.
            if length - asked >= PORTION && this.wanted.try_send(()).is_ok() {
                asked = length;
            }
            let left = length - this.copied.load(Ordering::Relaxed);
            let is_due = length >= LONGEST && left <= LAST || length >= 2 * LONGEST;
            // Once for each portion: where a reader is in the way, it is there for a while.
            if is_due && length - completed >= PORTION {
                completed = length;
                // The commit was made whatever comes of this.
                note(log.checkpoint());
            }
            Ok(())
        }))?;
        Ok(())
    }
}

fn copy(connection: &Connection, requests: &Receiver<()>, copied: &AtomicI32) {
    while let Ok(()) = requests.recv() {
        let pages = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(2));
        note(pages.map(|pages| copied.store(pages, Ordering::Relaxed)));
    }
}

fn note(copied: rusqlite::Result<()>) {
    if let Err(error) = copied {
        tracing::warn!("the database's log can't be copied into it, tried again as it grows: {error}");
    }
}
