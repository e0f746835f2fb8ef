//! What a run tells of itself.

use serde::{Deserialize, Serialize};

use super::{End, SealedLog};

/// A workflow file that came from a definition (kind 35417), not from the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supplied {
    /// Path that it stands for.
    pub path: String,
    /// Id of the definition's event, 64 hex.
    pub event: String,
    /// Its author, 64 hex.
    pub author: String,
    /// Of its text, hex.
    pub sha256: String,
    /// Whether the commit has a file there, which does not count.
    pub replaces: bool,
}

/// What the author is told, in the order it happens. A dialect makes events of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "update")]
pub enum Update {
    /// Received, checked and stored.
    Queued {
        /// Seconds stamp of the status event.
        stamp: u64,
    },
    /// It waits for something named.
    Waiting {
        /// Seconds stamp of the status event.
        stamp: u64,
        /// For what, for people.
        reason: String,
    },
    /// The first job began.
    Running {
        /// Seconds stamp of the status event.
        stamp: u64,
    },
    /// The end, with its log.
    Finished {
        /// Seconds stamp of the status event.
        stamp: u64,
        /// How it ended.
        end: End,
        /// The stored log.
        log: SealedLog,
        /// Whole seconds from the first job's begin to the end; 0 where nothing ran.
        duration_s: u64,
        /// Definitions that it was made of.
        #[serde(default)]
        supplied: Vec<Supplied>,
    },
}
