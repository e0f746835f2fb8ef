//! Offers queued jobs to workers whenever the queue or the free slots change.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::Inner;
use domain::schedule::QueuedJob;
use domain::schedule::{self, WaitReason};

/// Between tries to read the queue.
const AGAIN: Duration = Duration::from_secs(1);

/// (run, job).
type Key = (String, String);

/// What was said about jobs that wait.
#[derive(Default)]
struct Waits {
    told: HashMap<Key, String>,
    /// Since when no worker has had the labels.
    unmatched: HashMap<Key, Instant>,
}

pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    let mut waits = Waits::default();
    loop {
        let next = match round(&inner, &mut waits).await {
            Ok(next) => next,
            Err(error) => {
                warn!(error = format!("{error:#}"), "the queue could not be handed out, trying again");
                Some(Instant::now() + AGAIN)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = inner.wake.notified() => {}
            () = async { match next { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {}
        }
    }
}

/// One pass over the queue. Returns when the next one is due if nothing changes until then.
async fn round(inner: &Inner, waits: &mut Waits) -> anyhow::Result<Option<Instant>> {
    let queue = inner.parts.runs.queued().await?;
    let known: HashSet<Key> = queue.iter().map(key).collect();
    let now = Instant::now();
    let (queue, waiting) = inner.change(|pool| {
        let (queue, workers) = pool.views(queue);
        let decision = schedule::assign(&queue, &workers);
        for assignment in decision.assignments {
            if let Some(job) = queue.get(assignment.job) {
                pool.offer(Uuid::now_v7().to_string(), job, &assignment.worker, now);
            }
        }
        (queue, decision.waiting)
    });
    waits.told.retain(|job, _| known.contains(job));

    let mut unmatched = HashMap::new();
    for (position, why) in waiting {
        let Some(job) = queue.get(position) else { continue };
        if why.is_unmatched() {
            let since = waits.unmatched.get(&key(job)).copied().unwrap_or(now);
            if now.duration_since(since) >= inner.parts.terms.unmatched {
                inner.parts.runs.unmatched(&job.run, &job.job).await?;
                continue;
            }
            unmatched.insert(key(job), since);
        }
        tell(inner, waits, job, &why).await?;
    }
    waits.unmatched = unmatched;
    Ok(waits.unmatched.values().min().map(|since| *since + inner.parts.terms.unmatched))
}

/// Says why a job waits, once for each reason.
async fn tell(inner: &Inner, waits: &mut Waits, job: &QueuedJob, why: &WaitReason) -> anyhow::Result<()> {
    let reason = why.to_string();
    if waits.told.get(&key(job)) != Some(&reason) {
        inner.parts.runs.waits(&job.run, &job.job, &reason).await?;
        waits.told.insert(key(job), reason);
    }
    Ok(())
}

fn key(job: &QueuedJob) -> Key {
    (job.run.clone(), job.job.clone())
}
