//! Looks for the partners of requests that are not whole by themselves, and gives up those whose partner does not come.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use indexmap::IndexSet;
use nostr::{Event, EventId, Filter, JsonUtil};

use domain::run::Millis;

use super::{AGAIN, Inner, RequestHandler, pending::PendingRequest, settled, shares::Share};
use crate::{
    delivery::Audience,
    protocol::{Ignored, Refusal},
    relays::{RelayLease, Urgency, event_memory, normal},
};

/// A partner that did not come is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How long a look for a partner holds up its request at first.
const AT_ONCE_LOOK_UP: Duration = Duration::from_millis(300);
/// Requests given up at a time.
const GIVEN_UP: usize = 64;

impl<D: RequestHandler> Inner<D> {
    /// A partner that one of our read relays has already, as clients send it before its request.
    pub(super) async fn find(&self, id: EventId) -> Option<Event> {
        let urls = self.config.relays.read.iter().filter_map(|url| normal(url));
        let relays: Vec<RelayLease> = urls.filter_map(|url| self.relays.lease(&url).ok()).collect();
        let looks = relays.iter().map(|relay| relay.fetch(Filter::new().id(id), AT_ONCE_LOOK_UP));
        let looks: FuturesUnordered<_> = looks.collect();
        let mut found =
            looks.filter_map(|found| std::future::ready(found.ok().and_then(|mut found| found.pop()))).boxed();
        found.next().await
    }

    /// Refuses a request that waits.
    pub(super) async fn give_up(&self, id: EventId, request: PendingRequest, reason: String) -> anyhow::Result<()> {
        let audience = match request.share {
            Share::Known => Audience::Everywhere,
            Share::Others => Audience::OwnRelays,
        };
        let answered = if request.share == Share::Known || self.policy.answers_stranger() {
            let refusal = Refusal::of_origin(request.origin, reason);
            self.handler.refuse(refusal, audience, self.settle(id)).await
        } else {
            self.counted.add(Ignored::Stranger);
            self.store.commit(self.settle(id)).await.map_err(Into::into)
        };
        settled(answered)?;
        self.memory().pending.remove(&id);
        Ok(())
    }

    /// Remembers a request that waits, and asks our read relays for its partner, and those that it names where its author
    /// may have them asked.
    pub(super) fn wait_for(self: &Arc<Self>, request: &Event, partner: EventId, until: Millis) {
        let Some(protocol) = self.protocols.by_kind(request.kind) else { return };
        let share = Share::of(self.policy.standing(&request.pubkey));
        let limits = share.limits(self.policy.is_open());
        let origin = protocol.origin(request);
        let read: IndexSet<String> = self.config.relays.read.iter().filter_map(|url| normal(url)).collect();
        let named = origin.relays.iter().filter_map(|url| self.relays.usable(url)).filter(|url| !read.contains(url));
        let named: IndexSet<String> = named.take(limits.relays_of_others).collect();
        let missing = protocol.partner_missing(partner, limits.wait(self.config.queue.pair).as_secs().div_ceil(60));
        let bytes = event_memory(&request.as_json());
        let pending = PendingRequest { author: request.pubkey, share, bytes, origin, missing, until };
        self.memory().pending.insert(request.id, pending);
        self.waits.notify_one();
        let (inner, id, left) = (self.clone(), request.id, until.saturating_sub((self.clock)()));
        tokio::spawn(async move {
            let looked = inner.look_for(read, named, id, partner, share);
            if let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(left), looked).await {
                let json = event.as_json();
                if json.len() > inner.config.limits.event_bytes.saturating_mul(2) {
                    return;
                }
                // Another request may have had it as its partner before.
                inner.memory().known.remove(&event.id);
                // Ended only when intake itself ended.
                inner.queues.add("", event, event_memory(&json), share).await.ok();
            }
        });
    }

    /// The partner of a request that waits, once one of these relays has it; `None`: the request waits no longer.
    async fn look_for(
        &self,
        read: IndexSet<String>,
        named: IndexSet<String>,
        request: EventId,
        partner: EventId,
        share: Share,
    ) -> Option<Event> {
        // Of others only so many are dialled for: they must not keep relays from those that are known.
        let turn = match share {
            Share::Known => None,
            Share::Others => self.asked_elsewhere.clone().try_acquire_owned().ok(),
        };
        let asks_named = share == Share::Known || turn.is_some();
        let urls = read.iter().chain(named.iter().filter(|_| asks_named));
        let relays: Vec<RelayLease> = urls.filter_map(|url| self.relays.lease_spare(url).ok()).collect();
        let urgency: Urgency = share.urgency();
        while self.memory().pending.contains(&request) {
            let looks = relays.iter().map(|relay| relay.watch(partner, urgency));
            let looks: FuturesUnordered<_> = looks.collect();
            let found = looks.filter_map(std::future::ready).boxed();
            // Asked again from time to time: a relay may have forgotten the subscription.
            if let Ok((Some(found), _)) = tokio::time::timeout(ASK_AGAIN, found.into_future()).await {
                return Some(found);
            }
        }
        None
    }

    /// How long until the first waiting request is given up.
    pub(super) fn next_expiry(&self) -> Duration {
        let first = self.memory().pending.next_deadline();
        let left = first.map_or(3_600_000, |until| until.saturating_sub((self.clock)()));
        Duration::from_millis(left.clamp(10, 3_600_000))
    }

    pub(super) async fn expire(&self) {
        let now = (self.clock)();
        let over = self.memory().pending.expired(now, GIVEN_UP);
        for (id, request) in over {
            let reason = request.missing.clone();
            let over_rate = request.share == Share::Known && self.refusals_rate.check().is_err();
            let given_up = match over_rate {
                false => self.give_up(id, request, reason).await,
                true => Err(anyhow::anyhow!("too many refusals at a time")),
            };
            if let Err(error) = given_up {
                tracing::warn!(request = %id, "not given up yet: {error:#}");
                self.memory().pending.postpone(&id, now + AGAIN.as_secs() * 1000);
            }
        }
    }
}
