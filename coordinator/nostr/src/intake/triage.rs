//! Which events get a turn, and when: decided by what costs nothing, before a signature is checked.

use std::sync::Arc;

use nostr::{Event, Kind};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};

use super::{Inner, RequestHandler, shares::Share};
use crate::{
    policy::AuthorStanding,
    protocol::{EventMeaning, Ignored, Rejection},
    relays::QueuedEvent,
};

/// An event that waits for its turn, not yet verified.
pub(super) struct Arrival {
    pub(super) relay: String,
    pub(super) event: Event,
    pub(super) share: Share,
    /// What it takes of its share's queue.
    pub(super) room: OwnedSemaphorePermit,
}

/// The queue of each share.
pub(super) struct Queues {
    known: Queue,
    others: Queue,
}

struct Queue {
    to: mpsc::Sender<Arrival>,
    bytes: Arc<Semaphore>,
}

/// Intake has ended.
#[derive(Debug, thiserror::Error)]
#[error("intake has ended")]
pub(super) struct IntakeEnded;

impl Queues {
    /// The queues, and where they are read: known authors first.
    pub(super) fn new(pool_is_open: bool) -> (Self, [mpsc::Receiver<Arrival>; 2]) {
        let queue = |share: Share| {
            let limits = share.limits(pool_is_open);
            let (to, arrivals) = mpsc::channel(limits.queue);
            (Queue { to, bytes: Arc::new(Semaphore::new(limits.queue_bytes)) }, arrivals)
        };
        let ((known, first), (others, second)) = (queue(Share::Known), queue(Share::Others));
        (Self { known, others }, [first, second])
    }

    fn of(&self, share: Share) -> &Queue {
        match share {
            Share::Known => &self.known,
            Share::Others => &self.others,
        }
    }

    /// What was not handled well has its turn again.
    pub(super) async fn again(&self, arrival: Arrival) {
        // Closed only when intake itself ended.
        self.of(arrival.share).to.send(arrival).await.ok();
    }

    /// Adds an event: one of a known author waits for room, any other is left out where there is none. Returns whether it
    /// was added.
    pub(super) async fn add(&self, relay: &str, event: Event, size: usize, share: Share) -> Result<bool, IntakeEnded> {
        let queue = self.of(share);
        let bytes = u32::try_from(size).unwrap_or(u32::MAX);
        let room = match share {
            Share::Known => queue.bytes.clone().acquire_many_owned(bytes).await.map_err(|_| IntakeEnded)?,
            Share::Others => match queue.bytes.clone().try_acquire_many_owned(bytes) {
                Ok(room) => room,
                Err(_) => return Ok(false),
            },
        };
        let arrival = Arrival { relay: relay.to_owned(), event, share, room };
        match share {
            Share::Known => queue.to.send(arrival).await.map(|()| true).map_err(|_| IntakeEnded),
            Share::Others => match queue.to.try_send(arrival) {
                Ok(()) => Ok(true),
                Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
                Err(mpsc::error::TrySendError::Closed(_)) => Err(IntakeEnded),
            },
        }
    }
}

/// Handles what waits in a share's queue, so many at the same time that their transactions are grouped.
pub(super) async fn handle_in_turn<D: RequestHandler>(
    inner: Arc<Inner<D>>,
    share: Share,
    mut arrivals: mpsc::Receiver<Arrival>,
) {
    let at_once = share.limits(inner.policy.is_open()).at_once;
    let mut handling = JoinSet::new();
    loop {
        tokio::select! {
            Some(ended) = handling.join_next(), if !handling.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "an event was not handled");
                }
            }
            arrival = arrivals.recv(), if handling.len() < at_once => match arrival {
                Some(arrival) => drop(handling.spawn(inner.clone().handle(arrival))),
                None => return,
            }
        }
    }
}

impl<D: RequestHandler> Inner<D> {
    /// An event that a relay gave.
    pub(super) async fn arrived(&self, relay: &str, queued: Box<QueuedEvent>) -> Result<(), IntakeEnded> {
        if self.memory().known.contains(&queued.event.id) {
            return Ok(());
        }
        // Whose key signs the list of those that may run need not be one of them.
        let standing = match self.policy.is_list(&queued.event) {
            true => AuthorStanding::Known,
            false => self.policy.standing(&queued.event.pubkey),
        };
        if let Some(why) = self.not_worth_a_turn(&queued.event, standing) {
            self.count(&queued.event, why);
            return Ok(());
        }
        let size = queued.size;
        let event = queued.into_event();
        let id = event.id;
        if !self.queues.add(relay, event, size, Share::of(standing)).await? {
            self.counted.add(Ignored::TooMany);
            tracing::debug!(event = %id, "left out: too many events of authors that are not known wait");
        }
        Ok(())
    }

    /// Why an event is left out as it is. What is said of its author here, its signature may prove wrong: nothing is noted.
    pub(super) fn not_worth_a_turn(&self, event: &Event, standing: AuthorStanding) -> Option<Ignored> {
        if event.kind == Kind::EventDeletion {
            return (event.tags.len() > self.config.limits.event_tags).then_some(Ignored::TooLong);
        }
        let refused = match self.protocols.by_kind(event.kind)?.read(event, &self.context()) {
            EventMeaning::Rejected(Rejection::Ignored(why)) => return Some(why),
            EventMeaning::Cancel(requests) => return requests.is_empty().then_some(Ignored::NotOurs),
            EventMeaning::Partner => false,
            EventMeaning::Rejected(Rejection::Refused(_)) => standing != AuthorStanding::Known,
            EventMeaning::Service | EventMeaning::SecretUpdate => {
                return (standing == AuthorStanding::Excluded).then_some(Ignored::Stranger);
            }
            EventMeaning::Request { .. } => standing == AuthorStanding::Excluded,
        };
        (refused && !self.policy.has_answers_left()).then_some(Ignored::Stranger)
    }
}
