//! Reads one relay: subscribes, catches up, hands on.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use nostr::{EventId, Filter, Kind, Timestamp};
use tokio::{task::JoinSet, time::Instant};

use super::{Inner, RequestHandler};
use crate::relays::{Delivery, QueueRoom, QueuedEvent, Subscription};

/// How far before the newest event of a relay is read again (s): events of different authors come out of order.
const MARGIN: u64 = 3600;
/// Ids that one subscription follows at most.
pub(super) const FOLLOWED: usize = 400;
/// Values of one set in a filter; relays refuse very long ones.
const VALUES: usize = 100;
/// Events of a relay that wait to be handed on, and their bytes; what comes beyond is read again later.
const QUEUE: usize = 1024;
const QUEUE_BYTES: usize = 4 << 20;
/// Waits before a subscription is tried again that the relay ended: the first, and the longest.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// A reader that was interrupted again within this time waits before it asks once more.
const STEADY: Duration = Duration::from_secs(60);
/// The longest of those waits.
const INTERRUPTED: Duration = Duration::from_secs(10);
/// A subscription is opened again after this without a cause: a relay that had too many events for us at a time has left
/// some out, and tells nobody. What is known already costs a look at its id.
const LOOK_BEHIND: Duration = Duration::from_secs(300);

/// Hands on what one relay gives until intake ends. A reader that fails is started again.
pub(super) async fn keep_reading<D: RequestHandler>(inner: Arc<Inner<D>>, url: String) {
    let mut waits = waits(AGAIN[1]);
    loop {
        // Ends with this task, which intake ends.
        let mut reader = JoinSet::new();
        reader.spawn(read(inner.clone(), url.clone()));
        let wait = waits.next().unwrap_or(AGAIN[1]);
        match reader.join_next().await {
            Some(Ok(Ok(()))) | None => return,
            Some(Ok(Err(error))) => {
                tracing::error!(relay = url, ?wait, "the relay is read again after a failure: {error:#}")
            }
            Some(Err(error)) => tracing::error!(relay = url, ?wait, "the relay is read again after a failure: {error}"),
        }
        tokio::time::sleep(wait).await;
    }
}

/// Reads until the intake ends, which is success.
async fn read<D: RequestHandler>(inner: Arc<Inner<D>>, url: String) -> anyhow::Result<()> {
    let relay = inner.relays.lease(&url)?;
    let mut follow = inner.follow.subscribe();
    // A request that is too long is refused with a reason, as long as it can be held.
    let largest = inner.config.limits.event_bytes.saturating_mul(3).min(QUEUE_BYTES);
    let room = QueueRoom { events: QUEUE, bytes: QUEUE_BYTES, largest };
    let mut requests = Reading::new(relay.subscribe("jobs", wanted(&inner, &url).await, room).await);
    let mut deletions: Option<Reading> = None;
    loop {
        tokio::select! {
            event = requests.next(&url) => match event? {
                Some(event) => {
                    if inner.arrived(&url, event).await.is_err() {
                        return Ok(());
                    }
                }
                None => requests.subscription.replace(wanted(&inner, &url).await).await,
            },
            event = next(&mut deletions, &url) => match event? {
                Some(event) => {
                    if inner.arrived(&url, event).await.is_err() {
                        return Ok(());
                    }
                }
                None => {
                    let filters = deletions_of(&follow.borrow_and_update());
                    if let Some(deletions) = &deletions {
                        deletions.subscription.replace(filters).await;
                    }
                }
            },
            changed = follow.changed() => {
                changed?;
                let filters = deletions_of(&follow.borrow_and_update());
                match &deletions {
                    _ if filters.is_empty() => deletions = None,
                    Some(deletions) => deletions.subscription.replace(filters).await,
                    None => deletions = Some(Reading::new(relay.subscribe("deletions", filters, room).await)),
                }
            }
        }
    }
}

/// A subscription that is opened again whenever it was interrupted, and now and then.
struct Reading {
    subscription: Subscription,
    waits: ExponentialBackoff,
    again: Instant,
    /// When it was interrupted last, and the waits since it was steady.
    interrupted: Option<Instant>,
    interruptions: ExponentialBackoff,
}

impl Reading {
    fn new(subscription: Subscription) -> Self {
        let (waits, interruptions) = (waits(AGAIN[1]), waits(INTERRUPTED));
        Self { subscription, waits, again: look_behind(), interrupted: None, interruptions }
    }

    /// The next event; `None`: it is time to subscribe again.
    async fn next(&mut self, url: &str) -> anyhow::Result<Option<Box<QueuedEvent>>> {
        loop {
            tokio::select! {
                delivery = self.subscription.next() => match delivery {
                    Some(Delivery::Event(event)) => {
                        self.waits = waits(AGAIN[1]);
                        return Ok(Some(event));
                    }
                    // What was missed is still at the relay. One that gives more than can be read is not asked at once again.
                    Some(Delivery::Interrupted) => {
                        let steady = self.interrupted.replace(Instant::now()).is_none_or(|at| at.elapsed() > STEADY);
                        if steady {
                            self.interruptions = waits(INTERRUPTED);
                            return Ok(None);
                        }
                        let wait = self.interruptions.next().unwrap_or(INTERRUPTED);
                        self.again = self.again.min(Instant::now() + wait);
                    }
                    Some(Delivery::Closed(reason)) => {
                        if !reason.is_empty() {
                            tracing::warn!(relay = url, reason, "the relay ended a subscription, it is opened again");
                        }
                        self.again = Instant::now() + self.waits.next().unwrap_or(AGAIN[1]);
                    }
                    None => anyhow::bail!("the connection has ended"),
                },
                () = tokio::time::sleep_until(self.again) => {
                    self.again = look_behind();
                    return Ok(None);
                }
            }
        }
    }
}

async fn next(reading: &mut Option<Reading>, url: &str) -> anyhow::Result<Option<Box<QueuedEvent>>> {
    match reading {
        Some(reading) => reading.next(url).await,
        None => std::future::pending().await,
    }
}

/// All readers at once would be a burst.
fn look_behind() -> Instant {
    Instant::now() + LOOK_BEHIND.mul_f64(0.75 + fastrand::f64() / 2.0)
}

fn waits(longest: Duration) -> ExponentialBackoff {
    let waits = ExponentialBuilder::default().with_min_delay(AGAIN[0]).with_max_delay(longest).with_jitter();
    waits.without_max_times().build()
}

/// Requests since the last one seen, and the policy's list.
async fn wanted<D: RequestHandler>(inner: &Inner<D>, url: &str) -> Vec<Filter> {
    let now = (inner.clock)() / 1000;
    let oldest = now.saturating_sub(inner.config.limits.age);
    let since = match inner.store.cursor(url).await {
        Ok(seen) => seen.unwrap_or(now).saturating_sub(MARGIN).max(oldest),
        Err(error) => {
            tracing::error!(relay = url, "where reading stopped can't be read, all is read again: {error}");
            oldest
        }
    };
    let (us, since) = (inner.keys.public_key(), Timestamp::from(since));
    let mut filters: Vec<Filter> = inner.protocols.iter().flat_map(|protocol| protocol.filters(&us, since)).collect();
    filters.extend(inner.policy.filter());
    filters
}

/// Deletions of requests whose runs have not ended (NIP-09).
fn deletions_of(requests: &[EventId]) -> Vec<Filter> {
    requests.chunks(VALUES).map(|some| Filter::new().kind(Kind::EventDeletion).events(some.iter().copied())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use nostr::Keys;

    use super::*;
    use crate::relays::Relays;

    #[tokio::test(start_paused = true)]
    async fn what_a_silent_relay_left_out_is_asked_for_again() {
        let config = config::Relays { allow_private: true, ..config::Relays::default() };
        let relay = Relays::new(&Keys::generate(), &config).lease("ws://127.0.0.1:1").unwrap();
        let mut reading = Reading::new(relay.subscribe("jobs", vec![Filter::new()], QueueRoom::of(QUEUE)).await);
        for _ in 0..3 {
            let next = tokio::time::timeout(2 * LOOK_BEHIND, reading.next("")).await;
            assert!(next.unwrap().unwrap().is_none(), "it is time to subscribe again");
        }
    }
}
