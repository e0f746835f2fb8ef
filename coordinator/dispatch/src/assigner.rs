//! Offers queued jobs to workers whenever the queue or the free slots change.

use std::{sync::Arc, time::Duration};

use domain::schedule;
use store::{QueueChange, Store};
use tokio::{
    sync::broadcast::{
        Receiver,
        error::{RecvError, TryRecvError},
    },
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::{Inner, queue::QueueCache};

/// The whole queue is read this often: the changes of other processes are not announced here.
const READ_INTERVAL: Duration = Duration::from_secs(30);
/// Wait after the store failed.
const STORE_BACK_OFF: Duration = Duration::from_secs(1);

pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    let mut changes = inner.config.store.subscribe_queue();
    let mut next_read = Instant::now();
    loop {
        if Instant::now() >= next_read {
            // Changes since the subscription are applied afterwards.
            next_read = Instant::now()
                + match read(&inner, &inner.config.store).await {
                    Ok(()) => READ_INTERVAL.mul_f64(0.75 + fastrand::f64() / 2.0),
                    Err(error) => {
                        warn!("the queue can't be read, trying again: {error:#}");
                        STORE_BACK_OFF
                    }
                };
        }
        // An offer is closed after the commit about its job: applied here, that keeps the job from being offered again.
        if !follow(&inner, &mut changes) {
            next_read = Instant::now();
            continue;
        }
        assign(&inner);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = inner.assign.notified() => {}
            () = tokio::time::sleep_until(next_read) => {}
            changed = changes.recv() => match changed {
                Ok(change) => apply(&mut inner.queue.lock(), change),
                Err(RecvError::Lagged(_)) => next_read = Instant::now(),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

async fn read(inner: &Inner, store: &Store) -> anyhow::Result<()> {
    let queue = store.queued().await?;
    inner.queue.lock().replace(queue);
    Ok(())
}

/// Applies the announced changes. False: some were missed.
fn follow(inner: &Inner, changes: &mut Receiver<QueueChange>) -> bool {
    let mut queue = inner.queue.lock();
    loop {
        match changes.try_recv() {
            Ok(change) => apply(&mut queue, change),
            Err(TryRecvError::Lagged(_)) => return false,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return true,
        }
    }
}

fn apply(queue: &mut QueueCache, change: QueueChange) {
    match change {
        QueueChange::Added(job) => queue.insert(job.as_ref().clone()),
        QueueChange::Removed(id) => queue.remove(&id),
    }
}

/// Offers what can be assigned now. Its cost grows with the free slots, not with the queue.
fn assign(inner: &Inner) {
    let now = Instant::now();
    let mut registry = inner.registry.lock();
    let free = registry.free_slots();
    if free == 0 {
        return;
    }
    let candidates = inner.queue.lock().candidates(free, |job| registry.is_offered(job));
    if candidates.is_empty() {
        return;
    }
    let workers = registry.views();
    for assignment in schedule::assign(&candidates, &workers).assignments {
        if let Some(job) = candidates.get(assignment.job) {
            registry.offer(Uuid::now_v7().to_string(), job, &assignment.worker, now);
        }
    }
    drop(registry);
    inner.offered.notify_one();
}
