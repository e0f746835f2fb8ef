//! Reads one relay: subscribes, catches up, hands on.

use std::{sync::Arc, time::Duration};

use nostr::{EventId, Filter, Kind, Timestamp};
use tokio::{task::JoinSet, time::Instant};

use super::{
    Inner, RequestHandler,
    reading::{AGAIN, Next, Reading, waits},
    unread::{PassedOver, Question, Span, Unread},
};
use crate::{protocol::Ignored, relays::QueueRoom};

/// How far before the newest event of a relay is read again (s): events of different authors come out of order.
const MARGIN: u64 = 3600;
/// How far before the time of its last question a reader looks (s): clocks of authors differ.
const BEHIND: u64 = 300;
/// Ids that one subscription follows at most.
pub(super) const FOLLOWED: usize = 400;
/// Values of one set in a filter; relays refuse very long ones.
const VALUES: usize = 100;
/// Events of a relay that wait to be handed on, and their bytes; what comes beyond is read again later.
const QUEUE: usize = 2048;
const QUEUE_BYTES: usize = 8 << 20;
/// Time between two warnings about one relay.
const WARNED: Duration = Duration::from_secs(60);
/// Stored events that a relay is asked for at a time; it may give fewer.
const PAGE_LIMIT: usize = 1000;

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
    let relay = inner.relays.listen(&url)?;
    let mut follow = inner.follow.subscribe();
    // A request that is too long is refused with a reason, as long as it can be held.
    let largest = inner.config.limits.event_bytes.saturating_mul(3).min(QUEUE_BYTES);
    let room = QueueRoom { events: QUEUE, bytes: QUEUE_BYTES, largest };
    let mut coverage = Coverage::new(now(&inner), begin(&inner, &url).await);
    let mut unread = Unread::default();
    let mut warned = None;
    inner.unread(&url, coverage.unknown_since());
    let filters = wanted(&inner, coverage.since);
    let mut requests = Reading::new(relay.subscribe("jobs", filters.clone(), room).await, &filters);
    let (mut stored, mut deletions): (Option<Reading>, Option<Reading>) = (None, None);
    loop {
        tokio::select! {
            next = requests.next(&url) => match next? {
                Next::Event(event) => {
                    if inner.arrived(&url, event).await.is_err() {
                        return Ok(());
                    }
                }
                Next::Stored(more) => {
                    coverage.answered = true;
                    if let Some(until) = more {
                        unread.add(Span { from: coverage.since, until: until.as_secs() });
                    }
                    if stored.is_none() && let Some(question) = unread.question() {
                        let filters = page_of(&inner, &question);
                        stored = Some(Reading::new(relay.subscribe("stored", filters.clone(), room).await, &filters));
                    }
                    inner.unread(&url, unread.since());
                }
                Next::Again => {
                    let since = coverage.unknown_since().unwrap_or(coverage.at.saturating_sub(BEHIND));
                    coverage = Coverage::new(now(&inner), since);
                    inner.unread(&url, unread.since().into_iter().chain(coverage.unknown_since()).min());
                    requests.replace(wanted(&inner, coverage.since.max(oldest(&inner)))).await;
                }
            },
            next = next(&mut stored, &url) => match next? {
                Next::Event(event) => {
                    if inner.arrived(&url, event).await.is_err() {
                        return Ok(());
                    }
                }
                Next::Stored(more) => {
                    let known = || inner.policy.known_authors();
                    if let Some(passed_over) = unread.page_was_read(more.map(|until| until.as_secs()), known) {
                        inner.passed_over(&url, &passed_over, &mut warned);
                    }
                    inner.unread(&url, unread.since().into_iter().chain(coverage.unknown_since()).min());
                    match (unread.question(), &mut stored) {
                        (Some(question), Some(stored)) => stored.replace(page_of(&inner, &question)).await,
                        (_, stored) => *stored = None,
                    }
                }
                // The page may be incomplete: it is read again.
                Next::Again => {
                    if let (Some(question), Some(stored)) = (unread.question(), &mut stored) {
                        stored.replace(page_of(&inner, &question)).await;
                    }
                }
            },
            next = next(&mut deletions, &url) => match next? {
                Next::Event(event) => {
                    if inner.arrived(&url, event).await.is_err() {
                        return Ok(());
                    }
                }
                Next::Stored(_) => {}
                Next::Again => {
                    let filters = deletions_of(&follow.borrow_and_update());
                    if let Some(deletions) = &mut deletions {
                        deletions.replace(filters).await;
                    }
                }
            },
            changed = follow.changed() => {
                changed?;
                let filters = deletions_of(&follow.borrow_and_update());
                match &mut deletions {
                    _ if filters.is_empty() => deletions = None,
                    Some(deletions) => deletions.replace(filters).await,
                    None => {
                        let subscription = relay.subscribe("deletions", filters.clone(), room).await;
                        deletions = Some(Reading::new(subscription, &filters));
                    }
                }
            }
        }
    }
}

async fn next(reading: &mut Option<Reading>, url: &str) -> anyhow::Result<Next> {
    match reading {
        Some(reading) => reading.next(url).await,
        None => std::future::pending().await,
    }
}

/// What the subscription to requests covers, as it was opened last.
struct Coverage {
    /// When (s).
    at: u64,
    /// From when on (s).
    since: u64,
    /// Whether the relay has said what it had stored by then: what is left of it is noted as unread.
    answered: bool,
}

impl Coverage {
    fn new(at: u64, since: u64) -> Self {
        Self { at, since, answered: false }
    }

    fn unknown_since(&self) -> Option<u64> {
        (!self.answered).then_some(self.since)
    }
}

/// From when on (s) a relay is read that was not heard before in this life.
async fn begin<D: RequestHandler>(inner: &Inner<D>, url: &str) -> u64 {
    match inner.store.cursor(url).await {
        Ok(seen) => seen.unwrap_or_else(|| now(inner)).saturating_sub(MARGIN).max(oldest(inner)),
        Err(error) => {
            tracing::error!(relay = url, "where reading stopped can't be read, all is read again: {error}");
            oldest(inner)
        }
    }
}

fn now<D: RequestHandler>(inner: &Inner<D>) -> u64 {
    (inner.clock)() / 1000
}

/// Requests that are older (s) are refused for their age.
fn oldest<D: RequestHandler>(inner: &Inner<D>) -> u64 {
    now(inner).saturating_sub(inner.config.limits.age)
}

/// Requests since a time (s), and the policy's list.
fn wanted<D: RequestHandler>(inner: &Inner<D>, since: u64) -> Vec<Filter> {
    let (us, since) = (inner.keys.public_key(), Timestamp::from(since));
    let mut filters: Vec<Filter> = inner.protocols.iter().flat_map(|protocol| protocol.filters(&us, since)).collect();
    filters.extend(inner.policy.filter());
    filters.into_iter().map(|filter| filter.limit(PAGE_LIMIT)).collect()
}

fn page_of<D: RequestHandler>(inner: &Inner<D>, Question { span, authors }: &Question) -> Vec<Filter> {
    let until = Timestamp::from_secs(span.until);
    let filters = wanted(inner, span.from).into_iter().map(|filter| filter.until(until));
    match authors {
        None => filters.collect(),
        // What has authors of its own, as the policy's list, was read without them.
        Some(authors) => {
            filters.filter(|filter| filter.authors.is_none()).map(|filter| filter.authors(authors.clone())).collect()
        }
    }
}

impl<D: RequestHandler> Inner<D> {
    /// Says that a relay has more events of one second than it gives at a time.
    fn passed_over(&self, relay: &str, PassedOver { second, author }: &PassedOver, warned: &mut Option<Instant>) {
        self.counted.add(Ignored::PassedOver);
        if warned.is_none_or(|at| at.elapsed() > WARNED) {
            *warned = Some(Instant::now());
            let of = author.map_or_else(|| "authors that are not known".to_owned(), |author| author.to_hex());
            tracing::warn!(
                relay,
                second,
                of,
                "a relay has more jobs of one second than it gives at a time: some are passed over"
            );
        }
    }
}

/// Deletions of requests whose runs have not ended (NIP-09).
fn deletions_of(requests: &[EventId]) -> Vec<Filter> {
    requests.chunks(VALUES).map(|some| Filter::new().kind(Kind::EventDeletion).events(some.iter().copied())).collect()
}
