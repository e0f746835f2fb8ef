//! Offers queued jobs to workers whenever the queue or the free slots change.

use std::{sync::Arc, time::Duration};

use domain::schedule;
use store::{QueueChange, Store};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::Inner;

/// The whole queue is read this often, whatever was announced: other processes announce nothing here.
const LOOK: Duration = Duration::from_secs(30);
/// Wait after the store failed.
const STORE_BACK_OFF: Duration = Duration::from_secs(1);

pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    let mut changes = inner.config.store.subscribe_queue();
    let mut look = Instant::now();
    loop {
        if Instant::now() >= look {
            // Subscribed before: what changes while this is read is applied afterwards.
            look = Instant::now()
                + match read(&inner, &inner.config.store).await {
                    Ok(()) => LOOK.mul_f64(0.75 + fastrand::f64() / 2.0),
                    Err(error) => {
                        warn!("the queue can't be read, trying again: {error:#}");
                        STORE_BACK_OFF
                    }
                };
        }
        assign(&inner);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = inner.assign.notified() => {}
            () = tokio::time::sleep_until(look) => {}
            changed = next_changes(&inner, &mut changes) => if !changed { look = Instant::now() },
        }
    }
}

async fn read(inner: &Inner, store: &Store) -> anyhow::Result<()> {
    let queue = store.queued().await?;
    inner.queue.lock().replace(queue);
    Ok(())
}

/// Applies what changed. False: something was missed.
async fn next_changes(inner: &Inner, changes: &mut Receiver<QueueChange>) -> bool {
    let mut next = match changes.recv().await {
        Ok(change) => change,
        Err(RecvError::Lagged(_)) => return false,
        Err(RecvError::Closed) => std::future::pending().await,
    };
    let mut queue = inner.queue.lock();
    loop {
        match next {
            QueueChange::Added(job) => queue.insert(job.as_ref().clone()),
            QueueChange::Removed(id) => queue.remove(&id),
        }
        next = match changes.try_recv() {
            Ok(change) => change,
            Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_)) => return false,
            Err(_) => return true,
        };
    }
}

/// Offers what can be assigned now. Costs what is free, not what waits.
fn assign(inner: &Inner) {
    let now = Instant::now();
    let mut registry = inner.registry.lock();
    let workers = registry.views();
    let open = |worker: &&domain::schedule::WorkerView| !worker.draining;
    let free: usize = workers.iter().filter(open).map(|worker| worker.slots.saturating_sub(worker.busy.len())).sum();
    if free == 0 {
        return;
    }
    let candidates = inner.queue.lock().candidates(free, |job| registry.is_offered(job));
    for assignment in schedule::assign(&candidates, &workers).assignments {
        if let Some(job) = candidates.get(assignment.job) {
            registry.offer(Uuid::now_v7().to_string(), job, &assignment.worker, now);
        }
    }
    drop(registry);
    inner.offered.notify_one();
}
