//! The writing connection to a SQLite file: what it leaves to other threads, and how it is opened again.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{StoreError, checkpoint::Checkpoints, sqlite};

/// What the writing connection is, also when it was opened again after one in an unknown state.
#[derive(Debug, Clone)]
pub(crate) struct WriterSetup {
    path: PathBuf,
    checkpoints: Checkpoints,
}

impl WriterSetup {
    /// Of the SQLite file at `path`; starts what copies its log.
    pub(crate) fn new(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { path: path.to_owned(), checkpoints: Checkpoints::start(path)? })
    }

    /// Leaves it to [`super::durability`] to bring commits to the disk, and to [`super::checkpoint`] to copy the log.
    pub(crate) fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        self.checkpoints.follow(connection)
    }

    /// Ends what is left of a transaction; only a connection outside of one may go on.
    pub(crate) fn ensure_idle(&self, connection: &mut Connection) -> Result<(), StoreError> {
        if !connection.is_autocommit() {
            // Fails where SQLite rolled back by itself; the state after it is what counts.
            let _ = connection.execute_batch("ROLLBACK");
        }
        if !connection.is_autocommit() {
            *connection = sqlite::connect(&self.path)?;
            self.apply(connection)?;
        }
        Ok(())
    }
}
