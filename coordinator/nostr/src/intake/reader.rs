//! Reads one relay: subscribes, catches up, hands on.

use std::sync::Arc;

use nostr::{EventId, Filter, Kind, Timestamp};
use tokio::task::JoinSet;

use super::{
    Inner, RequestHandler,
    reading::{AGAIN, Next, Reading, waits},
};
use crate::relays::QueueRoom;

/// How far before the newest event of a relay is read again (s): events of different authors come out of order.
const MARGIN: u64 = 3600;
/// How far before the time that it looks behind a reader looks (s): clocks of authors differ.
const BEHIND: u64 = 300;
/// Ids that one subscription follows at most.
pub(super) const FOLLOWED: usize = 400;
/// Values of one set in a filter; relays refuse very long ones.
const VALUES: usize = 100;
/// Events of a relay that wait to be handed on, and their bytes; what comes beyond is read again later.
const QUEUE: usize = 1024;
const QUEUE_BYTES: usize = 4 << 20;

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
    let mut filters = wanted(&inner, begin(&inner, &url).await);
    let mut requests = Reading::new(relay.subscribe("jobs", filters.clone(), room).await);
    let (mut stored, mut before): (Option<Reading>, _) = (None, Timestamp::from_secs(u64::MAX));
    let mut deletions: Option<Reading> = None;
    loop {
        tokio::select! {
            next = requests.next(&url) => match next? {
                Next::Event(event) => {
                    if inner.arrived(&url, event).await.is_err() {
                        return Ok(());
                    }
                }
                Next::CaughtUp => inner.caught_up(&url),
                Next::Older(oldest) => {
                    before = Timestamp::from_secs(u64::MAX);
                    let filters = older(&filters, &mut before, oldest);
                    stored = Some(Reading::new(relay.subscribe("stored", filters, room).await));
                }
                Next::Subscribe => {
                    stored = None;
                    filters = wanted(&inner, begin(&inner, &url).await);
                    requests.replace(filters.clone()).await;
                }
                Next::LookBehind(_) if stored.is_some() => {}
                Next::LookBehind(ago) => {
                    let since = ((inner.clock)() / 1000).saturating_sub(ago.as_secs() + BEHIND);
                    filters = wanted(&inner, since.max(oldest(&inner)));
                    requests.replace(filters.clone()).await;
                }
            },
            next = next(&mut stored, &url) => match next? {
                Next::Event(event) => {
                    if inner.arrived(&url, event).await.is_err() {
                        return Ok(());
                    }
                }
                Next::Older(oldest) => {
                    let filters = older(&filters, &mut before, oldest);
                    if let Some(stored) = &mut stored {
                        stored.replace(filters).await;
                    }
                }
                Next::CaughtUp => {
                    stored = None;
                    inner.caught_up(&url);
                }
                // The page may be incomplete: it is read again.
                Next::Subscribe | Next::LookBehind(_) => {
                    let filters: Vec<Filter> = filters.iter().map(|filter| filter.clone().until(before)).collect();
                    if let Some(stored) = &mut stored {
                        stored.replace(filters).await;
                    }
                }
            },
            next = next(&mut deletions, &url) => match next? {
                Next::Event(event) => {
                    if inner.arrived(&url, event).await.is_err() {
                        return Ok(());
                    }
                }
                Next::CaughtUp | Next::Older(_) => {}
                Next::Subscribe | Next::LookBehind(_) => {
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
                    None => deletions = Some(Reading::new(relay.subscribe("deletions", filters, room).await)),
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

/// What is stored before a page's oldest event; a page of one moment is passed over as a whole.
fn older(filters: &[Filter], before: &mut Timestamp, oldest: Timestamp) -> Vec<Filter> {
    let until = if oldest < *before { oldest } else { Timestamp::from_secs(before.as_secs().saturating_sub(1)) };
    *before = until;
    filters.iter().map(|filter| filter.clone().until(until)).collect()
}

/// From when on (s) a relay is read that was not heard for a while. Until it is caught up, what comes does not move that
/// forward: its newest events come first.
async fn begin<D: RequestHandler>(inner: &Inner<D>, url: &str) -> u64 {
    let since = match inner.store.cursor(url).await {
        Ok(seen) => seen.unwrap_or((inner.clock)() / 1000).saturating_sub(MARGIN).max(oldest(inner)),
        Err(error) => {
            tracing::error!(relay = url, "where reading stopped can't be read, all is read again: {error}");
            oldest(inner)
        }
    };
    inner.memory().catching_up.insert(url.to_owned(), since);
    since
}

/// Requests that are older (s) are refused for their age.
fn oldest<D: RequestHandler>(inner: &Inner<D>) -> u64 {
    ((inner.clock)() / 1000).saturating_sub(inner.config.limits.age)
}

/// Requests since a time (s), and the policy's list.
fn wanted<D: RequestHandler>(inner: &Inner<D>, since: u64) -> Vec<Filter> {
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
    use super::*;

    #[test]
    fn pages_go_back_in_time_even_where_a_whole_page_is_of_one_moment() {
        let mut before = Timestamp::from_secs(100);
        for (oldest, until) in [(90, 90), (90, 89), (89, 88), (70, 70)] {
            let filters = older(&[Filter::new()], &mut before, Timestamp::from_secs(oldest));
            assert_eq!(filters, [Filter::new().until(Timestamp::from_secs(until))]);
        }
    }
}
