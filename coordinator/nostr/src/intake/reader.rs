//! Reads one relay: subscribes, catches up, hands on.

use std::{sync::Arc, time::Duration};

use nostr::{Filter, Kind, RelayMessage, SubscriptionId};
use nostr_sdk::{
    SubscribeOptions,
    pool::{Relay, RelayNotification},
};
use tokio::{sync::broadcast::error::RecvError, time::Instant};

use super::{Arrival, Desk, Follow, Inner, jobs};

/// How far before the newest event of a relay is read again (s): events of different authors come out of order.
const MARGIN: u64 = 3600;
/// Ids that one subscription follows at most.
pub(super) const FOLLOWED: usize = 256;
/// The subscription of runs by their ids.
const RUNS: &str = "runs";
/// A subscription that was not taken, or that the relay closed, is tried again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// Hands on what one relay gives, until intake ends. The SDK renews subscriptions when it reconnects.
pub(super) async fn read<D: Desk>(inner: Arc<Inner<D>>, url: String) {
    let relay = match inner.relays.open(&url).await {
        Ok(relay) => relay,
        Err(error) => return tracing::error!(relay = url, "not heard: {error:#}; correct relays.read"),
    };
    let mut notifications = relay.notifications();
    let mut follow = inner.follow.subscribe();
    let mut subscribed = subscribe(&inner, &relay, &url).await;
    let mut again = Instant::now();
    loop {
        tokio::select! {
            note = notifications.recv() => match note {
                Ok(RelayNotification::Message { message: RelayMessage::Event { event, .. } }) => {
                    let arrival = Arrival { relay: url.clone(), event: event.into_owned() };
                    if inner.events.send(arrival).await.is_err() {
                        return;
                    }
                }
                // Some relays end a subscription of ids that way once they gave them all.
                Ok(RelayNotification::Message { message: RelayMessage::Closed { message, subscription_id } })
                    if subscription_id.as_str() == RUNS && message.is_empty() => {}
                Ok(RelayNotification::Message { message: RelayMessage::Closed { message, .. } }) => {
                    tracing::warn!(relay = url, %message, "the relay closed a subscription");
                    (subscribed, again) = (false, Instant::now() + AGAIN);
                }
                // What was missed is still at the relay.
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(relay = url, missed, "the relay gives faster than we take, reading again");
                    subscribed = subscribe(&inner, &relay, &url).await;
                }
                Ok(RelayNotification::Shutdown) | Err(RecvError::Closed) => return,
                Ok(_) => {}
            },
            _ = follow.changed(), if subscribed => {
                let wanted = follow.borrow_and_update().clone();
                subscribed = follow_ids(&relay, &wanted).await;
            }
            () = connected(&relay, again), if !subscribed => {
                subscribed = subscribe(&inner, &relay, &url).await;
                again = Instant::now() + AGAIN;
            }
        }
    }
}

async fn connected(relay: &Relay, not_before: Instant) {
    tokio::time::sleep_until(not_before).await;
    relay.wait_for_connection(Duration::MAX).await;
}

/// Asks for jobs since the last one seen, for the policy's list, and for what is followed now.
async fn subscribe<D: Desk>(inner: &Inner<D>, relay: &Relay, url: &str) -> bool {
    let now = (inner.clock)() / 1000;
    let seen = match inner.store.cursor(url).await {
        Ok(seen) => seen.unwrap_or(now),
        Err(error) => {
            tracing::error!(relay = url, "where reading stopped can't be told: {error}");
            return false;
        }
    };
    let oldest = now.saturating_sub(inner.config.limits.age);
    let since = seen.saturating_sub(MARGIN).max(oldest);
    let mut filters = vec![jobs(inner.keys.public_key(), since)];
    filters.extend(inner.policy.filter());
    let wanted = inner.follow.borrow().clone();
    ask(relay, "jobs", filters).await && follow_ids(relay, &wanted).await
}

async fn follow_ids(relay: &Relay, wanted: &Follow) -> bool {
    let mut asked = true;
    if !wanted.runs.is_empty() {
        let runs = Filter::new().ids(wanted.runs.iter().take(FOLLOWED).copied());
        asked &= ask(relay, RUNS, vec![runs]).await;
    }
    if !wanted.jobs.is_empty() {
        let cancels = Filter::new().kind(Kind::EventDeletion).events(wanted.jobs.iter().copied());
        asked &= ask(relay, "cancels", vec![cancels]).await;
    }
    asked
}

async fn ask(relay: &Relay, id: &str, filters: Vec<Filter>) -> bool {
    let asked = relay.subscribe_with_id(SubscriptionId::new(id), filters, SubscribeOptions::default()).await;
    asked.inspect_err(|error| tracing::debug!(relay = %relay.url(), %error, "not subscribed yet")).is_ok()
}
