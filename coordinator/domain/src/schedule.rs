//! Which queued job goes to which worker: fit, fairness, reasons. Pure.
//!
//! A job fits a worker that has all its labels. Owners take turns: who has the fewest jobs running is next. A job goes
//! to the worker with most free slots, and to one that lost it before only where no other fits.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque},
    fmt,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    id::{JobKey, RunId},
    run::Millis,
};

/// A job in the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueuedJob {
    /// Run id.
    pub run: RunId,
    /// Job key.
    pub job: JobKey,
    /// Labels a worker must have.
    pub labels: Vec<String>,
    /// Worker ids to avoid where another can take it.
    pub avoid: Vec<String>,
    /// For fairness: what it is counted against (the key of the repository's owner, or of an outsider who asked).
    pub owner: String,
    /// Since when.
    pub since: Millis,
    /// Why it still waits, for people; empty: not known yet.
    #[serde(default)]
    pub reason: String,
}

/// Why a queued job still waits, where that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitUpdate {
    /// Run id.
    pub run: RunId,
    /// Job key.
    pub job: JobKey,
    /// For people.
    pub reason: String,
}

/// A connected worker, as scheduling sees it. Made anew for each round: its texts are shared.
#[derive(Debug, Clone, Default)]
pub struct WorkerView {
    /// Id in the pool.
    pub id: Arc<str>,
    /// What it offers.
    pub labels: Arc<BTreeSet<String>>,
    /// Jobs it takes at a time.
    pub slots: usize,
    /// The owner of each job that it has or is offered; a slot lost to an unconfirmed cancel has no owner.
    pub busy: Vec<Option<Arc<str>>>,
    /// It takes no new jobs.
    pub draining: bool,
}

/// One job for one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Position in the queue that was given.
    pub job: usize,
    /// Worker id.
    pub worker: Arc<str>,
}

/// What becomes of the queue: each job stands in exactly one of the two.
#[derive(Debug, Default)]
pub struct Schedule {
    /// To be offered now.
    pub assignments: Vec<Assignment>,
    /// The others, by position in the queue.
    pub waiting: Vec<(usize, WaitReason)>,
}

/// Why a job still waits. Its text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// Nobody is there.
    NoWorker,
    /// None has the labels.
    NoLabels {
        /// Labels that no single worker has together.
        missing: Vec<String>,
        /// What the connected workers offer.
        offered: Vec<String>,
    },
    /// Those that fit take no new jobs.
    Draining {
        /// How many.
        workers: usize,
    },
    /// Those that fit are full.
    Busy {
        /// How many slots they have.
        slots: usize,
    },
    /// Only a worker that lost it before has room; others that fit are full.
    Avoided {
        /// How many slots the others have.
        slots: usize,
    },
}

impl WaitReason {
    /// No worker, whatever it is doing, could take it.
    pub fn is_unmatched(&self) -> bool {
        matches!(self, Self::NoWorker | Self::NoLabels { .. })
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorker => f.write_str("no worker is connected"),
            Self::NoLabels { missing, offered } => {
                let labels = if missing.len() == 1 { "label" } else { "labels" };
                write!(f, "no worker has the {labels} {}; connected workers offer: ", missing.join(", "))?;
                f.write_str(&if offered.is_empty() { "none".to_owned() } else { offered.join(", ") })
            }
            Self::Draining { workers: 1 } => f.write_str("the only matching worker is draining"),
            Self::Draining { workers } => write!(f, "all {workers} matching workers are draining"),
            Self::Busy { slots: 1 } => f.write_str("the only slot of matching workers is busy"),
            Self::Busy { slots } => write!(f, "all {slots} slots of matching workers are busy"),
            Self::Avoided { slots } => {
                write!(f, "it was lost before and waits for another worker; all {slots} slots of the others are busy")
            }
        }
    }
}

/// Assigns what can be assigned. `queue` is in the order of age.
pub fn assign(queue: &[QueuedJob], workers: &[WorkerView]) -> Schedule {
    let mut free: Vec<usize> = workers.iter().map(|w| w.slots.saturating_sub(w.busy.len())).collect();
    let mut running: HashMap<&str, usize> = HashMap::new();
    for owner in workers.iter().flat_map(|w| w.busy.iter().flatten()) {
        *running.entry(owner).or_default() += 1;
    }
    let mut owners: BTreeMap<&str, VecDeque<usize>> = BTreeMap::new();
    for (position, job) in queue.iter().enumerate() {
        owners.entry(job.owner.as_str()).or_default().push_back(position);
    }
    let count = |running: &HashMap<&str, usize>, owner: &str| running.get(owner).copied().unwrap_or_default();
    let mut turns: BinaryHeap<_> = owners
        .iter()
        .filter_map(|(owner, jobs)| Some(Reverse((count(&running, owner), *jobs.front()?, *owner))))
        .collect();

    let mut fits: HashMap<&[String], Vec<usize>> = HashMap::new();
    let mut decision = Schedule::default();
    while let Some(Reverse((_, position, owner))) = turns.pop() {
        let Some(job) = queue.get(position) else { continue };
        let fitting = fits.entry(job.labels.as_slice()).or_insert_with(|| fitting(&job.labels, workers));
        match choose(job, workers, fitting, &free) {
            Ok(worker) => {
                if let (Some(free), Some(view)) = (free.get_mut(worker), workers.get(worker)) {
                    *free -= 1;
                    decision.assignments.push(Assignment { job: position, worker: view.id.clone() });
                    *running.entry(owner).or_default() += 1;
                }
            }
            Err(why) => decision.waiting.push((position, why)),
        }
        if let Some(jobs) = owners.get_mut(owner) {
            jobs.pop_front();
            if let Some(next) = jobs.front() {
                turns.push(Reverse((count(&running, owner), *next, owner)));
            }
        }
    }
    decision
}

fn fitting(labels: &[String], workers: &[WorkerView]) -> Vec<usize> {
    let fits = |worker: &WorkerView| labels.iter().all(|label| worker.labels.contains(label));
    workers.iter().enumerate().filter(|(_, worker)| fits(worker)).map(|(position, _)| position).collect()
}

fn choose(job: &QueuedJob, workers: &[WorkerView], fitting: &[usize], free: &[usize]) -> Result<usize, WaitReason> {
    if workers.is_empty() {
        return Err(WaitReason::NoWorker);
    }
    if fitting.is_empty() {
        return Err(no_labels(job, workers));
    }
    let open = || fitting.iter().filter_map(|&at| Some((at, workers.get(at)?))).filter(|(_, w)| !w.draining);
    let slots =
        |avoid: bool| -> usize { open().filter(|(_, w)| !avoid || !avoids(job, w)).map(|(_, w)| w.slots).sum() };
    if open().next().is_none() {
        return Err(WaitReason::Draining { workers: fitting.len() });
    }
    let others = slots(true);
    let best = open()
        .filter(|(_, worker)| others == 0 || !avoids(job, worker))
        .filter_map(|(at, worker)| Some((*free.get(at)?, Reverse(&worker.id), at)))
        .filter(|(free, ..)| *free > 0)
        .max();
    let all = slots(false);
    best.map(|(.., at)| at).ok_or(if others < all && others > 0 {
        WaitReason::Avoided { slots: others }
    } else {
        WaitReason::Busy { slots: all }
    })
}

fn avoids(job: &QueuedJob, worker: &WorkerView) -> bool {
    job.avoid.iter().any(|avoided| **avoided == *worker.id)
}

fn no_labels(job: &QueuedJob, workers: &[WorkerView]) -> WaitReason {
    let offered: BTreeSet<&String> = workers.iter().flat_map(|worker| worker.labels.iter()).collect();
    let unknown: Vec<String> = job.labels.iter().filter(|label| !offered.contains(label)).cloned().collect();
    // Each label is offered by somebody, only not together: all of them are what is missing.
    let missing = if unknown.is_empty() { job.labels.clone() } else { unknown };
    WaitReason::NoLabels { missing, offered: offered.into_iter().cloned().collect() }
}

#[cfg(test)]
mod tests;
