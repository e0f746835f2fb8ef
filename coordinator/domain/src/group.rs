//! One concurrency group as a pure state machine: who holds it, who waits, who gives way.
//!
//! The second aggregate beside the run. No I/O and no clock: its effects are news for runs, written in the transaction
//! that writes the group.

use serde::{Deserialize, Serialize};
use workflow::plan::{ConcurrencyRequest, QueueMode};

use crate::{
    id::{JobKey, RunId},
    run::{self, Millis},
};

pub mod deadlock;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

/// How many may wait under `queue: max` (GitHub docs: control workflow concurrency).
pub const LONGEST: usize = 100;

/// A concurrency group: one holder and those who wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// See [`key`].
    pub key: String,
    /// Grows by one with each change, from 0.
    pub version: u64,
    /// Who may run.
    pub holder: Option<Member>,
    /// Who waits, the next one first.
    pub pending: Vec<Member>,
}

/// A run, or a job of one, in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Run id.
    pub run: RunId,
    /// The run's number in the pool, for people.
    pub serial: u64,
    /// Job key; `None`: the whole run.
    pub job: Option<JobKey>,
    /// Since when it holds the group or waits for it.
    pub since: Millis,
}

/// What can happen to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupEvent {
    /// Somebody wants it.
    JoinRequested {
        /// Who.
        member: Member,
        /// How.
        ask: ConcurrencyRequest,
    },
    /// Somebody needs it no longer, or waits for it no longer.
    Left {
        /// Run id.
        run: RunId,
        /// Job key; `None`: the whole run.
        job: Option<JobKey>,
    },
}

/// News for a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupEffect {
    /// It may run.
    Granted(Member),
    /// It waits.
    Waits {
        /// Who.
        member: Member,
        /// For this one.
        holder: Member,
    },
    /// It is to end.
    Preempted {
        /// Who.
        member: Member,
        /// To what, for people.
        to: String,
    },
}

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupRefusal {
    /// It is a member already.
    #[error("known already")]
    Repeated,
    /// It is no member.
    #[error("not a member")]
    Stranger,
}

/// What a group is stored under. A group belongs to one scope ([`RunState::group_scope`](crate::run::RunState::group_scope)),
/// and case makes no difference in its name.
pub fn key(scope: &str, group: &str) -> String {
    format!("{scope} {}", group.to_lowercase())
}

/// What the row is stored under that every ask of a job writes which has to wait: of two that close a circle together,
/// the second sees the first. No group has an empty name.
pub fn deadlock_check_key(scope: &str) -> String {
    key(scope, "")
}

impl Group {
    /// A group that nobody has asked for yet, to be stored with its first change.
    pub fn new(key: String) -> Self {
        Self { key, version: 0, holder: None, pending: Vec::new() }
    }

    /// Whether nobody has asked for it yet.
    fn untouched(&self) -> bool {
        self.version == 0 && self.holder.is_none() && self.pending.is_empty()
    }
}

/// The group after an event, and whom to tell what.
///
/// # Errors
/// [`GroupRefusal`] where the event changes nothing: nothing is to be stored or told.
pub fn advance(group: &Group, event: GroupEvent, now: Millis) -> Result<(Group, Vec<GroupEffect>), GroupRefusal> {
    let mut next = group.clone();
    let effects = match event {
        GroupEvent::JoinRequested { member, ask } => next.join(member, &ask)?,
        GroupEvent::Left { run, job } => next.leave(&run, job.as_ref(), now)?,
    };
    if !group.untouched() {
        next.version += 1;
    }
    Ok((next, effects))
}

impl Group {
    fn join(&mut self, member: Member, ask: &ConcurrencyRequest) -> Result<Vec<GroupEffect>, GroupRefusal> {
        if self.holder.iter().chain(&self.pending).any(|known| known.is(&member.run, member.job.as_ref())) {
            return Err(GroupRefusal::Repeated);
        }
        let Some(holder) = self.holder.clone() else {
            self.holder = Some(member.clone());
            return Ok(vec![GroupEffect::Granted(member)]);
        };
        let group = &ask.group;
        if ask.queue == QueueMode::Max && self.pending.len() >= LONGEST {
            let to = format!("the concurrency group {group}, for which {LONGEST} wait already");
            return Ok(vec![GroupEffect::Preempted { member, to }]);
        }
        let to = format!("run {} of the concurrency group {group}", member.serial);
        let mut effects = Vec::new();
        if ask.queue == QueueMode::Single {
            let replaced = self.pending.drain(..);
            effects.extend(replaced.map(|member| GroupEffect::Preempted { member, to: to.clone() }));
        }
        // The newcomer waits all the same: what is cancelled may take its time to clean up.
        if ask.cancel_in_progress {
            effects.push(GroupEffect::Preempted { member: holder.clone(), to });
        }
        self.pending.push(member.clone());
        effects.push(GroupEffect::Waits { member, holder });
        Ok(effects)
    }

    fn leave(&mut self, run: &RunId, job: Option<&JobKey>, now: Millis) -> Result<Vec<GroupEffect>, GroupRefusal> {
        if !self.holder.as_ref().is_some_and(|holder| holder.is(run, job)) {
            let before = self.pending.len();
            self.pending.retain(|member| !member.is(run, job));
            return if self.pending.len() < before { Ok(Vec::new()) } else { Err(GroupRefusal::Stranger) };
        }
        self.holder = None;
        if self.pending.is_empty() {
            return Ok(Vec::new());
        }
        let next = Member { since: now, ..self.pending.remove(0) };
        self.holder = Some(next.clone());
        let waiting =
            self.pending.iter().map(|member| GroupEffect::Waits { member: member.clone(), holder: next.clone() });
        Ok(std::iter::once(GroupEffect::Granted(next.clone())).chain(waiting).collect())
    }
}

impl Member {
    fn is(&self, run: &RunId, job: Option<&JobKey>) -> bool {
        self.run == *run && self.job.as_ref() == job
    }
}

impl GroupEffect {
    /// Returns the run that it is for, and the event to apply there.
    pub fn into_run_event(self) -> (RunId, run::RunEvent) {
        match self {
            Self::Granted(Member { run, job, .. }) => (run, run::RunEvent::Granted { job }),
            Self::Waits { member: Member { run, job, .. }, holder } => {
                (run, run::RunEvent::HeldBy { job, serial: holder.serial })
            }
            Self::Preempted { member: Member { run, job: None, .. }, to } => (run, run::RunEvent::Cancel { by: to }),
            Self::Preempted { member: Member { run, job: Some(job), .. }, to } => {
                (run, run::RunEvent::Preempted { job, to })
            }
        }
    }
}
