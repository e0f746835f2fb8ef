//! The outbox: events are signed once, and sent to each relay in the order they were made until it has them.
//!
//! Each relay has a lane of its own, so that one that hangs delays no other. A lane reads the board, which holds what
//! the store calls pending; what a lane learns is stored before the board forgets it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use futures::future::BoxFuture;
use nostr::{Event, JsonUtil, Keys, UnsignedEvent, secp256k1::schnorr::Signature};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, broadcast::error::RecvError},
    task::JoinSet,
    time::Instant,
};

use domain::run::Millis;
use store::{Change, ChangeNotification, Outgoing, Pending, RelayClass, Signer, Store};

use super::{
    Clock,
    hive_ci::Draft,
    relays::{Answer, Relays},
};

/// Relays of others are given up after this (ms).
const PATIENCE: Millis = 24 * 3_600_000;
/// Waits between tries at a relay that does not take an event: the first, and the longest.
const BACK_OFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// A lane with nothing to send ends after this.
const IDLE: Duration = Duration::from_secs(60);

/// Where publisher keys come from: the sealed secrets of runs.
pub trait PublisherKeys: Send + Sync + 'static {
    /// The publisher key of a run; `None`: it had none, or it is erased.
    fn publisher<'a>(&'a self, run: &'a str) -> BoxFuture<'a, anyhow::Result<Option<Keys>>>;
}

/// A draft as the store keeps it. `run` is our id of the run it reports on.
pub fn outgoing(draft: &Draft, relays: &[(String, RelayClass)], run: Option<&str>, now: Millis) -> Change {
    let mut event = draft.event.clone();
    Change::Outbox(Outgoing {
        event: event.id().to_hex(),
        sequence: 0,
        unsigned: event.as_json(),
        signature: draft.signature.map(|signature| signature.to_string()),
        signer: draft.signer.clone(),
        relays: relays.to_vec(),
        run: run.map(str::to_owned),
        made_at: now,
    })
}

/// An event on its way.
#[derive(Debug)]
struct Entry {
    event: Arc<Event>,
    made_at: Millis,
    /// Relays that still want it, and when each is tried next after a refusal.
    left: HashMap<String, Target>,
    /// Whether one of our own relays has it.
    safe: bool,
}

#[derive(Debug, Clone, Copy)]
struct Target {
    class: RelayClass,
    not_before: Option<Instant>,
}

impl Entry {
    /// Whether a relay may be given up for good.
    fn may_give_up(&self, class: RelayClass) -> bool {
        class == RelayClass::Other || self.safe
    }
}

/// What is pending, by order of making.
type Board = BTreeMap<i64, Entry>;

/// What a lane does next.
enum Next {
    Send(i64, Arc<Event>),
    Wait(Instant),
    Nothing,
}

/// Sends the outbox.
pub struct Publisher<P> {
    inner: Arc<Inner<P>>,
}

struct Inner<P> {
    keys: Keys,
    store: Store,
    relays: Relays,
    publishers: P,
    clock: Clock,
    board: Mutex<Board>,
    changed: Notify,
}

impl<P: PublisherKeys> Publisher<P> {
    /// Joins what publishing needs; nothing is sent before [`Self::run`].
    pub fn new(keys: Keys, store: Store, relays: Relays, publishers: P, clock: Clock) -> Self {
        let (board, changed) = (Mutex::default(), Notify::new());
        Self { inner: Arc::new(Inner { keys, store, relays, publishers, clock, board, changed }) }
    }

    /// Sends until dropped.
    ///
    /// # Errors
    /// The store has stopped.
    pub async fn run(self) -> anyhow::Result<()> {
        let inner = self.inner;
        let mut notices = inner.store.subscribe();
        let mut known: HashSet<String> = HashSet::new();
        let mut lanes = JoinSet::new();
        let mut open = HashSet::new();
        loop {
            let pending = inner.store.outbox_pending().await?;
            let now: HashSet<String> = pending.iter().map(|pending| pending.outgoing.event.clone()).collect();
            for pending in pending {
                if !known.contains(&pending.outgoing.event) {
                    inner.take(pending).await?;
                }
            }
            known = now;
            loop {
                let wanted: HashSet<String> =
                    inner.board().values().flat_map(|entry| entry.left.keys().cloned()).collect();
                for relay in wanted {
                    if open.insert(relay.clone()) {
                        let inner = inner.clone();
                        lanes.spawn(async move {
                            inner.lane(&relay).await;
                            relay
                        });
                    }
                }
                inner.changed.notify_waiters();
                tokio::select! {
                    notice = notices.recv() => match notice {
                        Ok(ChangeNotification::Outbox) | Err(RecvError::Lagged(_)) => break,
                        Ok(_) => {}
                        Err(RecvError::Closed) => anyhow::bail!("the store has stopped; restart the coordinator"),
                    },
                    Some(ended) = lanes.join_next() => {
                        open.remove(&ended.context("a sender of events ended badly")?);
                    }
                }
            }
        }
    }
}

impl<P: PublisherKeys> Inner<P> {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock()
    }

    /// Puts a pending event on the board, signed.
    async fn take(&self, pending: Pending) -> anyhow::Result<()> {
        let Pending { outgoing, answers } = pending;
        let event = match self.signed(&outgoing).await {
            Ok(event) => event,
            Err(error) => {
                tracing::error!(event = outgoing.event, "can't be signed and is given up: {error:#}");
                self.store.commit(vec![Change::OutboxDone { event: outgoing.event }]).await?;
                return Ok(());
            }
        };
        let answered: HashMap<&str, &str> = answers.iter().map(|(r, a)| (r.as_str(), a.as_str())).collect();
        let left = outgoing.relays.iter().filter(|(url, _)| !answered.contains_key(url.as_str()));
        let entry = Entry {
            event: Arc::new(event),
            made_at: outgoing.made_at,
            left: left.map(|(url, class)| (url.clone(), Target { class: *class, not_before: None })).collect(),
            safe: outgoing
                .relays
                .iter()
                .any(|(url, class)| *class == RelayClass::Own && answered.get(url.as_str()) == Some(&"")),
        };
        if entry.left.is_empty() {
            self.store.commit(vec![Change::OutboxDone { event: outgoing.event }]).await?;
            return Ok(());
        }
        self.board().insert(outgoing.sequence, entry);
        Ok(())
    }

    /// The event with its stored signature, or signed now and the signature stored.
    async fn signed(&self, outgoing: &Outgoing) -> anyhow::Result<Event> {
        let unsigned = UnsignedEvent::from_json(&outgoing.unsigned).context("the stored event can't be read")?;
        if let Some(signature) = &outgoing.signature {
            return Ok(unsigned.add_signature(Signature::from_str(signature)?)?);
        }
        let event = match &outgoing.signer {
            Signer::Coordinator => unsigned.sign_with_keys(&self.keys)?,
            Signer::Publisher { run } => {
                let keys = self.publishers.publisher(run).await?.context("its publisher key is erased")?;
                unsigned.sign_with_keys(&keys)?
            }
        };
        let signature = Some(event.sig.to_string());
        self.store.commit(vec![Change::Outbox(Outgoing { signature, ..outgoing.clone() })]).await?;
        Ok(event)
    }

    /// Sends to one relay until it wants nothing for a while.
    async fn lane(&self, relay: &str) {
        let mut wait = BACK_OFF[0];
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.next(relay) {
                Next::Send(sequence, event) => match self.relays.send(relay, &event).await {
                    Answer::Taken => {
                        wait = BACK_OFF[0];
                        self.settle(sequence, relay, "").await;
                    }
                    Answer::Refused(reason) => {
                        tracing::warn!(relay, event = %event.id, reason, "a relay refused an event");
                        self.refused(sequence, relay, &reason).await;
                    }
                    Answer::Later(reason) => {
                        tracing::debug!(relay, event = %event.id, reason, "a relay does not take an event yet");
                        self.give_up_old(relay, &reason).await;
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(BACK_OFF[1]);
                    }
                },
                Next::Wait(until) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        () = changed => {}
                    }
                }
                Next::Nothing => {
                    if tokio::time::timeout(IDLE, changed).await.is_err() && matches!(self.next(relay), Next::Nothing) {
                        return;
                    }
                }
            }
        }
    }

    /// The first event that a relay wants. One that it refused is asked for again later and holds up no other.
    fn next(&self, relay: &str) -> Next {
        let now = Instant::now();
        let mut first = None;
        for (sequence, entry) in &*self.board() {
            match entry.left.get(relay).map(|target| target.not_before) {
                None => {}
                Some(Some(at)) if at > now => first = Some(first.map_or(at, |first: Instant| first.min(at))),
                Some(_) => return Next::Send(*sequence, entry.event.clone()),
            }
        }
        first.map_or(Next::Nothing, Next::Wait)
    }

    /// A relay's final answer: stored, then forgotten.
    async fn settle(&self, sequence: i64, relay: &str, answer: &str) {
        let Some((event, last)) = self.board().get(&sequence).map(|entry| {
            let others = entry.left.iter().filter(|(url, _)| *url != relay);
            (entry.event.id.to_hex(), others.count() == 0)
        }) else {
            return;
        };
        let delivered = Change::Delivered {
            event: event.clone(),
            relay: relay.to_owned(),
            answer: answer.to_owned(),
            at: (self.clock)(),
        };
        let mut batch = vec![delivered];
        if last {
            batch.push(Change::OutboxDone { event });
        }
        if let Err(error) = self.store.commit(batch).await {
            tracing::error!(relay, %error, "an answer was not stored, the event is sent again");
            return tokio::time::sleep(BACK_OFF[0]).await;
        }
        let mut board = self.board();
        if let Some(entry) = board.get_mut(&sequence) {
            let target = entry.left.remove(relay);
            entry.safe |= answer.is_empty() && target.is_some_and(|target| target.class == RelayClass::Own);
            if entry.left.is_empty() {
                board.remove(&sequence);
            }
        }
    }

    /// A relay said no. That is final unless it is the last hope of the event among our own.
    async fn refused(&self, sequence: i64, relay: &str, reason: &str) {
        let is_final = {
            let mut board = self.board();
            let Some(entry) = board.get_mut(&sequence) else { return };
            let Some(class) = entry.left.get(relay).map(|target| target.class) else { return };
            let is_final = entry.may_give_up(class);
            if let Some(target) = entry.left.get_mut(relay) {
                target.not_before = Some(Instant::now() + BACK_OFF[1]);
            }
            is_final
        };
        if is_final {
            self.settle(sequence, relay, reason).await;
        }
    }

    /// Gives up what a relay did not take in time.
    async fn give_up_old(&self, relay: &str, reason: &str) {
        let now = (self.clock)();
        let old: Vec<i64> = self
            .board()
            .iter()
            .filter(|(_, entry)| entry.made_at + PATIENCE < now)
            .filter(|(_, entry)| entry.left.get(relay).is_some_and(|target| entry.may_give_up(target.class)))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in old {
            self.settle(sequence, relay, reason).await;
        }
    }
}
