//! What does one kind of work.

use futures::future::BoxFuture;
use store::{Batch, ClaimedWork, LaneOrder, WorkKind};

use crate::BackOff;

/// Does one kind of work. Rows may come again after they were done: a process can die between a deed and its row.
pub trait WorkHandler: Send + Sync {
    /// Which kind.
    fn kind(&self) -> WorkKind;

    /// Calls at the same time: rows, or lanes where the kind has lanes.
    fn parallelism(&self) -> u32;

    /// How rows of one lane relate.
    fn lanes(&self) -> LaneOrder {
        LaneOrder::Independent
    }

    /// Whether handling a row has an effect that a power failure does not undo together with the row: an event sent, a
    /// file removed. What the row rests on is on the disk then before it is handled.
    fn acts_outside(&self) -> bool {
        true
    }

    /// Waits after a failure.
    fn back_off(&self) -> BackOff {
        BackOff::default()
    }

    /// Does claimed rows: one row, or the next rows of one lane in order. After an error the first row is tried again
    /// with back-off, and the others are released.
    fn handle(&self, rows: Vec<ClaimedWork>) -> BoxFuture<'_, anyhow::Result<Outcome>>;
}

/// What became of claimed rows. Each row must be completed, retried or released by one of the changes stored, or it
/// stays claimed until the claim lapses.
#[derive(Debug)]
pub enum Outcome {
    /// The handler has stored everything itself, e.g. in the transaction of a run's next state.
    Stored,
    /// These changes are to be stored.
    Store(Batch),
}
