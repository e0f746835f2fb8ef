//! Events that are awaited by their ids, in one subscription of a connection.

use std::time::Duration;

use indexmap::IndexMap;
use nostr::{Event, EventId, Filter};
use tokio::{sync::oneshot, time::Instant};

/// Ids in one filter; relays refuse very long ones.
const IDS: usize = 100;
/// Changes within this time make one subscription.
const GATHER: Duration = Duration::from_millis(20);
/// Changes that may wait make one subscription within this time.
const GATHER_LATER: Duration = Duration::from_millis(500);
/// A subscription that the relay ended is opened again after this.
const AGAIN: Duration = Duration::from_secs(10);
/// Where more events are awaited than one subscription names, it names others after this.
const TURN: Duration = Duration::from_secs(5);

/// Which awaited events a subscription names first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// As many as it can name, at once.
    First,
    /// In what is left, in turn, a moment later.
    Later,
}

/// Who waits for one event.
#[derive(Debug)]
struct Awaited {
    replies: Vec<oneshot::Sender<Event>>,
    urgency: Urgency,
}

/// Who waits for which event.
#[derive(Debug, Default)]
pub(super) struct Watched {
    awaited: IndexMap<EventId, Awaited>,
    open: bool,
    /// When the subscription is to follow what is awaited.
    due: Option<Instant>,
    /// Where the next turn begins among those that there was no room for.
    turn: usize,
}

impl Watched {
    pub(super) fn add(&mut self, id: EventId, urgency: Urgency, reply: oneshot::Sender<Event>) {
        let awaited = self.awaited.entry(id).or_insert_with(|| Awaited { replies: Vec::new(), urgency });
        awaited.replies.push(reply);
        awaited.urgency = awaited.urgency.min(urgency);
        let wait = match urgency {
            Urgency::First => GATHER,
            Urgency::Later => GATHER_LATER,
        };
        self.set_due(Instant::now() + wait);
    }

    fn set_due(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
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
        let ids = self.next_ids(filters.saturating_mul(IDS));
        let was_open = std::mem::replace(&mut self.open, !ids.is_empty());
        if !self.open && !was_open {
            return None;
        }
        Some(ids.chunks(IDS).map(|ids| Filter::new().ids(ids.iter().copied())).collect())
    }

    /// What the subscription names, at most so many: the urgent ones, and of the others as many as there is room for. Those
    /// that do not fit have their turn later.
    fn next_ids(&mut self, most: usize) -> Vec<EventId> {
        if self.awaited.len() <= most {
            return self.awaited.keys().copied().collect();
        }
        let of = |urgency| {
            let awaited = self.awaited.iter().filter(move |(_, awaited)| awaited.urgency == urgency);
            awaited.map(|(id, _)| *id).collect::<Vec<EventId>>()
        };
        let (first, later) = (of(Urgency::First), of(Urgency::Later));
        let begin = self.turn;
        let in_turn = |ids: &[EventId], room: usize| -> Vec<EventId> {
            let begin = if ids.len() > room { begin % ids.len() } else { 0 };
            ids.iter().cycle().skip(begin).take(room.min(ids.len())).copied().collect()
        };
        let mut ids = in_turn(&first, most);
        ids.extend(in_turn(&later, most - ids.len()));
        self.turn = self.turn.wrapping_add(most / 2);
        self.set_due(Instant::now() + TURN);
        ids
    }

    pub(super) fn event(&mut self, event: &Event) {
        if !self.awaited.contains_key(&event.id) || event.verify().is_err() {
            return;
        }
        for reply in self.awaited.swap_remove(&event.id).into_iter().flat_map(|awaited| awaited.replies) {
            let _ = reply.send(event.clone());
        }
        self.set_due(Instant::now() + GATHER_LATER);
    }

    /// The relay has ended the subscription: with all events given, or, if `early`, for another reason.
    pub(super) fn closed(&mut self, early: bool) {
        self.open = false;
        if early || !self.awaited.is_empty() {
            self.due.get_or_insert_with(|| Instant::now() + AGAIN);
        }
    }

    /// A new connection has no subscription.
    pub(super) fn disconnected(&mut self) {
        self.open = false;
        self.due = (!self.awaited.is_empty()).then(Instant::now);
    }

    pub(super) fn forget_unawaited(&mut self) {
        let before = self.awaited.len();
        self.awaited.retain(|_, awaited| awaited.replies.iter().any(|reply| !reply.is_closed()));
        if self.awaited.len() != before {
            self.set_due(Instant::now() + GATHER_LATER);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn id(number: usize) -> EventId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        EventId::from_byte_array(bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn urgent_events_are_always_asked_for_and_the_others_in_turn() {
        let mut watched = Watched::default();
        let mut replies = Vec::new();
        let mut add = |watched: &mut Watched, number: usize, urgency| {
            let (reply, answer) = oneshot::channel();
            watched.add(id(number), urgency, reply);
            replies.push(answer);
        };
        for number in 0..500 {
            add(&mut watched, number, Urgency::Later);
        }
        for number in 500..550 {
            add(&mut watched, number, Urgency::First);
        }
        let mut asked = HashSet::new();
        for _ in 0..12 {
            let due = watched.due().unwrap();
            tokio::time::advance(due.saturating_duration_since(Instant::now())).await;
            let filters = watched.changed(Instant::now(), 2).unwrap();
            let ids: HashSet<EventId> = filters.into_iter().filter_map(|filter| filter.ids).flatten().collect();
            assert!(ids.len() <= 2 * IDS && (500..550).all(|number| ids.contains(&id(number))));
            asked.extend(ids);
        }
        assert_eq!(asked.len(), 550, "everybody had a turn");
    }

    #[tokio::test(start_paused = true)]
    async fn an_urgent_event_is_asked_for_without_waiting_for_the_others() {
        let mut watched = Watched::default();
        let ((later, _kept), (first, _kept_too)) = (oneshot::channel(), oneshot::channel());
        watched.add(id(1), Urgency::Later, later);
        watched.add(id(2), Urgency::First, first);
        assert_eq!(watched.due(), Some(Instant::now() + GATHER));
    }
}
