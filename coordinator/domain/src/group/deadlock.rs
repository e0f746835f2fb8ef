//! Circles of waits: a job that waits for a group whose holder cannot end before that very job has.
//!
//! GitHub ends a job that waits for the group of its own workflow (docs: "Control the concurrency of workflows and
//! jobs"); of circles through other runs its documentation says nothing. Here the ask that closes one is given up, and
//! only that: everybody else in it goes on. A circle can be closed by an ask alone, for who is granted a group waits for
//! nothing yet.

use super::Member;
use crate::{id::JobKey, run::RunState};

/// Looks for a circle that a job's ask closes.
#[derive(Debug)]
pub struct DeadlockSearch<'a> {
    state: &'a RunState,
    job: &'a JobKey,
    open: Vec<Member>,
    seen: Vec<Member>,
}

impl<'a> DeadlockSearch<'a> {
    /// `state` is the run of the job that waits.
    pub fn new(state: &'a RunState, job: &'a JobKey) -> Self {
        Self { state, job, open: Vec::new(), seen: Vec::new() }
    }

    /// Something on the way waits for a group that this member holds. True: that closes the circle.
    pub fn visit_holder(&mut self, holder: &Member) -> bool {
        if holder.run == self.state.id && self.state.is_around(holder.job.as_ref(), self.job) {
            return true;
        }
        if !self.seen.iter().any(|seen| seen.is(&holder.run, holder.job.as_ref())) {
            self.seen.push(holder.clone());
            self.open.push(holder.clone());
        }
        false
    }

    /// The next member whose waits are followed: [`RunState::waits_below`] of its run names the groups, and the holder of
    /// each is given to [`DeadlockSearch::visit_holder`].
    pub fn next_holder(&mut self) -> Option<Member> {
        self.open.pop()
    }
}

/// Describes the lock holder that the job yields to.
pub fn describe(group: &str, holder: &Member) -> String {
    format!(
        "a circle of waits: run {} holds the concurrency group {group} and cannot end before this job, whose own run \
         holds a group that is waited for there",
        holder.serial
    )
}
