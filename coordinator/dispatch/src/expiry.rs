//! Ends offers and leases that ran out.
//!
//! Only time counts in which the coordinator could have received a renewal: after a start, a pause of the process, a step
//! of the clock or a failure of the store, every lease gets a full term.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use domain::run::Millis;
use futures::StreamExt as _;
use store::{Lease, LeaseChange};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Inner;

/// Lost attempts that are stored at the same time: their commits share transactions.
const AT_ONCE: usize = 32;
/// Wait after the store failed.
const STORE_BACK_OFF: Duration = Duration::from_secs(1);

/// Withdraws offers that were not accepted in time.
pub(super) async fn offers(inner: Arc<Inner>, stop: CancellationToken) {
    loop {
        let (next, none_waits) = {
            let registry = inner.registry.lock();
            (registry.next_offer_end(), !registry.has_offers())
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // All offers last equally long, so a new one never ends before the one that is waited for.
            () = inner.offered.notified(), if none_waits => continue,
            () = async { match next { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {}
        }
        if inner.registry.lock().expire_offers(Instant::now()) {
            inner.assign.notify_one();
        }
    }
}

/// Ends attempts as lost whose lease ran out, or whose cancel was not confirmed in time.
pub(super) async fn leases(inner: Arc<Inner>, stop: CancellationToken) {
    let timeouts = inner.config.timeouts;
    let mut presence = Presence::new(timeouts.lease() / 4);
    let mut planned = Duration::ZERO;
    loop {
        let missed = inner.renewals_failed.swap(false, Ordering::Relaxed);
        let gap = presence.observe((inner.config.clock)(), Instant::now(), planned);
        planned = match expire(&inner, missed || gap).await {
            Ok(wait) => wait,
            Err(error) => {
                warn!("leases can't be read or ended, trying again: {error:#}");
                inner.renewals_failed.store(true, Ordering::Relaxed);
                STORE_BACK_OFF
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(planned) => {}
        }
    }
}

/// One pass. Returns the time until the next one.
async fn expire(inner: &Arc<Inner>, full_terms: bool) -> anyhow::Result<Duration> {
    let (store, timeouts) = (&inner.config.store, inner.config.timeouts);
    let now = (inner.config.clock)();
    if full_terms {
        let (expires_at, confirm_by) = (after(now, timeouts.lease()), after(now, timeouts.confirm()));
        store.commit(vec![LeaseChange::Extend { expires_at, confirm_by }.into()]).await?;
    }
    let over = store.leases_over(now).await?;
    if !over.is_empty() {
        let losses = futures::stream::iter(over).map(|lease| lose(inner, lease, now));
        let ended: Vec<anyhow::Result<()>> = losses.buffer_unordered(AT_ONCE).collect().await;
        inner.assign.notify_one();
        ended.into_iter().collect::<anyhow::Result<()>>()?;
    }
    let longest = timeouts.lease().min(timeouts.confirm()) / 4;
    let next = store.next_lease_end().await?.map_or(longest, |end| Duration::from_millis(end.saturating_sub(now)));
    Ok(next.clamp(Duration::from_millis(5), longest))
}

async fn lose(inner: &Inner, lease: Lease, now: Millis) -> anyhow::Result<()> {
    let unconfirmed = lease.confirm_by.is_some_and(|by| by <= now);
    let why = if unconfirmed { "it did not confirm the cancel in time" } else { "it was not heard of in time" };
    let name = inner.registry.lock().name_of(&lease.worker);
    let reason = format!("worker {name}: {why}");
    let attempt = &lease.attempt;
    warn!(
        run = attempt.run.as_str(),
        job = attempt.job.as_str(),
        attempt = attempt.number,
        worker = lease.worker,
        why,
        "attempt lost"
    );
    // Before it is stored: Stop may be repeated, and a slot in use must not be assigned again.
    inner.registry.lock().lose(attempt, &lease.worker, unconfirmed, why);
    inner.config.runs.lost(attempt, &reason).await
}

pub(super) fn after(now: Millis, duration: Duration) -> Millis {
    now.saturating_add(Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX))
}

/// Detects time in which this process received nothing.
struct Presence {
    tolerance: Duration,
    last: Option<(Millis, Instant)>,
}

impl Presence {
    fn new(tolerance: Duration) -> Self {
        Self { tolerance, last: None }
    }

    /// Whether clearly more time than `planned` has passed since the last call, or the clock was set. True for the first
    /// call: nothing was received before the start.
    fn observe(&mut self, wall: Millis, monotonic: Instant, planned: Duration) -> bool {
        let Some((last_wall, last)) = self.last.replace((wall, monotonic)) else { return true };
        let passed = monotonic.saturating_duration_since(last);
        let by_clock = i128::from(wall) - i128::from(last_wall);
        let difference = (by_clock - passed.as_millis() as i128).unsigned_abs();
        passed > planned + self.tolerance || difference > self.tolerance.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_nobody_could_be_heard_is_noticed() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let planned = Duration::from_secs(7);
        let mut presence = Presence::new(Duration::from_secs(5));
        assert!(presence.observe(1_000_000, at(0), Duration::ZERO), "before the start");
        assert!(!presence.observe(1_007_000, at(7), planned));
        assert!(!presence.observe(1_018_000, at(18), planned), "a little late is no gap");
        assert!(presence.observe(1_038_000, at(38), planned), "the process was stopped");
        assert!(!presence.observe(1_045_000, at(45), planned));
        assert!(presence.observe(4_645_000, at(52), planned), "the clock was set forward");
        assert!(!presence.observe(4_652_000, at(59), planned));
        assert!(presence.observe(1_000, at(66), planned), "and back");
    }
}
