//! From relays to requests: verified, once each, within the author's rate.
//!
//! One reader for each relay hands what it hears on, as far as `triage` finds it worth a turn: authors that the policy
//! knows have a queue of their own, all others share a smaller one (`shares`). What an event means is its protocol's to
//! say. A request that needs a second event, its partner, waits for it in the store; both orders end in
//! [`RequestHandler::accept`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use nostr::{Event, EventId, JsonUtil, Keys, Kind, PublicKey};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, OnceCell, Semaphore, mpsc, watch},
    task::JoinSet,
};

use config::Config;
use domain::run::Millis;
use store::{Batch, Change, PendingEvent, Store, StoreError};

use self::{
    cancel::EarlyCancels,
    pending::PendingRequests,
    recent::Recent,
    shares::Share,
    triage::{Arrival, Queues},
};
use super::{
    Clock,
    delivery::Audience,
    history::AnswerHistory,
    policy::{AuthorStanding, Policy},
    protocol::{EventMeaning, Ignored, Protocol, Protocols, ReadContext, Refusal, Rejection},
    relays::{Relays, normal},
};

mod cancel;
mod handler;
mod partner;
mod pending;
mod reader;
pub(crate) mod reading;
mod recent;
mod service;
mod shares;
mod triage;
mod unread;

pub use self::handler::{CancelRequest, RequestHandler};

/// Ids of events that are known.
const KNOWN_IDS: usize = 8192;
/// Refusals in a second to authors that are known; what comes beyond is not answered.
const REFUSALS: NonZeroU32 = NonZeroU32::new(50).unwrap();
/// Cancels in a second of authors that are not known, all together.
const CANCELS_OF_OTHERS: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// Requests of authors that are not known, for which relays are asked that they name, at the same time.
const ASKED_ELSEWHERE: usize = 8;
/// Rate limiters forget authors that were quiet this often.
const SHRINK: Duration = Duration::from_secs(60);
/// What is followed is looked at again no sooner than this.
const FOLLOW: Duration = Duration::from_secs(1);
/// How long a relay may take to answer whether we answered a request.
const LOOK_UP: Duration = Duration::from_secs(8);
/// A request that could not be stored is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Memory {
    known: Recent<EventId>,
    pending: PendingRequests,
    /// Requests that are being taken in.
    taken_in: HashSet<EventId>,
    /// Relays of which events are still to come that are younger than this (s).
    unread: HashMap<String, u64>,
    early_cancels: EarlyCancels,
}

/// How many events were not answered, by reason. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Counted(Arc<Mutex<BTreeMap<Ignored, u64>>>);

impl Counted {
    /// The numbers now, of every reason.
    pub fn now(&self) -> BTreeMap<Ignored, u64> {
        let counted = self.0.lock();
        let number = |why: &Ignored| (*why, counted.get(why).copied().unwrap_or_default());
        <Ignored as strum::VariantArray>::VARIANTS.iter().map(number).collect()
    }

    fn add(&self, why: Ignored) {
        *self.0.lock().entry(why).or_default() += 1;
    }
}

/// What intake needs.
pub struct IntakeConfig<D> {
    /// The pool's keys.
    pub keys: Keys,
    /// Relays, limits and waiting times.
    pub config: Arc<Config>,
    /// Where requests wait, and what was taken in before.
    pub store: Store,
    /// The connections.
    pub relays: Relays,
    /// Says whose requests come first. Its list is read along with the requests.
    pub policy: Policy,
    /// The families of events that are listened for.
    pub protocols: Protocols,
    /// Takes the requests.
    pub handler: D,
    /// The time.
    pub clock: Clock,
}

impl<D: RequestHandler> IntakeConfig<D> {
    /// Nothing is heard before [`Intake::run`].
    pub fn build(self) -> Intake<D> {
        let Self { keys, config, store, relays, policy, protocols, handler, clock } = self;
        let (queues, [known, others]) = Queues::new(policy.is_open());
        let per_minute = NonZeroU32::new(config.limits.author_per_minute).unwrap_or(NonZeroU32::MIN);
        let inner = Inner {
            keys,
            config,
            store,
            relays,
            policy,
            protocols,
            handler,
            clock,
            requests_rate: RateLimiter::keyed(Quota::per_minute(per_minute)),
            cancels_rate: RateLimiter::keyed(Quota::per_minute(per_minute)),
            warnings_rate: RateLimiter::keyed(Quota::per_minute(NonZeroU32::MIN)),
            refusals_rate: RateLimiter::direct(Quota::per_second(REFUSALS)),
            cancels_of_others: RateLimiter::direct(Quota::per_second(CANCELS_OF_OTHERS)),
            asked_elsewhere: Arc::new(Semaphore::new(ASKED_ELSEWHERE)),
            started: clock(),
            answered_before: OnceCell::new(),
            memory: Mutex::new(Memory {
                known: Recent::new(KNOWN_IDS),
                pending: PendingRequests::default(),
                taken_in: HashSet::new(),
                unread: HashMap::new(),
                early_cancels: EarlyCancels::default(),
            }),
            counted: Counted::default(),
            follow: watch::Sender::new(Vec::new()),
            changed: Notify::new(),
            waits: Notify::new(),
            queues,
        };
        Intake { inner: Arc::new(inner), known, others }
    }
}

struct Inner<D> {
    keys: Keys,
    config: Arc<Config>,
    store: Store,
    relays: Relays,
    policy: Policy,
    protocols: Protocols,
    handler: D,
    clock: Clock,
    /// Requests, and cancels, of each author.
    requests_rate: DefaultKeyedRateLimiter<PublicKey>,
    cancels_rate: DefaultKeyedRateLimiter<PublicKey>,
    /// Answers to an author who sends too much.
    warnings_rate: DefaultKeyedRateLimiter<PublicKey>,
    /// Refusals to all known authors together; those to others are the policy's to count.
    refusals_rate: DefaultDirectRateLimiter,
    /// Cancels of all authors together that are not known.
    cancels_of_others: DefaultDirectRateLimiter,
    asked_elsewhere: Arc<Semaphore>,
    /// A request that is older may have been answered before the database was made or restored.
    started: Millis,
    /// Requests that were answered in the last moments before; `None`: too many to be told.
    answered_before: OnceCell<Option<HashSet<EventId>>>,
    memory: Mutex<Memory>,
    counted: Counted,
    /// Requests whose deletion is a cancel, as the readers ask for them.
    follow: watch::Sender<Vec<EventId>>,
    /// What is followed may have changed.
    changed: Notify,
    /// Another request waits for its partner.
    waits: Notify,
    queues: Queues,
}

/// Hears requests.
pub struct Intake<D> {
    inner: Arc<Inner<D>>,
    known: mpsc::Receiver<Arrival>,
    others: mpsc::Receiver<Arrival>,
}

impl<D: RequestHandler> Intake<D> {
    /// What is not answered, for the metrics.
    pub fn counted(&self) -> Counted {
        self.inner.counted.clone()
    }

    /// Hears until dropped.
    ///
    /// # Errors
    /// The store can't be read at the start.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { inner, known, others } = self;
        for parked in inner.store.parked_expired(Millis::MAX >> 1).await? {
            if let (Ok(event), Ok(partner)) = (Event::from_json(&parked.event), EventId::from_hex(&parked.waits_for)) {
                inner.wait_for(&event, partner, parked.until);
            }
        }
        inner.changed.notify_one();
        let mut tasks = JoinSet::new();
        {
            let inner = inner.clone();
            tasks.spawn(async move { inner.follow_live().await });
        }
        for url in inner.config.relays.read.iter().filter_map(|url| normal(url)).collect::<HashSet<_>>() {
            tasks.spawn(reader::keep_reading(inner.clone(), url));
        }
        for (share, arrivals) in [(Share::Known, known), (Share::Others, others)] {
            tasks.spawn(triage::handle_in_turn(inner.clone(), share, arrivals));
        }
        let mut shrink = tokio::time::interval(SHRINK);
        loop {
            let next = inner.next_expiry();
            tokio::select! {
                () = tokio::time::sleep(next) => inner.expire().await,
                // Another one may be due before.
                () = inner.waits.notified() => {}
                _ = shrink.tick() => {
                    for rate in [&inner.requests_rate, &inner.cancels_rate, &inner.warnings_rate] {
                        rate.retain_recent();
                        rate.shrink_to_fit();
                    }
                }
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "an intake task ended");
                    }
                }
            }
        }
    }
}

impl<D: RequestHandler> Inner<D> {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock()
    }

    fn count(&self, event: &Event, why: Ignored) {
        self.counted.add(why);
        tracing::debug!(event = %event.id, ?why, "not answered");
    }

    async fn handle(self: Arc<Self>, arrival: Arrival) {
        let Arrival { relay, event, share, room } = arrival;
        // A known id is the event we know, or a forgery of it.
        if self.memory().known.contains(&event.id) {
            return;
        }
        // The answers that were left when it came may be given by now.
        if share == Share::Others
            && let Some(why) = self.not_worth_a_turn(&event, self.policy.standing(&event.pubkey))
        {
            return self.count(&event, why);
        }
        // Nothing is noted of an author, or of an id, before the signature says that it is theirs.
        if event.verify().is_err() {
            return self.count(&event, Ignored::Forged);
        }
        self.memory().known.insert(event.id);
        let id = event.id;
        let done = match self.protocols.by_kind(event.kind) {
            _ if event.kind == Kind::EventDeletion => self.deletion(&event).await,
            Some(protocol) => self.read(protocol, &relay, &event).await,
            None => {
                self.policy.offer(event.clone());
                Ok(())
            }
        };
        if let Err(error) = done {
            tracing::error!(event = %id, "not taken in, tried again in {} s: {error:#}", AGAIN.as_secs());
            self.memory().known.remove(&id);
            tokio::spawn(async move {
                tokio::time::sleep(AGAIN).await;
                self.queues.again(Arrival { relay, event, share, room }).await;
            });
        }
    }

    async fn read(self: &Arc<Self>, protocol: &dyn Protocol, relay: &str, event: &Event) -> anyhow::Result<()> {
        match protocol.read(event, &self.context()) {
            EventMeaning::Request { partner } => self.request(protocol, relay, event, Ok(partner)).await,
            EventMeaning::Partner => self.partner(event).await,
            EventMeaning::Service => self.service(relay, event).await,
            EventMeaning::SecretUpdate => self.secrets(event).await,
            EventMeaning::Cancel(requests) => self.cancel(event, requests, CancelRequest::Cancel(event.pubkey)).await,
            EventMeaning::Rejected(Rejection::Ignored(why)) => {
                self.count(event, why);
                Ok(())
            }
            EventMeaning::Rejected(refused) => self.request(protocol, relay, event, Err(refused)).await,
        }
    }

    /// Of what a relay has stored, what is younger (s) is not read yet; `None`: what comes now says how far it was read.
    fn unread(&self, relay: &str, since: Option<u64>) {
        let unread = &mut self.memory().unread;
        match since {
            Some(since) => drop(unread.insert(relay.to_owned(), since)),
            None => drop(unread.remove(relay)),
        }
    }

    fn context(&self) -> ReadContext<'_> {
        let commands = !self.config.policy.command_label.is_empty();
        ReadContext { keys: &self.keys, limits: &self.config.limits, commands, now: (self.clock)() }
    }

    /// A request that was read as far as it goes alone: its partner where it has one, or why it is refused.
    async fn request(
        self: &Arc<Self>,
        protocol: &dyn Protocol,
        relay: &str,
        request: &Event,
        read: Result<Option<EventId>, Rejection>,
    ) -> anyhow::Result<()> {
        let now = (self.clock)();
        // A request that waits is looked for already.
        let waits = self.memory().pending.contains(&request.id);
        if waits || self.store.seen(&request.id.to_hex()).await? {
            return Ok(());
        }
        let latest = self.memory().unread.get(relay).copied().unwrap_or(now / 1000);
        let cursor = Change::Cursor { relay: relay.to_owned(), seen: request.created_at.as_secs().min(latest) };
        let settle = |mut batch: Batch| {
            batch.push(cursor.clone());
            batch
        };
        let standing = self.policy.standing(&request.pubkey);
        if standing == AuthorStanding::Excluded {
            let reason = Policy::refusal(&request.pubkey.to_hex());
            let refusal = Refusal::of_event(protocol, request, reason);
            return self.refuse(request, refusal, Audience::OwnRelays, settle(self.settle(request.id))).await;
        }
        if self.requests_rate.check_key(&request.pubkey).is_err() {
            return self.over_rate(protocol, request, settle(self.settle(request.id))).await;
        }
        let partner = match read {
            Ok(Some(partner)) => partner,
            Ok(None) => return self.take_in(protocol, request, None, settle(self.settle(request.id))).await,
            Err(rejection) => return self.reject(request, rejection, settle(self.settle(request.id))).await,
        };
        if let Some(found) = self.find(partner).await {
            return self.take_in(protocol, request, Some(&found), settle(self.settle(request.id))).await;
        }
        let share = Share::of(standing);
        let (limits, event) = (share.limits(self.policy.is_open()), request.as_json());
        if !self.memory().pending.has_room(&request.pubkey, share, &limits, event.len()) {
            self.count(request, Ignored::TooMany);
            return Ok(());
        }
        let wait = limits.wait(self.config.queue.pair);
        let until = now.saturating_add(Millis::try_from(wait.as_millis()).unwrap_or(Millis::MAX));
        let (id, waits_for) = (request.id.to_hex(), partner.to_hex());
        let parked = PendingEvent { id, waits_for, event, until };
        self.store.commit(settle(vec![Change::AddPending(parked)])).await?;
        self.wait_for(request, partner, until);
        Ok(())
    }

    /// Beyond the rate: one answer for each author and window.
    async fn over_rate(&self, protocol: &dyn Protocol, request: &Event, settle: Batch) -> anyhow::Result<()> {
        if self.warnings_rate.check_key(&request.pubkey).is_err() {
            self.count(request, Ignored::OverRate);
            return self.leave_unanswered(request, settle).await;
        }
        let rate = self.config.limits.author_per_minute;
        let reason = format!("more than {rate} jobs in a minute: send this one again later");
        let refusal = Refusal::of_event(protocol, request, reason);
        self.refuse(request, refusal, Audience::OwnRelays, settle).await
    }

    /// An event that requests may wait for.
    async fn partner(&self, partner: &Event) -> anyhow::Result<()> {
        for parked in self.store.parked_for(&partner.id.to_hex()).await? {
            let request = Event::from_json(&parked.event)?;
            if let Some(protocol) = self.protocols.by_kind(request.kind) {
                self.take_in(protocol, &request, Some(partner), self.settle(request.id)).await?;
            }
        }
        Ok(())
    }

    /// Takes a request in that is complete. Its two events may come at one moment, and each finds the other: then it is
    /// done once, so that no number of a run is given to nothing.
    async fn take_in(
        &self,
        protocol: &dyn Protocol,
        request: &Event,
        partner: Option<&Event>,
        settle: Batch,
    ) -> anyhow::Result<()> {
        if !self.memory().taken_in.insert(request.id) {
            return Ok(());
        }
        let handed_on = self.hand_on(protocol, request, partner, settle).await;
        self.memory().taken_in.remove(&request.id);
        handed_on?;
        self.memory().pending.remove(&request.id);
        self.changed.notify_one();
        Ok(())
    }

    async fn hand_on(
        &self,
        protocol: &dyn Protocol,
        request: &Event,
        partner: Option<&Event>,
        settle: Batch,
    ) -> anyhow::Result<()> {
        if self.store.seen(&request.id.to_hex()).await? {
            return Ok(());
        }
        if self.was_answered(request).await? {
            tracing::info!(request = %request.id, "answered before, as our relays know: this database is newer or restored");
            return self.reject(request, Rejection::Ignored(Ignored::Answered), settle).await;
        }
        if self.memory().early_cancels.contains(request) {
            let refusal = Refusal::of_event(protocol, request, cancel::BEFORE);
            return self.answer(request, refusal, Audience::Everywhere, settle).await;
        }
        if let Some(reason) = self.refused_by_policy(protocol, request, partner).await {
            let refusal = Refusal::of_event(protocol, request, reason);
            return self.answer(request, refusal, Audience::OwnRelays, settle).await;
        }
        let (run_request, secrets) = match protocol.request(request, partner, &self.context()) {
            Ok(read) => read,
            Err(rejection) => return self.reject(request, rejection, settle).await,
        };
        match self.handler.accept(run_request, secrets, settle.clone()).await {
            Ok(None) => self.cancel_early(request).await,
            Ok(Some(refusal)) => self.answer(request, refusal, Audience::Everywhere, settle).await,
            Err(error) => settled(Err(error)),
        }
    }

    /// Why an author who is not known may not run for the repository that a request names: asked before what they encrypted
    /// is read. Of those that are known, whoever takes the request in asks.
    async fn refused_by_policy(
        &self,
        protocol: &dyn Protocol,
        request: &Event,
        partner: Option<&Event>,
    ) -> Option<String> {
        if self.policy.is_open() || self.policy.standing(&request.pubkey) == AuthorStanding::Known {
            return None;
        }
        let address = protocol.repository(request, partner)?;
        self.policy.decide(&request.pubkey.to_hex(), &[&address]).await.err()
    }

    /// Whether a request from before our start has its final answer at our relays.
    async fn was_answered(&self, request: &Event) -> anyhow::Result<bool> {
        const UNKNOWN: &str = "whether the request was answered before can't be found out";
        let (made, started, ahead) = (request.created_at.as_secs(), self.started / 1000, self.config.limits.ahead);
        if made > started.saturating_add(ahead) {
            return Ok(false);
        }
        let (relays, config) = (&self.relays, &self.config.relays);
        let (protocols, us, wait) = (self.protocols, self.keys.public_key(), LOOK_UP);
        let history = AnswerHistory { relays, config, protocols, us, wait };
        // Its author's clock may be ahead: then its answer is as young as our clock lets such a request in. That is asked once
        // for all of them.
        if made > started {
            let since = started.saturating_sub(ahead.saturating_mul(2));
            let answered = self.answered_before.get_or_try_init(|| history.answered_since(since)).await;
            if let Some(answered) = answered.context(UNKNOWN)? {
                return Ok(answered.contains(&request.id));
            }
        }
        Ok(history.answered(&[request.id]).await.context(UNKNOWN)?.contains(&request.id))
    }

    async fn reject(&self, request: &Event, rejection: Rejection, settle: Batch) -> anyhow::Result<()> {
        match rejection {
            Rejection::Ignored(why) => {
                self.count(request, why);
                settled(self.store.commit(settle).await.map_err(Into::into))
            }
            Rejection::Refused(refusal) => self.refuse(request, *refusal, Audience::Everywhere, settle).await,
        }
    }

    /// Answers with a reason, as far as there are not too many of them.
    async fn refuse(&self, request: &Event, refusal: Refusal, audience: Audience, settle: Batch) -> anyhow::Result<()> {
        // A request of an earlier time may be one that was answered otherwise.
        if self.was_answered(request).await? {
            self.count(request, Ignored::Answered);
            return settled(self.store.commit(settle).await.map_err(Into::into));
        }
        self.answer(request, refusal, audience, settle).await
    }

    /// The same of a request that was not answered before. What an author names who is not known is not dialled, and of
    /// such authors only so many are answered as the operator allows.
    async fn answer(&self, request: &Event, refusal: Refusal, audience: Audience, settle: Batch) -> anyhow::Result<()> {
        let (refusal, audience, unanswered) = match Share::of(self.policy.standing(&request.pubkey)) {
            Share::Known => (refusal, audience, self.refusals_rate.check().is_err().then_some(Ignored::OverRate)),
            Share::Others => {
                let unanswered = (!self.policy.answers_stranger()).then_some(Ignored::Stranger);
                // Without a publisher there is no log to be stored of it.
                let publisher = refusal.publisher.filter(|_| self.policy.is_open());
                (Refusal { publisher, ..refusal }, Audience::OwnRelays, unanswered)
            }
        };
        if let Some(why) = unanswered {
            self.count(request, why);
            return self.leave_unanswered(request, settle).await;
        }
        tracing::info!(request = %request.id, reason = %refusal.reason, "refused");
        settled(self.handler.refuse(refusal, audience, settle).await)
    }

    /// Remembers a request that is not answered: in the store, or only until it is forgotten where its author may run by
    /// nothing that is known of them. Such a one is looked at again after a restart, and no row is left by anybody who asks.
    async fn leave_unanswered(&self, request: &Event, settle: Batch) -> anyhow::Result<()> {
        if self.policy.is_open() || Share::of(self.policy.standing(&request.pubkey)) == Share::Known {
            return settled(self.store.commit(settle).await.map_err(Into::into));
        }
        let waited = self.memory().pending.contains(&request.id);
        if waited {
            self.store.commit(vec![Change::RemovePending { id: request.id.to_hex() }]).await?;
        }
        Ok(())
    }

    /// What makes this the only time that a request is taken in.
    fn settle(&self, request: EventId) -> Batch {
        let id = request.to_hex();
        vec![Change::Seen { id: id.clone(), at: (self.clock)() }, Change::RemovePending { id }]
    }

    /// Keeps what the readers follow up to date: requests that may be deleted.
    async fn follow_live(&self) {
        loop {
            self.changed.notified().await;
            match self.handler.live().await {
                Ok(mut live) => {
                    live.truncate(reader::FOLLOWED);
                    self.follow.send_if_modified(|follow| {
                        let changed = *follow != live;
                        *follow = live;
                        changed
                    });
                }
                Err(error) => tracing::error!("live requests can't be read, deletions may go unheard: {error:#}"),
            }
            tokio::time::sleep(FOLLOW).await;
        }
    }
}

/// Taken in before is as good as taken in now.
fn settled(outcome: anyhow::Result<()>) -> anyhow::Result<()> {
    match outcome {
        Err(error) if matches!(error.downcast_ref(), Some(StoreError::Seen(_))) => Ok(()),
        other => other,
    }
}
