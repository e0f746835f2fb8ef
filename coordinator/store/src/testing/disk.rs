//! A database in memory on a disk that a simulation decides over, and that outlives the process which has it open.

use std::sync::Arc;

use crate::{
    Store, StoreError,
    commit::{InlineWriter, Writer},
    disk::Disk,
    sql::Connection,
};

impl Store {
    /// The same database in memory as a new process opens it: with a writer and subscribers of its own, on this disk.
    ///
    /// # Errors
    /// The database is not in memory.
    pub fn reopen_on(&self, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let Writer::Inline(inline) = &self.writer else { return Err(not_in_memory()) };
        let notifications = tokio::sync::broadcast::Sender::new(crate::NOTIFICATIONS);
        let health = crate::health::Health::default();
        let ends = crate::commit::TransactionEnds { notifications: notifications.clone(), health: health.clone() };
        let writer = Writer::start_simulated(InlineWriter { ends, ..inline.clone() }, disk);
        let queue = tokio::sync::broadcast::Sender::new(crate::QUEUE_CHANGES);
        let durability = self.durability.clone();
        Ok(Self { writer, readers: self.readers.clone(), queue, notifications, health, durability })
    }

    /// Runs a script of SQL on a database in memory, e.g. to damage what is written.
    ///
    /// # Errors
    /// The script is wrong, or the database is not in memory.
    pub fn execute_script(&self, script: &str) -> Result<(), StoreError> {
        let Writer::Inline(inline) = &self.writer else {
            return Err(not_in_memory());
        };
        match &*inline.connection.lock() {
            Connection::Sqlite(connection) => Ok(connection.execute_batch(script)?),
            Connection::Postgres(_) => Err(not_in_memory()),
        }
    }
}

fn not_in_memory() -> StoreError {
    StoreError::Database("the database is not in memory".into())
}
