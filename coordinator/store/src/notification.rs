//! What subscribers are notified of.

use std::sync::Arc;

use domain::id::{JobKey, RunId};
use domain::schedule::QueuedJob;

/// A kind of rows that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeNotification {
    /// Jobs that wait for a worker.
    Queue,
    /// Events to publish.
    Outbox,
    /// Runs.
    Runs,
    /// Work was added, or is free again.
    Work,
    /// Leases are to be cancelled.
    Leases,
    /// Workers are to be drained, or no longer.
    Workers,
    /// Repositories are followed, no longer followed, or published elsewhere.
    Followed,
}

/// A change of the queue, for a copy of it in memory.
#[derive(Debug, Clone, PartialEq)]
pub enum QueueChange {
    /// A job waits for a worker.
    Added(Arc<QueuedJob>),
    /// It waits no longer: run and job key.
    Removed((RunId, JobKey)),
}

impl ChangeNotification {
    /// All of them, and how they are written in notifications between processes.
    pub(crate) const ALL: [(Self, &'static str); 7] = [
        (Self::Queue, "queue"),
        (Self::Outbox, "outbox"),
        (Self::Runs, "runs"),
        (Self::Work, "work"),
        (Self::Leases, "leases"),
        (Self::Workers, "workers"),
        (Self::Followed, "followed"),
    ];

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(change, _)| *change == self).map_or("", |(_, word)| word)
    }

    pub(crate) fn read(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(change, _)| *change)
    }
}
