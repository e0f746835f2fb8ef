//! Copies SQLite's write-ahead log into the database, on a thread and a connection of its own: a checkpoint by the writer
//! holds up every commit behind it for two syncs.

use std::{
    path::Path,
    sync::mpsc::{self, Receiver, SyncSender, TrySendError},
};

use rusqlite::{Connection, ffi};

use super::{StoreError, sqlite};

/// Pages that the log grows by until they are copied (16 MiB): one that was written many times is copied once.
const PORTION: i32 = 4_000;
/// Pages beyond which the log is to begin anew (256 MiB). It does so by itself whenever all of it was copied; under a steady
/// load some page is always new, and commits wait for the last copies.
const LONGEST: i32 = 64_000;

/// Whoever has the log copied. The thread ends with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints {
    /// Length of the log, in pages.
    wanted: SyncSender<i32>,
}

impl Checkpoints {
    /// Starts the thread for the SQLite file at `path`.
    pub(crate) fn start(path: &Path) -> Result<Self, StoreError> {
        let connection = sqlite::connect(path)?;
        let (wanted, lengths) = mpsc::sync_channel(1);
        sqlite::spawn("store-checkpoint".into(), move || copy(&connection, &lengths))?;
        Ok(Self { wanted })
    }

    /// Has the log copied as this connection writes it, which does not do so itself any more.
    pub(crate) fn follow(&self, writer: &mut Connection) -> Result<(), StoreError> {
        let (wanted, mut copied) = (self.wanted.clone(), 0);
        writer.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, length: i32| {
            if length < copied {
                copied = 0;
            }
            if length - copied >= PORTION {
                match wanted.try_send(length) {
                    Ok(()) => copied = length,
                    // It is busy, and asked again at the next commit.
                    Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
                }
            }
            Ok(())
        }))?;
        Ok(())
    }
}

fn copy(connection: &Connection, lengths: &Receiver<i32>) {
    while let Ok(length) = lengths.recv() {
        let copied = checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)").and_then(|()| match length {
            // What is left after the copy before is little.
            LONGEST.. => checkpoint(connection, "PRAGMA wal_checkpoint(RESTART)"),
            _ => Ok(()),
        });
        if let Err(error) = copied {
            tracing::warn!("the database's log can't be copied into it, tried again as it grows: {error}");
        }
    }
}

/// Copies what may be copied now. A log that somebody reads an old part of is copied up to there.
fn checkpoint(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    match connection.query_row(statement, [], |_| Ok(())) {
        Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ffi::ErrorCode::DatabaseBusy => Ok(()),
        other => other,
    }
}
