//! One subscription as a reader follows it: opened again when it was interrupted, and now and then; and what a relay has
//! stored beyond the page that it answers with.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use nostr::Timestamp;
use tokio::time::Instant;

use crate::relays::{Delivery, QueuedEvent, Subscription};

/// Waits before a subscription is tried again that the relay ended: the first, and the longest.
pub(super) const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// A reader that was interrupted again within this time waits before it asks once more.
const STEADY: Duration = Duration::from_secs(60);
/// The longest of those waits.
const INTERRUPTED: Duration = Duration::from_secs(10);
/// A subscription is opened again after this without a cause: a relay that had too many events for us at a time has left
/// some out, and tells nobody. What is known already costs a look at its id.
pub(super) const LOOK_BEHIND: Duration = Duration::from_secs(300);
/// So many events between two looks at the clock are a burst: it is looked behind soon after.
const BURST: usize = 512;
/// The shortest time between two looks behind, and how long after a burst one is due.
const AFTER_BURST: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(2)];
/// A stored answer of fewer events was not cut off by the relay's limit.
const PAGE: usize = 100;

/// What comes next of a subscription.
#[derive(Debug)]
pub(super) enum Next {
    Event(Box<QueuedEvent>),
    /// It is time to subscribe again, for all that may have been missed.
    Subscribe,
    /// It is time to subscribe again, for what was left out since it was asked for last, so long ago.
    LookBehind(Duration),
    /// The relay answered with a page of what it has stored; there may be more until this time.
    Older(Timestamp),
    /// It has given all that it has stored.
    CaughtUp,
}

/// A subscription, and how it has gone since it was opened.
pub(super) struct Reading {
    pub(super) subscription: Subscription,
    waits: ExponentialBackoff,
    again: Instant,
    /// When it was interrupted last, and the waits since it was steady.
    interrupted: Option<Instant>,
    interruptions: ExponentialBackoff,
    opened: Instant,
    page: Page,
    burst: usize,
}

/// Stored events as they come; `None`: the relay has told their end.
#[derive(Debug, Clone, Copy)]
struct Page(Option<(usize, Timestamp)>);

impl Page {
    const START: Self = Self(Some((0, Timestamp::from_secs(u64::MAX))));

    fn add(&mut self, at: Timestamp) {
        if let Some((events, oldest)) = &mut self.0 {
            *events += 1;
            *oldest = (*oldest).min(at);
        }
    }

    /// Until when there may be more; `None`: it was not full.
    fn end(&mut self) -> Option<Timestamp> {
        self.0.take().filter(|(events, _)| *events >= PAGE).map(|(_, oldest)| oldest)
    }
}

impl Reading {
    pub(super) fn new(subscription: Subscription) -> Self {
        let (waits, interruptions, now) = (waits(AGAIN[1]), waits(INTERRUPTED), Instant::now());
        let again = look_behind();
        Self { subscription, waits, again, interrupted: None, interruptions, opened: now, page: Page::START, burst: 0 }
    }

    /// Asks for something else from now on, or for the same again.
    pub(super) async fn replace(&mut self, filters: Vec<nostr::Filter>) {
        (self.opened, self.page, self.burst, self.again) = (Instant::now(), Page::START, 0, look_behind());
        self.subscription.replace(filters).await;
    }

    /// # Errors
    /// The connection has ended.
    pub(super) async fn next(&mut self, url: &str) -> anyhow::Result<Next> {
        loop {
            tokio::select! {
                delivery = self.subscription.next() => match delivery {
                    Some(Delivery::Event(event)) => {
                        self.waits = waits(AGAIN[1]);
                        self.page.add(event.event.created_at);
                        self.count();
                        return Ok(Next::Event(event));
                    }
                    Some(Delivery::EndOfStored) => return Ok(self.page.end().map_or(Next::CaughtUp, Next::Older)),
                    // What was missed is still at the relay. One that gives more than can be read is not asked at once again.
                    Some(Delivery::Interrupted) => {
                        let steady = self.interrupted.replace(Instant::now()).is_none_or(|at| at.elapsed() > STEADY);
                        if steady {
                            self.interruptions = waits(INTERRUPTED);
                            return Ok(Next::Subscribe);
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
                    return Ok(Next::LookBehind(self.opened.elapsed()));
                }
            }
        }
    }

    /// Many at a time may be more than the relay's own queue holds.
    fn count(&mut self) {
        self.burst += 1;
        if self.burst == BURST {
            let [rest, after] = AFTER_BURST;
            self.again = self.again.min((self.opened + rest).max(Instant::now() + after));
        }
    }
}

/// All readers at once would be a burst.
fn look_behind() -> Instant {
    Instant::now() + LOOK_BEHIND.mul_f64(0.75 + fastrand::f64() / 2.0)
}

pub(super) fn waits(longest: Duration) -> ExponentialBackoff {
    let waits = ExponentialBuilder::default().with_min_delay(AGAIN[0]).with_max_delay(longest).with_jitter();
    waits.without_max_times().build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use nostr::{Filter, Keys};

    use super::*;
    use crate::relays::{QueueRoom, Relays};

    #[tokio::test(start_paused = true)]
    async fn what_a_silent_relay_left_out_is_asked_for_again() {
        let config = config::Relays { allow_private: true, ..config::Relays::default() };
        let relay = Relays::new(&Keys::generate(), &config).lease("ws://127.0.0.1:1").unwrap();
        let mut reading = Reading::new(relay.subscribe("jobs", vec![Filter::new()], QueueRoom::of(1)).await);
        for _ in 0..3 {
            let next = tokio::time::timeout(2 * LOOK_BEHIND, reading.next("")).await;
            assert!(matches!(next.unwrap().unwrap(), Next::LookBehind(_)), "it is time to subscribe again");
        }
    }

    #[test]
    fn a_full_page_of_stored_events_has_more_before_its_oldest() {
        for (events, more) in [(0, None), (PAGE - 1, None), (PAGE, Some(7)), (PAGE + 1, Some(7))] {
            let mut page = Page::START;
            (0..events).for_each(|event| page.add(Timestamp::from_secs(7 + event as u64 % 5)));
            assert_eq!(page.end(), more.map(Timestamp::from_secs), "{events}");
            page.add(Timestamp::from_secs(1));
            assert_eq!(page.end(), None, "what comes afterwards is no page");
        }
    }
}
