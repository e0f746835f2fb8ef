//! One subscription as a reader follows it: opened again when it was interrupted, and now and then; and what a relay has
//! stored beyond the page that it answers with.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use nostr::{Event, Filter, Timestamp, filter::MatchEventOptions};
use tokio::time::Instant;

use crate::relays::{Delivery, QueuedEvent, Subscription};

/// Waits before a subscription is tried again that the relay ended: the first, and the longest.
pub(crate) const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// A reader that was interrupted again within this time waits before it asks once more.
const STEADY: Duration = Duration::from_secs(60);
/// The longest of those waits.
const INTERRUPTED: Duration = Duration::from_secs(10);
/// A subscription is opened again after this without a cause: a relay that had too many events for us at a time has left
/// some out, and tells nobody. What is known already costs a look at its id.
pub(crate) const LOOK_BEHIND: Duration = Duration::from_secs(300);
/// So many events between two looks at the clock are a burst: it is looked behind soon after.
const BURST: usize = 512;
/// The shortest time between two looks behind, and how long after a burst one is due.
const AFTER_BURST: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(2)];
/// A stored answer of fewer events was not cut off by the relay's limit.
const PAGE: usize = 100;

/// What comes next of a subscription.
#[derive(Debug)]
pub(crate) enum Next {
    Event(Box<QueuedEvent>),
    /// It is time to subscribe again, for what may have been missed or left out.
    Again,
    /// The relay has answered with what it has stored; with a page of it, if there may be more until this time.
    Stored(Option<Timestamp>),
}

/// A subscription, and how it has gone since it was opened.
pub(crate) struct Reading {
    pub(crate) subscription: Subscription,
    waits: ExponentialBackoff,
    again: Instant,
    /// When it was interrupted last, and the waits since it was steady.
    interrupted: Option<Instant>,
    interruptions: ExponentialBackoff,
    opened: Instant,
    page: Page,
    burst: usize,
}

/// Stored events as they come: of each filter, how many and their oldest. The relay's limit is one of each filter.
#[derive(Debug)]
struct Page(Vec<(Filter, usize, Timestamp)>);

impl Page {
    fn new(filters: &[Filter]) -> Self {
        Self(filters.iter().map(|filter| (filter.clone(), 0, Timestamp::max())).collect())
    }

    fn add(&mut self, event: &Event) {
        for (filter, events, oldest) in &mut self.0 {
            if filter.match_event(event, MatchEventOptions::new()) {
                *events += 1;
                *oldest = (*oldest).min(event.created_at);
            }
        }
    }

    /// Until when there may be more; `None`: no filter's part was full. What comes afterwards is not stored, but new.
    fn end(&mut self) -> Option<Timestamp> {
        let full = std::mem::take(&mut self.0).into_iter().filter(|(_, events, _)| *events >= PAGE);
        full.map(|(.., oldest)| oldest).max()
    }
}

impl Reading {
    /// The subscription is to these filters.
    pub(crate) fn new(subscription: Subscription, filters: &[Filter]) -> Self {
        let (waits, interruptions, opened) = (waits(AGAIN[1]), waits(INTERRUPTED), Instant::now());
        let (again, page) = (look_behind(), Page::new(filters));
        Self { subscription, waits, again, interrupted: None, interruptions, opened, page, burst: 0 }
    }

    /// Asks for something else from now on, or for the same again.
    pub(crate) async fn replace(&mut self, filters: Vec<Filter>) {
        (self.opened, self.page, self.burst, self.again) = (Instant::now(), Page::new(&filters), 0, look_behind());
        self.subscription.replace(filters).await;
    }

    /// # Errors
    /// The connection has ended.
    pub(crate) async fn next(&mut self, url: &str) -> anyhow::Result<Next> {
        loop {
            tokio::select! {
                delivery = self.subscription.next() => match delivery {
                    Some(Delivery::Event(event)) => {
                        self.waits = waits(AGAIN[1]);
                        self.page.add(&event.event);
                        self.count();
                        return Ok(Next::Event(event));
                    }
                    Some(Delivery::EndOfStored) => return Ok(Next::Stored(self.page.end())),
                    // What was missed is still at the relay. One that gives more than can be read is not asked at once again.
                    Some(Delivery::Interrupted) => {
                        let steady = self.interrupted.replace(Instant::now()).is_none_or(|at| at.elapsed() > STEADY);
                        if steady {
                            self.interruptions = waits(INTERRUPTED);
                            return Ok(Next::Again);
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
                    return Ok(Next::Again);
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

pub(crate) fn waits(longest: Duration) -> ExponentialBackoff {
    let waits = ExponentialBuilder::default().with_min_delay(AGAIN[0]).with_max_delay(longest).with_jitter();
    waits.without_max_times().build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use nostr::{EventBuilder, Keys, Kind};

    use super::*;
    use crate::relays::{QueueRoom, Relays};

    #[tokio::test(start_paused = true)]
    async fn what_a_silent_relay_left_out_is_asked_for_again() {
        let config = config::Relays { allow_private: true, ..config::Relays::default() };
        let relay = Relays::new(&Keys::generate(), &config).lease("ws://127.0.0.1:1").unwrap();
        let filters = vec![Filter::new()];
        let subscription = relay.subscribe("jobs", filters.clone(), QueueRoom::of(1)).await;
        let mut reading = Reading::new(subscription, &filters);
        for _ in 0..3 {
            let next = tokio::time::timeout(2 * LOOK_BEHIND, reading.next("")).await;
            assert!(matches!(next.unwrap().unwrap(), Next::Again), "it is time to subscribe again");
        }
    }

    fn event(kind: u16, at: u64) -> Event {
        let event = EventBuilder::new(Kind::from(kind), "").custom_created_at(Timestamp::from_secs(at));
        event.sign_with_keys(&Keys::generate()).unwrap()
    }

    #[test]
    fn a_full_page_of_stored_events_has_more_before_its_oldest() {
        for (events, more) in [(0, None), (PAGE - 1, None), (PAGE, Some(7)), (PAGE + 1, Some(7))] {
            let mut page = Page::new(&[Filter::new()]);
            (0..events).for_each(|number| page.add(&event(1, 7 + number as u64 % 5)));
            assert_eq!(page.end(), more.map(Timestamp::from_secs), "{events}");
            page.add(&event(1, 1));
            assert_eq!(page.end(), None, "what comes afterwards is no page");
        }
    }

    #[test]
    fn an_old_event_of_one_filter_does_not_pass_over_what_another_left_out() {
        let filters = [Filter::new().kind(Kind::from(5100)), Filter::new().kind(Kind::from(30000))];
        let mut page = Page::new(&filters);
        page.add(&event(30000, 1));
        (0..PAGE).for_each(|_| page.add(&event(5100, 90)));
        assert_eq!(page.end(), Some(Timestamp::from_secs(90)));
    }
}
