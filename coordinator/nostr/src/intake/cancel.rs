//! Requests to end a run, which may come before the run is there.

use nostr::{Event, EventId, PublicKey};

use super::{CancelRequest, Inner, RequestHandler, recent::Recent, shares::Share};
use crate::{policy::AuthorStanding, protocol::Ignored, tags};

/// Requests that one event can cancel.
const CANCELLED: usize = 32;
/// Cancels of what is not there yet: of authors that are known, and of all others together.
const EARLY: [usize; 2] = [1024, 128];

/// Why a request is refused that its author cancelled before it was taken in.
pub(super) const BEFORE: &str = "cancelled by its author before it began";

/// Cancels that came before their requests were taken in: relays give events in any order.
#[derive(Debug)]
pub(super) struct EarlyCancels {
    known: Recent<(EventId, PublicKey)>,
    others: Recent<(EventId, PublicKey)>,
}

impl Default for EarlyCancels {
    fn default() -> Self {
        let [known, others] = EARLY;
        Self { known: Recent::new(known), others: Recent::new(others) }
    }
}

impl EarlyCancels {
    /// Whether its author cancelled a request.
    pub(super) fn contains(&self, request: &Event) -> bool {
        let cancel = (request.id, request.pubkey);
        self.known.contains(&cancel) || self.others.contains(&cancel)
    }

    fn insert(&mut self, request: EventId, by: PublicKey, share: Share) {
        match share {
            Share::Known => self.known.insert((request, by)),
            Share::Others => self.others.insert((request, by)),
        }
    }
}

impl<D: RequestHandler> Inner<D> {
    /// A deletion of requests (NIP-09).
    pub(super) async fn deletion(&self, event: &Event) -> anyhow::Result<()> {
        let requests = tags::events(event).take(CANCELLED).collect();
        self.cancel(event, requests, CancelRequest::Deletion(event.pubkey)).await
    }

    /// Ends what its author, or whoever else may, wants to be ended.
    pub(super) async fn cancel(
        &self,
        event: &Event,
        requests: Vec<EventId>,
        cancel: CancelRequest,
    ) -> anyhow::Result<()> {
        if requests.is_empty() {
            return Ok(());
        }
        let standing = self.policy.standing(&event.pubkey);
        let over_rate = self.cancels_rate.check_key(&event.pubkey).is_err()
            || standing != AuthorStanding::Known && self.cancels_of_others.check().is_err();
        if over_rate {
            self.count(event, Ignored::OverRate);
            return Ok(());
        }
        for id in requests.into_iter().take(CANCELLED) {
            let pending = self.memory().pending.get(&id).cloned();
            match pending {
                Some(request) if request.author == event.pubkey => {
                    self.give_up(id, request, "cancelled by its author before its run was found".into()).await?;
                }
                Some(_) => {}
                None => {
                    // Noted first: the run may be stored while we look for it.
                    self.memory().early_cancels.insert(id, event.pubkey, Share::of(standing));
                    self.handler.cancel(id, cancel).await?;
                }
            }
        }
        Ok(())
    }

    /// Ends the run of a request that was cancelled while it was taken in.
    pub(super) async fn cancel_early(&self, request: &Event) -> anyhow::Result<()> {
        if self.memory().early_cancels.contains(request) {
            self.handler.cancel(request.id, CancelRequest::Cancel(request.pubkey)).await?;
        }
        Ok(())
    }
}
