//! Ends offers, leases and cancels whose time is over.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Inner, pool::Lost};

/// Between tries to tell the run side of a loss.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    loop {
        let next = inner.pool().next_deadline();
        tokio::select! {
            () = stop.cancelled() => return,
            () = inner.rearm.notified() => continue,
            () = async { match next { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {}
        }
        let expired = inner.change(|pool| pool.expire(Instant::now()));
        if expired.offers {
            inner.wake.notify_one();
        }
        for lost in expired.lost {
            tokio::spawn(tell(inner.clone(), lost, stop.clone()));
        }
    }
}

/// Tells the run side until it has heard: an attempt that nobody holds must not stay "running".
pub(super) async fn tell(inner: Arc<Inner>, lost: Lost, stop: CancellationToken) {
    let Lost { attempt, worker, reason } = lost;
    warn!(run = attempt.run, job = attempt.job, attempt = attempt.number, worker, reason, "attempt lost");
    while let Err(error) = inner.parts.runs.lost(&attempt, &reason).await {
        warn!(%error, "the loss could not be stored, trying again");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
    inner.wake.notify_one();
}
