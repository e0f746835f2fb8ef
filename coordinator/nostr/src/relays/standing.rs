//! Subscriptions that stand, and the bounded queues to their readers.

use std::sync::Arc;

use nostr::{Event, Filter, filter::MatchEventOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Delivery, message_size::MessageSize};

/// Room of a subscription's queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueRoom {
    /// Deliveries that wait for the reader.
    pub events: usize,
    /// Memory of events that wait or that the reader holds, in bytes.
    pub bytes: usize,
    /// Bytes of one event, as it came; a larger one is left out, and so is one that takes more memory than there is room.
    pub largest: usize,
}

impl QueueRoom {
    /// Room for so many events of usual size.
    pub fn of(events: usize) -> Self {
        Self { events, bytes: 4 << 20, largest: 1 << 20 }
    }
}

/// Where the events of a subscription go.
#[derive(Debug)]
pub(super) struct EventQueue {
    pub(super) to: mpsc::Sender<Delivery>,
    pub(super) bytes: Arc<Semaphore>,
    pub(super) room: QueueRoom,
}

/// An event and the room that it takes in its reader's queue, free again when this is dropped.
#[derive(Debug)]
pub struct QueuedEvent {
    /// As the relay gave it, not verified.
    pub event: Event,
    /// Bytes of memory that it takes, at most.
    pub size: usize,
    room: OwnedSemaphorePermit,
}

impl QueuedEvent {
    /// The event alone: its room is free.
    pub fn into_event(self) -> Event {
        drop(self.room);
        self.event
    }
}

/// Where a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// To be sent as soon as the relay lets us.
    Due,
    Sent,
    /// The relay ended it, or the connection was lost: its reader asks again.
    Ended,
}

/// A subscription of a connection.
#[derive(Debug)]
pub(super) struct OpenSubscription {
    pub(super) filters: Vec<Filter>,
    queue: EventQueue,
    pub(super) opened: Opened,
    /// Something was not delivered.
    missed: bool,
}

impl OpenSubscription {
    pub(super) fn new(filters: Vec<Filter>, queue: EventQueue) -> Self {
        Self { filters, queue, opened: Opened::Due, missed: false }
    }

    /// Whether nobody reads it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.to.is_closed()
    }

    /// Whether an event of this size is taken.
    pub(super) fn takes(&self, size: MessageSize) -> bool {
        size.text <= self.queue.room.largest && size.memory <= self.queue.room.bytes
    }

    pub(super) fn deliver(&mut self, delivery: Delivery) {
        self.tell_missed();
        if self.missed || self.queue.to.try_send(delivery).is_err() {
            self.missed = true;
        }
    }

    pub(super) fn tell_missed(&mut self) {
        if self.missed && self.queue.to.try_send(Delivery::Interrupted).is_ok() {
            self.missed = false;
        }
    }

    /// Delivers an event of this size that was asked for, and for which there is room.
    pub(super) fn event(&mut self, event: Event, size: MessageSize) {
        let matches = |filter: &Filter| filter.match_event(&event, MatchEventOptions::new());
        if !self.takes(size) || !self.filters.iter().any(matches) {
            return;
        }
        let size = size.memory;
        let bytes = u32::try_from(size).unwrap_or(u32::MAX);
        match self.queue.bytes.clone().try_acquire_many_owned(bytes) {
            Ok(room) => self.deliver(Delivery::Event(Box::new(QueuedEvent { event, size, room }))),
            Err(_) => self.missed = true,
        }
    }
}

/// The subscription of an event message as relays write it; what is written otherwise is looked at when it was read.
pub(super) fn event_subscription(text: &str) -> Option<&str> {
    let rest = text.trim_start().strip_prefix("[\"EVENT\",")?.trim_start().strip_prefix('"')?;
    rest.split_once('"').map(|(id, _)| id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nostr::{EventBuilder, Keys, Kind};

    use super::*;

    fn standing(filter: Filter, room: QueueRoom) -> (OpenSubscription, mpsc::Receiver<Delivery>) {
        let (to, deliveries) = mpsc::channel(room.events);
        let bytes = Arc::new(Semaphore::new(room.bytes));
        (OpenSubscription::new(vec![filter], EventQueue { to, bytes, room }), deliveries)
    }

    fn size(bytes: usize) -> MessageSize {
        MessageSize { text: bytes, memory: bytes }
    }

    fn event(kind: u16) -> Event {
        EventBuilder::new(Kind::from(kind), "").sign_with_keys(&Keys::generate()).unwrap()
    }

    #[test]
    fn attack_58_what_was_not_asked_for_or_is_too_long_is_not_kept() {
        let room = QueueRoom { events: 10, bytes: 1000, largest: 100 };
        let (mut standing, mut deliveries) = standing(Filter::new().kind(Kind::from(5100)), room);
        standing.event(event(5401), size(50));
        standing.event(event(5100), size(101));
        standing.event(event(5100), MessageSize { text: 100, memory: 1001 });
        standing.tell_missed();
        assert!(deliveries.try_recv().is_err(), "and nobody reads it again for that");
        standing.event(event(5100), size(100));
        assert!(matches!(deliveries.try_recv(), Ok(Delivery::Event(_))));
    }

    #[test]
    fn attack_58_events_that_wait_or_are_held_take_no_more_room_than_their_queue_has() {
        let room = QueueRoom { events: 10, bytes: 250, largest: 100 };
        let (mut standing, mut deliveries) = standing(Filter::new(), room);
        for _ in 0..5 {
            standing.event(event(1), size(100));
        }
        let held: Vec<Delivery> = std::iter::from_fn(|| deliveries.try_recv().ok()).collect();
        assert_eq!(held.len(), 2, "{held:?}");
        standing.event(event(1), size(100));
        assert!(matches!(deliveries.try_recv(), Ok(Delivery::Interrupted) | Err(_)));
        drop(held);
        standing.tell_missed();
        standing.event(event(1), size(100));
        let after: Vec<Delivery> = std::iter::from_fn(|| deliveries.try_recv().ok()).collect();
        assert!(matches!(after.last(), Some(Delivery::Event(_))), "{after:?}");
    }

    #[test]
    fn the_subscription_of_a_message_is_known_before_it_is_read() {
        for (text, expected) in [
            (r#"["EVENT","jobs",{}]"#, Some("jobs")),
            (r#" ["EVENT", "q1" , {}]"#, Some("q1")),
            (r#"["EOSE","jobs"]"#, None),
            (r#"["EVENT",7]"#, None),
        ] {
            assert_eq!(event_subscription(text), expected, "{text}");
        }
    }
}
