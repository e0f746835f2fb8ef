//! A run while one event is applied to it: the state as it will be, and the effects so far.

use std::sync::Arc;

use crate::id::JobKey;

use super::{Job, Millis, RunEffect, RunPhase, RunState};

/// A transition under way. The other modules of the run extend it, each with the part of the rules it is about.
pub(super) struct Transition {
    pub(super) state: RunState,
    pub(super) now: Millis,
    pub(super) effects: Vec<RunEffect>,
}

impl Transition {
    /// A job, to be changed: no other version of the run sees the change.
    pub(super) fn job_mut(&mut self, key: &JobKey) -> Option<&mut Job> {
        self.state.jobs.get_mut(key).map(Arc::make_mut)
    }

    /// Seconds for the next status event: they grow even where the clock doesn't.
    pub(super) fn stamp(&mut self) -> u64 {
        self.state.stamped_at = (self.now / 1000).max(self.state.stamped_at + 1);
        self.state.stamped_at
    }

    /// Whether nothing more is to be tried: somebody cancelled, or the time is over.
    pub(super) fn halted(&self) -> bool {
        self.state.cancelled.is_some() || self.state.expired_at.is_some()
    }

    pub(super) fn over(&self) -> bool {
        matches!(self.state.phase, RunPhase::Finalizing { .. } | RunPhase::Done { .. })
    }
}
