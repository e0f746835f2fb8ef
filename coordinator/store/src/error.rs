//! Why the store did not do what it was asked for.

use std::error::Error;

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The event is known already.
    #[error("event {0} was taken in before")]
    Seen(String),
    /// The run or group was changed meanwhile: load it again.
    #[error("{0} was changed meanwhile")]
    Stale(String),
    /// A row holds what this version can't read.
    #[error("{row} can't be read: {reason}. Was it written by a newer version? Start that one, or restore a backup")]
    Unreadable {
        /// What it is of, with its id.
        row: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The caller could not make the changes that were to be written.
    #[error("{0}")]
    Unmade(String),
    /// The threads or tasks of the store have ended.
    #[error("the store has stopped; restart the coordinator")]
    Stopped,
    /// The database.
    #[error("store: {0}")]
    Database(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(describe(&error))
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Database(format!("a stored row can't be read, was it written by a newer version? {error}"))
    }
}

/// What the server says; the library's own words are "db error".
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(failure) => format!("{} ({})", failure.message(), failure.code().code()),
        None => causes(error),
    }
}

/// An error with its causes.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
