//! Stores why jobs still wait, and gives up jobs that no worker of the pool could take.
//!
//! Apart from the assigner and at a slow pace: what is shown to people must not delay an offer. A reason is found once for
//! each group of like jobs, and only changed reasons are stored, all of a run at once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use domain::{
    id::{JobKey, RunId},
    run::Millis,
    schedule::{self, QueuedJob, WaitReason, WorkerView},
};
use store::WorkerRow;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Inner, queue::JobId};

/// Time between two passes: a job that waits less needs no reason.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most runs whose reasons are stored in one pass.
const RUNS: usize = 50;
/// A worker that another coordinator saw within this time counts as connected (ms).
const SEEN_WITHIN: Millis = 10 * 60_000;

/// What was found in earlier passes.
#[derive(Default)]
struct KnownReasons {
    /// The reason that is stored for a job.
    reasons: HashMap<JobId, String>,
    /// Since when no worker of the pool has had the labels.
    unmatched: HashMap<JobId, Instant>,
}

/// What one pass finds.
#[derive(Default)]
struct Findings {
    /// By run: job and reason, where it changed.
    reasons: BTreeMap<RunId, Vec<(JobKey, String)>>,
    given_up: Vec<JobId>,
}

pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    let mut known = KnownReasons::default();
    let interval = INTERVAL.min(inner.config.unmatched / 4).max(Duration::from_millis(20));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if inner.queue.lock().len() == 0 {
            known = KnownReasons::default();
            continue;
        }
        let stored = match inner.config.store.workers().await {
            Ok(stored) => stored,
            Err(error) => {
                warn!("why jobs wait can't be found out: {error}");
                continue;
            }
        };
        let found = {
            let (workers, queue) = (inner.registry.lock().views(), inner.queue.lock());
            let now = (inner.config.clock)();
            known.reasons.retain(|job, _| queue.contains(job));
            known.unmatched.retain(|job, _| queue.contains(job));
            known.update(queue.groups(), &workers, &elsewhere(&stored, &workers, now), inner.config.unmatched)
        };
        if let Err(error) = store(&inner, &mut known, found).await {
            warn!("why jobs wait can't be stored: {error:#}");
        }
    }
}

async fn store(inner: &Inner, known: &mut KnownReasons, found: Findings) -> anyhow::Result<()> {
    for (run, job) in found.given_up {
        inner.config.runs.unmatched(&run, &job).await?;
    }
    for (run, reasons) in found.reasons.into_iter().take(RUNS) {
        inner.config.runs.wait_reasons(&run, reasons.clone()).await?;
        known.reasons.extend(reasons.into_iter().map(|(job, reason)| ((run.clone(), job), reason)));
    }
    Ok(())
}

/// Workers of the pool that are connected to other coordinators, or were here lately.
fn elsewhere(stored: &[WorkerRow], here: &[WorkerView], now: Millis) -> Vec<HashSet<String>> {
    let lately = |row: &&WorkerRow| row.seen_at.saturating_add(SEEN_WITHIN) > now;
    let there = |row: &&WorkerRow| !here.iter().any(|view| *view.id == *row.id);
    stored.iter().filter(lately).filter(there).map(|row| row.labels.iter().cloned().collect()).collect()
}

impl KnownReasons {
    fn update<'a>(
        &mut self,
        groups: impl Iterator<Item = (&'a QueuedJob, impl Iterator<Item = &'a QueuedJob>)>,
        workers: &[WorkerView],
        elsewhere: &[HashSet<String>],
        patience: Duration,
    ) -> Findings {
        let (mut found, now) = (Findings::default(), Instant::now());
        for (first, jobs) in groups {
            let decision = schedule::assign(std::slice::from_ref(first), workers);
            // A slot is free: the next round takes it.
            let Some((_, why)) = decision.waiting.into_iter().next() else { continue };
            let matched_elsewhere =
                elsewhere.iter().any(|labels| first.labels.iter().all(|label| labels.contains(label)));
            for job in jobs {
                let id = (job.run.clone(), job.job.clone());
                if self.is_given_up(&id, &why, matched_elsewhere, now, patience) {
                    found.given_up.push(id);
                    continue;
                }
                let reason = why.to_string();
                if self.reasons.get(&id) != Some(&reason) {
                    found.reasons.entry(job.run.clone()).or_default().push((job.job.clone(), reason));
                }
            }
        }
        found
    }

    fn is_given_up(
        &mut self,
        job: &JobId,
        why: &WaitReason,
        elsewhere: bool,
        now: Instant,
        patience: Duration,
    ) -> bool {
        if !why.is_unmatched() || elsewhere {
            self.unmatched.remove(job);
            return false;
        }
        let since = *self.unmatched.entry(job.clone()).or_insert(now);
        now.duration_since(since) >= patience
    }
}
