//! One concurrency group as a pure state machine: who holds it, who waits, who gives way.
//!
//! The second aggregate beside the run. No I/O and no clock: its effects are news for runs, written in the transaction
//! that writes the group.

use serde::{Deserialize, Serialize};
use workflow::plan::{ConcurrencyRequest, QueueMode};

use crate::run::{self, Millis};

pub mod circle;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tables;

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
    pub run: String,
    /// The run's number in the pool, for people.
    pub serial: u64,
    /// Job key; `None`: the whole run.
    pub job: Option<String>,
    /// Since when it holds the group or waits for it.
    pub since: Millis,
}

/// What can happen to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants it.
    Asked {
        /// Who.
        member: Member,
        /// How.
        ask: ConcurrencyRequest,
    },
    /// Somebody needs it no longer, or waits for it no longer.
    Left {
        /// Run id.
        run: String,
        /// Job key.
        job: Option<String>,
    },
}

/// News for a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
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
    GivesWay {
        /// Who.
        member: Member,
        /// To what, for people.
        to: String,
    },
}

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is a member already.
    #[error("known already")]
    Repeated,
    /// It is no member.
    #[error("not a member")]
    Stranger,
}

/// What a group is stored under. A group belongs to one repository, and case makes no difference in its name.
pub fn key(repository: &str, group: &str) -> String {
    format!("{repository} {}", group.to_lowercase())
}

/// What the row is stored under that every ask of a job writes which has to wait: of two that close a circle together,
/// the second sees the first. No group has an empty name.
pub fn ledger(repository: &str) -> String {
    key(repository, "")
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
/// [`Refused`] where the event changes nothing: nothing is to be stored or told.
pub fn advance(group: &Group, event: Event, now: Millis) -> Result<(Group, Vec<Effect>), Refused> {
    let mut next = group.clone();
    let effects = match event {
        Event::Asked { member, ask } => next.asked(member, &ask)?,
        Event::Left { run, job } => next.left(&run, job.as_deref(), now)?,
    };
    if !group.untouched() {
        next.version += 1;
    }
    Ok((next, effects))
}

impl Group {
    fn asked(&mut self, member: Member, ask: &ConcurrencyRequest) -> Result<Vec<Effect>, Refused> {
        if self.holder.iter().chain(&self.pending).any(|known| known.is(&member.run, member.job.as_deref())) {
            return Err(Refused::Repeated);
        }
        let Some(holder) = self.holder.clone() else {
            self.holder = Some(member.clone());
            return Ok(vec![Effect::Granted(member)]);
        };
        let group = &ask.group;
        if ask.queue == QueueMode::Max && self.pending.len() >= LONGEST {
            let to = format!("the concurrency group {group}, for which {LONGEST} wait already");
            return Ok(vec![Effect::GivesWay { member, to }]);
        }
        let to = format!("run {} of the concurrency group {group}", member.serial);
        let mut effects = Vec::new();
        if ask.queue == QueueMode::Single {
            let replaced = self.pending.drain(..);
            effects.extend(replaced.map(|member| Effect::GivesWay { member, to: to.clone() }));
        }
        // The newcomer waits all the same: what is cancelled may take its time to clean up.
        if ask.cancel_in_progress {
            effects.push(Effect::GivesWay { member: holder.clone(), to });
        }
        self.pending.push(member.clone());
        effects.push(Effect::Waits { member, holder });
        Ok(effects)
    }

    fn left(&mut self, run: &str, job: Option<&str>, now: Millis) -> Result<Vec<Effect>, Refused> {
        if !self.holder.as_ref().is_some_and(|holder| holder.is(run, job)) {
            let before = self.pending.len();
            self.pending.retain(|member| !member.is(run, job));
            return if self.pending.len() < before { Ok(Vec::new()) } else { Err(Refused::Stranger) };
        }
        self.holder = None;
        if self.pending.is_empty() {
            return Ok(Vec::new());
        }
        let next = Member { since: now, ..self.pending.remove(0) };
        self.holder = Some(next.clone());
        let waiting = self.pending.iter().map(|member| Effect::Waits { member: member.clone(), holder: next.clone() });
        Ok(std::iter::once(Effect::Granted(next.clone())).chain(waiting).collect())
    }
}

impl Member {
    fn is(&self, run: &str, job: Option<&str>) -> bool {
        self.run == run && self.job.as_deref() == job
    }
}

impl Effect {
    /// The news as the run hears it: its id, and the event.
    pub fn told(self) -> (String, run::Event) {
        match self {
            Self::Granted(Member { run, job, .. }) => (run, run::Event::Granted { job }),
            Self::Waits { member: Member { run, job, .. }, holder } => {
                (run, run::Event::HeldBy { job, serial: holder.serial })
            }
            Self::GivesWay { member: Member { run, job: None, .. }, to } => (run, run::Event::Cancel { by: to }),
            Self::GivesWay { member: Member { run, job: Some(job), .. }, to } => {
                (run, run::Event::GivesWay { job, to })
            }
        }
    }
}
