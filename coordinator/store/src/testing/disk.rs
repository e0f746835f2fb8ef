//! A database in memory on a disk that a simulation decides over, and that outlives the process which has it open.

use std::sync::Arc;

use crate::{Store, StoreError, commit::Writer, disk::Disk, sql::Connection};

impl Store {
    /// The same database in memory as a new process opens it: with subscribers of its own, on this disk.
    #[must_use]
    pub fn reopen_on(&self, disk: Arc<dyn Disk>) -> Self {
        let notifications = tokio::sync::broadcast::Sender::new(crate::NOTIFICATIONS);
        let health = crate::health::Health::default();
        let ends = crate::commit::TransactionEnds { notifications: notifications.clone(), health: health.clone() };
        let writer = self.writer.reopen(ends, disk);
        let queue = tokio::sync::broadcast::Sender::new(crate::QUEUE_CHANGES);
        let durability = self.durability.clone();
        Self { writer, readers: self.readers.clone(), queue, notifications, health, durability }
    }

    /// Runs a script of SQL on a database in memory, e.g. to damage what is written.
    ///
    /// # Errors
    /// The script is wrong, or the database is not in memory.
    pub fn execute_script(&self, script: &str) -> Result<(), StoreError> {
        let Writer::Inline(inline) = &self.writer else {
            return Err(StoreError::Database("the database is not in memory".into()));
        };
        match &*inline.connection.lock() {
            Connection::Sqlite(connection) => Ok(connection.execute_batch(script)?),
            Connection::Postgres(_) => Err(StoreError::Database("the database is not in memory".into())),
        }
    }
}
