//! Looks for the partners of requests that are not whole by themselves, and gives up those whose partner does not come.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use indexmap::IndexSet;
use nostr::{Event, EventId, Filter};

use domain::run::Millis;

use super::{AGAIN, Arrival, Inner, RequestHandler, pending::PendingRequest, settled};
use crate::{
    delivery::Audience,
    protocol::Refusal,
    relays::{RelayLease, normal},
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

    pub(super) async fn give_up(&self, id: EventId, request: PendingRequest, reason: String) -> anyhow::Result<()> {
        let refusal = Refusal::of_origin(request.origin, reason);
        settled(self.handler.refuse(refusal, Audience::Everywhere, self.settle(id)).await)?;
        self.memory().pending.remove(&id);
        Ok(())
    }

    /// Remembers a request that waits, and asks our read relays and those it names for its partner.
    pub(super) fn wait_for(self: &Arc<Self>, request: &Event, partner: EventId, until: Millis) {
        let Some(protocol) = self.protocols.by_kind(request.kind) else { return };
        let origin = protocol.origin(request);
        let read = self.config.relays.read.iter().filter_map(|url| normal(url));
        let asked: IndexSet<String> = read.chain(origin.relays.iter().filter_map(|url| normal(url))).collect();
        let missing = protocol.partner_missing(partner, self.config.queue.pair.div_ceil(60));
        let pending = PendingRequest { author: request.pubkey, origin, missing, until };
        self.memory().pending.insert(request.id, pending);
        let (inner, id, left) = (self.clone(), request.id, until.saturating_sub((self.clock)()));
        tokio::spawn(async move {
            let looked = inner.look_for(asked, id, partner);
            // Closed only when intake itself ended.
            if let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(left), looked).await {
                // Another request may have had it as its partner before.
                inner.memory().known.remove(&event.id);
                inner.events.send(Arrival { relay: String::new(), event }).await.ok();
            }
        });
    }

    /// The partner of a request that waits, once one of these relays has it; `None`: the request waits no longer.
    async fn look_for(&self, urls: IndexSet<String>, request: EventId, partner: EventId) -> Option<Event> {
        let relays: Vec<RelayLease> = urls.iter().filter_map(|url| self.relays.lease(url).ok()).collect();
        while self.memory().pending.contains(&request) {
            let looks = relays.iter().map(|relay| relay.watch(partner));
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
            let given_up = match self.refusals_rate.check() {
                Ok(()) => self.give_up(id, request, reason).await,
                Err(_) => Err(anyhow::anyhow!("too many refusals at a time")),
            };
            if let Err(error) = given_up {
                tracing::warn!(request = %id, "not given up yet: {error:#}");
                self.memory().pending.postpone(&id, now + AGAIN.as_secs() * 1000);
            }
        }
    }
}
