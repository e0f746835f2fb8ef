//! Delivers our events: each is signed when it is made, and sent to each of its relays in the order of making until
//! the relay has it.
//!
//! A delivery of one event to one relay is one row of work; the relay is its lane. What a relay answered is stored in
//! the transaction that completes the row, so that nothing is left undone, whatever fails in between. Relays of others are
//! a kind of their own, with hands of its own: events can name any, and ours must not wait for them.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use nostr::{Event, Filter, JsonUtil, Keys, UnsignedEvent, secp256k1::schnorr::Signature};

use domain::id::RunId;
use domain::run::Millis;
use store::{Batch, Change, ClaimedWork, LaneOrder, NewWork, Outgoing, RelayClass, Signer, Store, WorkKind};
use tokio::sync::Semaphore;
use work::{BackOff, Outcome, WorkHandler};

use super::{
    Clock,
    outbox::{EventDelivery, deliveries, work_kind},
    relays::{Answer, NO_ANSWER, RelayError, RelayLease, Relays},
};

/// Relays that the operator named are given up after this (ms), once another of them has the event.
const PATIENCE: Millis = 24 * 3_600_000;
/// Relays of others are given up after this (ms).
const PATIENCE_WITH_OTHERS: Millis = 10 * 60_000;
/// A relay that refused an event which none of our own relays has yet is asked again after this (ms).
const REFUSED_AGAIN: Millis = 60_000;
/// Relays written to at the same time: our own, and those of others.
const RELAYS: u32 = 64;
const RELAYS_OF_OTHERS: u32 = 16;
/// Of those, relays that took no event yet.
const UNPROVEN: usize = 10;
/// A delivery for which there is no hand now is tried again after this (ms).
const NO_HAND: Millis = 1_000;
/// A delivery for which there is no connection now is tried again after this (ms).
const NO_CONNECTION: Millis = 5_000;
/// Events on their way to one relay.
const IN_FLIGHT: u32 = 64;
/// Waits between tries at a relay that does not take an event.
const BACK_OFF: BackOff = BackOff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
/// A connected relay that does not take an event after so many tries holds up no other event by it.
const TRIES: u32 = 4;
/// How long a relay may take to answer what it has.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Ends the lane of what a relay refused, which holds up nothing else.
const REFUSED: &str = " refused";

/// Where publisher keys come from: the sealed secrets of runs.
pub trait PublisherKeys: Send + Sync + 'static {
    /// The publisher key of a run; `None`: it had none, or it is erased.
    ///
    /// # Errors
    /// It can't be read now.
    fn publisher<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, anyhow::Result<Option<Keys>>>;
}

/// Sends events to relays: the handler of [`WorkKind::Publish`], or of [`WorkKind::PublishToOthers`].
pub struct Publisher {
    store: Store,
    relays: Relays,
    clock: Clock,
    class: RelayClass,
    /// Hands for relays of others that took no event yet.
    unproven: Semaphore,
}

impl Publisher {
    /// Joins what publishing to relays of this class needs.
    pub fn new(store: Store, relays: Relays, class: RelayClass, clock: Clock) -> Self {
        Self { store, relays, clock, class, unproven: Semaphore::new(UNPROVEN) }
    }

    /// Makes rows of work of what an earlier version has not sent yet.
    ///
    /// # Errors
    /// The store or a key can't be read now: nothing is lost, it is done at the next start.
    pub async fn adopt_unsent(&self, keys: &Keys, publishers: &impl PublisherKeys) -> anyhow::Result<()> {
        for pending in self.store.outbox_pending().await? {
            let row = pending.outgoing;
            let answered = |relay: &String| pending.answers.iter().any(|(from, _)| from == relay);
            let left: Vec<_> = row.relays.iter().filter(|(relay, _)| !answered(relay)).cloned().collect();
            let batch = match signed(&row, keys, publishers).await? {
                Some(event) => {
                    let signature = Some(event.sig.to_string());
                    let mut batch = vec![Change::Outbox(Outgoing { signature, ..row.clone() })];
                    batch.extend(deliveries(&row, &event, &left, (self.clock)())?);
                    batch
                }
                None => vec![Change::OutboxDone { event: row.event }],
            };
            self.store.commit(batch).await?;
        }
        Ok(())
    }

    /// Sends the next events of one relay.
    async fn deliver(&self, rows: Vec<ClaimedWork>) -> anyhow::Result<Outcome> {
        let Some(first) = rows.first() else { return Ok(Outcome::Store(Batch::new())) };
        let url = first.lane.strip_suffix(REFUSED).unwrap_or(&first.lane).to_owned();
        let is_other = self.class == RelayClass::Other;
        if is_other && !self.relays.keeps_lane(&url) {
            return Ok(Outcome::Store(self.wait(
                rows,
                &url,
                NO_CONNECTION,
                "too many relays are named that are not ours",
            )));
        }
        // Relays that never answer must not hold all hands.
        let _unproven = match is_other && !self.relays.has_answered(&url) {
            true => match self.unproven.try_acquire() {
                Ok(permit) => Some(permit),
                Err(_) => return Ok(Outcome::Store(self.wait(rows, &url, NO_HAND, "other relays are tried first"))),
            },
            false => None,
        };
        let lease = match self.relays.lease(&url) {
            Ok(lease) => lease,
            Err(error @ RelayError::TooMany) => {
                return Ok(Outcome::Store(self.wait(rows, &url, NO_CONNECTION, &error.to_string())));
            }
            Err(error) => return Ok(Outcome::Store(self.give_up_all(&rows, &url, &error.to_string()))),
        };
        let (mut batch, mut readable) = (Batch::new(), Vec::new());
        for row in rows {
            match row.read_payload::<EventDelivery>() {
                Ok(delivery) => readable.push((row, delivery)),
                Err(error) => {
                    tracing::error!(relay = url, row = row.id, %error, "a delivery can't be read and is given up");
                    batch.push(row.complete());
                }
            }
        }
        let answers = send(&lease, &readable).await;
        let mut held_back = false;
        for ((row, delivery), answer) in readable.iter().zip(answers) {
            let answer = match answer {
                // One that did not answer would not answer this either.
                Some(Answer::Refused(reason) | Answer::Later(reason))
                    if !reason.starts_with(NO_ANSWER)
                        && lease.is_connected()
                        && has_newer(&lease, &delivery.event).await =>
                {
                    Some(Answer::Taken)
                }
                answer => answer,
            };
            match answer {
                None => batch.push(row.release()),
                Some(Answer::Taken) => {
                    self.relays.note_answer(&url);
                    batch.extend(self.settled(row, delivery, &url, ""));
                }
                Some(Answer::Refused(reason)) => batch.extend(self.refused(row, delivery, &url, &reason).await?),
                Some(Answer::Later(reason)) => {
                    let event = delivery.event.id;
                    tracing::debug!(relay = url, %event, reason, "a relay does not take an event yet");
                    let now = (self.clock)();
                    if self.is_over(row, &url) && self.may_give_up(delivery).await? {
                        batch.extend(self.settled(row, delivery, &url, &reason));
                    } else if row.tries >= TRIES && lease.is_connected() && !reason.starts_with("rate-limited") {
                        batch.push(self.aside(row, &url));
                    } else if std::mem::replace(&mut held_back, true) {
                        batch.push(row.release());
                    } else {
                        let wait = Millis::try_from(BACK_OFF.delay(row.tries).as_millis()).unwrap_or(Millis::MAX);
                        batch.push(row.retry(now.saturating_add(wait), reason));
                    }
                }
            }
        }
        Ok(Outcome::Store(batch))
    }

    /// Leaves rows for later, but those that had their time.
    fn wait(&self, rows: Vec<ClaimedWork>, url: &str, wait: Millis, reason: &str) -> Batch {
        let (over, waiting): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| self.is_over(row, url));
        let mut batch = self.give_up_all(&over, url, reason);
        let due = (self.clock)().saturating_add(wait);
        batch.extend(waiting.iter().map(|row| row.retry(due, reason.to_owned())));
        batch
    }

    /// A relay's final answer; empty: it has the event.
    fn settled(&self, row: &ClaimedWork, delivery: &EventDelivery, relay: &str, answer: &str) -> Batch {
        let (event, at) = (delivery.event.id.to_hex(), (self.clock)());
        let delivered = Change::Delivered { event, relay: relay.to_owned(), answer: answer.to_owned(), at };
        vec![delivered, row.complete()]
    }

    /// A relay said no. That is final, unless it is one of our own and none of them has the event.
    async fn refused(
        &self,
        row: &ClaimedWork,
        delivery: &EventDelivery,
        relay: &str,
        reason: &str,
    ) -> anyhow::Result<Batch> {
        let event = delivery.event.id;
        if self.may_give_up(delivery).await? {
            tracing::warn!(relay, %event, reason, "a relay refused an event");
            return Ok(self.settled(row, delivery, relay, reason));
        }
        tracing::warn!(relay, %event, reason, "a relay refused an event that no other of ours has: it is asked again");
        Ok(vec![self.aside(row, relay)])
    }

    /// The same row in a lane where it holds up no other event.
    fn aside(&self, row: &ClaimedWork, relay: &str) -> Change {
        let again = NewWork {
            id: row.id.clone(),
            kind: row.kind,
            run: row.run.clone(),
            lane: format!("{relay}{REFUSED}"),
            payload: row.payload.clone(),
            made_at: row.made_at,
            due: (self.clock)().saturating_add(REFUSED_AGAIN),
        };
        again.into()
    }

    /// Whether a delivery has had its time.
    fn is_over(&self, row: &ClaimedWork, relay: &str) -> bool {
        let patience = if self.relays.is_named(relay) { PATIENCE } else { PATIENCE_WITH_OTHERS };
        row.made_at.saturating_add(patience) < (self.clock)()
    }

    /// Whether it does no harm if a relay never gets an event.
    async fn may_give_up(&self, delivery: &EventDelivery) -> anyhow::Result<bool> {
        if delivery.class == RelayClass::Other {
            return Ok(true);
        }
        Ok(self.store.taken_by_own_relay(&delivery.event.id.to_hex()).await?)
    }

    fn give_up_all(&self, rows: &[ClaimedWork], relay: &str, reason: &str) -> Batch {
        let given_up = rows.iter().flat_map(|row| match row.read_payload::<EventDelivery>() {
            Ok(delivery) => self.settled(row, &delivery, relay, reason),
            Err(_) => vec![row.complete()],
        });
        given_up.collect()
    }
}

impl WorkHandler for Publisher {
    fn kind(&self) -> WorkKind {
        work_kind(self.class)
    }

    fn parallelism(&self) -> u32 {
        match self.class {
            RelayClass::Own => RELAYS,
            RelayClass::Other => RELAYS_OF_OTHERS,
        }
    }

    fn lanes(&self) -> LaneOrder {
        LaneOrder::InOrder { batch: IN_FLIGHT }
    }

    fn back_off(&self) -> BackOff {
        BACK_OFF
    }

    fn handle(&self, rows: Vec<ClaimedWork>) -> BoxFuture<'_, anyhow::Result<Outcome>> {
        self.deliver(rows).boxed()
    }
}

/// Whether a relay has a newer version of a replaceable event: then the older one is not to be taken any more.
async fn has_newer(lease: &RelayLease, event: &Event) -> bool {
    let filter = Filter::new().kind(event.kind).author(event.pubkey);
    let filter = match event.tags.identifier() {
        Some(identifier) if event.kind.is_addressable() => filter.identifier(identifier),
        _ if event.kind.is_replaceable() => filter,
        _ => return false,
    };
    let found = lease.fetch(filter, LOOK_UP).await.unwrap_or_default();
    found.iter().any(|found| found.created_at > event.created_at)
}

/// Sends events in their order. After a failure one at a time, up to the first that the relay does not answer for good:
/// `None` for those behind it.
async fn send(lease: &RelayLease, rows: &[(ClaimedWork, EventDelivery)]) -> Vec<Option<Answer>> {
    if rows.first().is_none_or(|(row, _)| row.tries <= 1) {
        let sent = rows.iter().map(|(_, delivery)| lease.send(Arc::new(delivery.event.clone())).map(Some));
        return join_all(sent).await;
    }
    let mut answers: Vec<Option<Answer>> = vec![None; rows.len()];
    for (answer, (_, delivery)) in answers.iter_mut().zip(rows) {
        let given = lease.send(Arc::new(delivery.event.clone())).await;
        let wait = matches!(given, Answer::Later(_));
        *answer = Some(given);
        if wait {
            break;
        }
    }
    answers
}

/// A stored event with its signature. `None`: it can't be read, or its publisher key is erased.
async fn signed(row: &Outgoing, keys: &Keys, publishers: &impl PublisherKeys) -> anyhow::Result<Option<Event>> {
    let publisher = match (&row.signature, &row.signer) {
        (None, Signer::Publisher { run }) => match publishers.publisher(run).await? {
            Some(publisher) => Some(publisher),
            None => {
                tracing::error!(
                    run = run.as_str(),
                    event = row.event,
                    "the event is given up: its publisher key is erased"
                );
                return Ok(None);
            }
        },
        _ => None,
    };
    let event = UnsignedEvent::from_json(&row.unsigned).map_err(anyhow::Error::from).and_then(|unsigned| {
        Ok(match &row.signature {
            Some(signature) => unsigned.add_signature(signature.parse::<Signature>()?)?,
            None => unsigned.sign_with_keys(publisher.as_ref().unwrap_or(keys))?,
        })
    });
    Ok(event.inspect_err(|error| tracing::error!(event = row.event, "the event is given up: {error:#}")).ok())
}
