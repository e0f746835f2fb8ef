//! Events that are awaited by their ids, in one subscription of a connection.

use std::{collections::HashMap, time::Duration};

use nostr::{Event, EventId, Filter};
use tokio::{sync::oneshot, time::Instant};

/// Ids in one filter; relays refuse very long ones.
const IDS: usize = 100;
/// Changes within this time make one subscription.
const GATHER: Duration = Duration::from_millis(20);
/// A subscription that the relay ended is opened again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// Who waits for which event.
#[derive(Debug, Default)]
pub(super) struct Watched {
    replies: HashMap<EventId, Vec<oneshot::Sender<Event>>>,
    open: bool,
    /// When the subscription is to follow what is awaited.
    due: Option<Instant>,
}

impl Watched {
    pub(super) fn add(&mut self, id: EventId, reply: oneshot::Sender<Event>) {
        self.replies.entry(id).or_default().push(reply);
        self.due.get_or_insert_with(|| Instant::now() + GATHER);
    }

    /// Whether a subscription of the relay is used.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Filters of the subscription where it is to change; none: it is to be closed.
    pub(super) fn changed(&mut self, at: Instant, filters: usize) -> Option<Vec<Filter>> {
        if self.due.is_none_or(|due| due > at) {
            return None;
        }
        self.due = None;
        let ids: Vec<EventId> = self.replies.keys().copied().collect();
        let was_open = std::mem::replace(&mut self.open, !ids.is_empty());
        if !self.open && !was_open {
            return None;
        }
        Some(ids.chunks(IDS).take(filters).map(|ids| Filter::new().ids(ids.iter().copied())).collect())
    }

    pub(super) fn event(&mut self, event: &Event) {
        if !self.replies.contains_key(&event.id) || event.verify().is_err() {
            return;
        }
        for reply in self.replies.remove(&event.id).into_iter().flatten() {
            let _ = reply.send(event.clone());
        }
        self.due.get_or_insert_with(|| Instant::now() + GATHER);
    }

    /// The relay has ended the subscription: with all events given, or, if `early`, for another reason.
    pub(super) fn closed(&mut self, early: bool) {
        self.open = false;
        if early || !self.replies.is_empty() {
            self.due.get_or_insert_with(|| Instant::now() + AGAIN);
        }
    }

    /// A new connection has no subscription.
    pub(super) fn disconnected(&mut self) {
        self.open = false;
        self.due = (!self.replies.is_empty()).then(Instant::now);
    }

    pub(super) fn forget_unawaited(&mut self) {
        let before = self.replies.len();
        self.replies.retain(|_, replies| replies.iter().any(|reply| !reply.is_closed()));
        if self.replies.len() != before {
            self.due.get_or_insert_with(Instant::now);
        }
    }
}
