//! From relays to requests: verified, once each, within the author's rate.
//!
//! One reader for each relay hands what it hears to a bounded queue; a slow or flooding relay waits in its own turn.
//! A job event waits in the store for its run event, whichever came first; both orders end in [`Desk::accept`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use nostr::{Event, EventId, Filter, JsonUtil, Keys, Kind, PublicKey};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinSet,
};

use config::Config;
use domain::run::{Millis, RunRequest};
use store::{Batch, Change, Parked, Store, StoreError};

use super::{
    Clock,
    hive_ci::{self, Ignored, Refusal, Rejection, Secrets},
    policy::Policy,
    relays::{RelayLease, Relays, normal},
};

mod reader;

/// Events that wait for a free hand.
const QUEUE: usize = 1024;
/// Events handled at the same time, so that their transactions are grouped.
const AT_ONCE: usize = 64;
/// Ids and run events remembered in memory, twice at most.
const RECENT: usize = 8192;
/// A run event that did not come is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// What is followed is looked at again no sooner than this.
const FOLLOW: Duration = Duration::from_secs(1);
/// How long a relay may take to answer whether it has a run event.
const LOOK_UP: Duration = Duration::from_secs(8);
/// A request that could not be stored is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// Where intake hands things in; `serve` implements it. Every call may be repeated.
pub trait Desk: Send + Sync + 'static {
    /// A request that was read well. `settle` belongs into the transaction that stores the run: it fails with
    /// [`StoreError::Seen`] where the request was taken in before, which is success.
    fn accept(&self, request: RunRequest, secrets: Secrets, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>>;
    /// A request that gets a reason instead of a run. `settle` as above, with the events of the answer.
    fn refuse(&self, refusal: Refusal, reach: Reach, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>>;
    /// Somebody asks to end the job of this event. Only its author may.
    fn cancel<'a>(&'a self, job_event: &'a str, by: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// Job events whose runs have not ended, newest first.
    fn live(&self) -> BoxFuture<'_, anyhow::Result<Vec<String>>>;
}

/// How far a refusal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To all relays of an answer.
    Everywhere,
    /// To our own relays: its author sends too much.
    OwnRelays,
}

/// A job event that waits for its run event.
#[derive(Debug, Clone)]
struct Waiting {
    run: EventId,
    author: PublicKey,
    named: Vec<String>,
    until: Millis,
}

/// Remembers the newest ids, forgetting the older half at a time.
#[derive(Debug)]
struct Recent<V> {
    new: HashMap<EventId, V>,
    old: HashMap<EventId, V>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self { new: HashMap::new(), old: HashMap::new() }
    }
}

impl<V> Recent<V> {
    fn insert(&mut self, id: EventId, value: V) {
        if self.new.len() >= RECENT {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(id, value);
    }

    fn get(&self, id: &EventId) -> Option<&V> {
        self.new.get(id).or_else(|| self.old.get(id))
    }

    fn remove(&mut self, id: &EventId) {
        self.new.remove(id);
        self.old.remove(id);
    }
}

#[derive(Debug, Default)]
struct Memory {
    known: Recent<()>,
    runs: Recent<Event>,
    waiting: HashMap<EventId, Waiting>,
    pairing: HashSet<EventId>,
}

/// How many events were not answered, by reason. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Counted(Arc<Mutex<BTreeMap<Ignored, u64>>>);

impl Counted {
    /// The numbers now.
    pub fn now(&self) -> BTreeMap<Ignored, u64> {
        self.0.lock().clone()
    }

    fn add(&self, why: Ignored) {
        *self.0.lock().entry(why).or_default() += 1;
    }
}

struct Inner<D> {
    keys: Keys,
    config: Arc<Config>,
    store: Store,
    relays: Relays,
    policy: Policy,
    desk: D,
    clock: Clock,
    rate: DefaultKeyedRateLimiter<PublicKey>,
    told: DefaultKeyedRateLimiter<PublicKey>,
    memory: Mutex<Memory>,
    counted: Counted,
    /// Job events whose deletion is a cancel, as the readers ask for them.
    follow: watch::Sender<Vec<EventId>>,
    /// What is followed may have changed.
    changed: Notify,
    events: mpsc::Sender<Arrival>,
}

/// An event as a relay gave it, not yet verified.
struct Arrival {
    relay: String,
    event: Event,
}

/// Hears job events.
pub struct Intake<D> {
    inner: Arc<Inner<D>>,
    arrivals: mpsc::Receiver<Arrival>,
}

impl<D: Desk> Intake<D> {
    /// Joins what intake needs; nothing is heard before [`Self::run`].
    pub fn new(
        keys: Keys,
        config: Arc<Config>,
        store: Store,
        relays: Relays,
        policy: Policy,
        desk: D,
        clock: Clock,
    ) -> Self {
        let (events, arrivals) = mpsc::channel(QUEUE);
        let per_minute = NonZeroU32::new(config.limits.author_per_minute).unwrap_or(NonZeroU32::MIN);
        let inner = Inner {
            keys,
            config,
            store,
            relays,
            policy,
            desk,
            clock,
            rate: RateLimiter::keyed(Quota::per_minute(per_minute)),
            told: RateLimiter::keyed(Quota::per_minute(NonZeroU32::MIN)),
            memory: Mutex::default(),
            counted: Counted::default(),
            follow: watch::Sender::new(Vec::new()),
            changed: Notify::new(),
            events,
        };
        Self { inner: Arc::new(inner), arrivals }
    }

    /// What is not answered, for the metrics.
    pub fn counted(&self) -> Counted {
        self.inner.counted.clone()
    }

    /// Hears until dropped.
    ///
    /// # Errors
    /// The store can't be read at the start.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let inner = &self.inner;
        for parked in inner.store.parked_expired(Millis::MAX >> 1).await? {
            if let (Ok(event), Ok(run)) = (Event::from_json(&parked.event), EventId::from_hex(&parked.waits_for)) {
                inner.wait_for(&event, run, parked.until);
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
        let hands = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let next = inner.next_expiry();
            tokio::select! {
                Some(arrival) = self.arrivals.recv() => {
                    let Ok(hand) = hands.clone().acquire_owned().await else { return Ok(()) };
                    let inner = inner.clone();
                    tasks.spawn(async move {
                        inner.handle(arrival).await;
                        drop(hand);
                    });
                }
                () = tokio::time::sleep(next) => inner.expire().await,
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "an intake task ended");
                    }
                }
            }
        }
    }
}

impl<D: Desk> Inner<D> {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock()
    }

    fn count(&self, event: &Event, why: Ignored) {
        self.counted.add(why);
        tracing::debug!(event = %event.id, ?why, "not answered");
    }

    async fn handle(self: Arc<Self>, Arrival { relay, event }: Arrival) {
        // A known id is the event we know, or a forgery of it.
        if self.memory().known.get(&event.id).is_some() {
            return;
        }
        if event.verify().is_err() {
            return self.count(&event, Ignored::Forged);
        }
        self.memory().known.insert(event.id, ());
        let id = event.id;
        let done = match event.kind.as_u16() {
            hive_ci::JOB => self.job(&relay, event.clone()).await,
            hive_ci::RUN => self.run(event.clone()).await,
            hive_ci::CANCEL | 5 => self.cancel(&event).await,
            _ => {
                self.policy.offer(event.clone());
                Ok(())
            }
        };
        if let Err(error) = done {
            tracing::error!(event = %id, "not taken in, tried again in {} s: {error:#}", AGAIN.as_secs());
            self.memory().known.remove(&id);
            tokio::spawn(async move {
                tokio::time::sleep(AGAIN).await;
                // Closed only when intake itself ended.
                self.events.send(Arrival { relay, event }).await.ok();
            });
        }
    }

    async fn job(self: &Arc<Self>, relay: &str, job: Event) -> anyhow::Result<()> {
        let now = (self.clock)();
        let awaited = match hive_ci::awaits(&job, &self.keys.public_key(), &self.config.limits, now) {
            Err(Rejection::Ignored(why)) => {
                self.count(&job, why);
                return Ok(());
            }
            other => other,
        };
        if self.store.seen(&job.id.to_hex()).await? {
            return Ok(());
        }
        let waits = self.memory().waiting.contains_key(&job.id);
        if !waits && self.rate.check_key(&job.pubkey).is_err() {
            return self.over_rate(&job).await;
        }
        let cursor = Change::Cursor { relay: relay.to_owned(), seen: job.created_at.as_secs().min(now / 1000) };
        let awaited = match awaited {
            Ok(run) => run,
            Err(rejection) => {
                self.store.commit(vec![cursor]).await?;
                return self.reject(&job, rejection).await;
            }
        };
        let known = || self.memory().runs.get(&awaited).cloned();
        if !waits && known().is_none() {
            let until = now + self.config.queue.pair * 1000;
            let parked = Parked { id: job.id.to_hex(), waits_for: awaited.to_hex(), event: job.as_json(), until };
            self.store.commit(vec![cursor, Change::Park(parked)]).await?;
            self.wait_for(&job, awaited, until);
        } else {
            self.store.commit(vec![cursor]).await?;
        }
        // Looked at again: the run may have come while the job was being parked.
        match known() {
            Some(run) => self.pair(&job, &run).await,
            None => Ok(()),
        }
    }

    /// Beyond the rate: one answer for each author and window.
    async fn over_rate(&self, job: &Event) -> anyhow::Result<()> {
        self.rate.retain_recent();
        self.told.retain_recent();
        if self.told.check_key(&job.pubkey).is_err() {
            let seen = Change::Seen { id: job.id.to_hex(), at: (self.clock)() };
            return settled(self.store.commit(vec![seen]).await.map_err(Into::into));
        }
        let rate = self.config.limits.author_per_minute;
        let refusal = Refusal::of_job(job, format!("more than {rate} jobs in a minute: send this one again later"));
        settled(self.desk.refuse(refusal, Reach::OwnRelays, self.settle(job)).await)
    }

    async fn run(&self, run: Event) -> anyhow::Result<()> {
        self.memory().runs.insert(run.id, run.clone());
        for parked in self.store.parked_for(&run.id.to_hex()).await? {
            self.pair(&Event::from_json(&parked.event)?, &run).await?;
        }
        Ok(())
    }

    /// Takes a job in with its run. Both may come at one moment, and each finds the other: then it is done once, so that
    /// no number of a run is given to nothing.
    async fn pair(&self, job: &Event, run: &Event) -> anyhow::Result<()> {
        if !self.memory().pairing.insert(job.id) {
            return Ok(());
        }
        let paired = self.take_in(job, run).await;
        self.memory().pairing.remove(&job.id);
        paired?;
        self.memory().waiting.remove(&job.id);
        self.changed.notify_one();
        Ok(())
    }

    async fn take_in(&self, job: &Event, run: &Event) -> anyhow::Result<()> {
        if self.store.seen(&job.id.to_hex()).await? {
            return Ok(());
        }
        let read = hive_ci::request(job, run, &self.keys, &self.config.limits, (self.clock)());
        match read {
            Ok((request, secrets)) => settled(self.desk.accept(request, secrets, self.settle(job)).await),
            Err(rejection) => self.reject(job, rejection).await,
        }
    }

    async fn reject(&self, job: &Event, rejection: Rejection) -> anyhow::Result<()> {
        match rejection {
            Rejection::Ignored(why) => {
                self.count(job, why);
                settled(self.store.commit(self.settle(job)).await.map_err(Into::into))
            }
            Rejection::Refused(refusal) => {
                tracing::info!(job = %job.id, reason = %refusal.reason, "refused");
                settled(self.desk.refuse(*refusal, Reach::Everywhere, self.settle(job)).await)
            }
        }
    }

    /// What makes this the only time that a job is taken in.
    fn settle(&self, job: &Event) -> Batch {
        let id = job.id.to_hex();
        vec![Change::Seen { id: id.clone(), at: (self.clock)() }, Change::Unpark { id }]
    }

    async fn cancel(&self, event: &Event) -> anyhow::Result<()> {
        for id in hive_ci::cancels(event, &self.keys.public_key()) {
            let waiting =
                EventId::from_hex(&id).ok().and_then(|id| Some((id, self.memory().waiting.get(&id)?.clone())));
            match waiting {
                Some((id, job)) if job.author == event.pubkey => {
                    self.give_up(id, &job, "cancelled by its author before its run was found".into()).await?;
                }
                Some(_) => {}
                None => self.desk.cancel(&id, &event.pubkey.to_hex()).await?,
            }
        }
        Ok(())
    }

    async fn give_up(&self, id: EventId, job: &Waiting, reason: String) -> anyhow::Result<()> {
        let (author, relays) = (job.author.to_hex(), job.named.clone());
        let refusal = Refusal { job: id.to_hex(), author, reason, run: None, relays };
        let settle = vec![Change::Seen { id: id.to_hex(), at: (self.clock)() }, Change::Unpark { id: id.to_hex() }];
        settled(self.desk.refuse(refusal, Reach::Everywhere, settle).await)?;
        self.memory().waiting.remove(&id);
        Ok(())
    }

    /// Remembers a job that waits, and asks our read relays and those it names for its run.
    fn wait_for(self: &Arc<Self>, job: &Event, run: EventId, until: Millis) {
        let named = hive_ci::relays_named(job);
        let read = self.config.relays.read.iter().filter_map(|url| normal(url));
        let asked: indexmap::IndexSet<String> = read.chain(named.iter().filter_map(|url| normal(url))).collect();
        let waiting = Waiting { run, author: job.pubkey, named, until };
        self.memory().waiting.insert(job.id, waiting);
        let (inner, id, left) = (self.clone(), job.id, until.saturating_sub((self.clock)()));
        tokio::spawn(async move {
            let looked = inner.look_for(asked, id, run);
            // Closed only when intake itself ended.
            if let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(left), looked).await {
                inner.events.send(Arrival { relay: String::new(), event }).await.ok();
            }
        });
    }

    /// The run event of a job that waits, once one of these relays has it; `None`: the job waits no longer.
    async fn look_for(&self, urls: indexmap::IndexSet<String>, job: EventId, run: EventId) -> Option<Event> {
        let relays: Vec<RelayLease> = urls.iter().filter_map(|url| self.relays.lease(url).ok()).collect();
        let first = |mut found: Vec<Event>| found.pop();
        while self.memory().waiting.contains_key(&job) {
            let looks = relays.iter().map(|relay| async move {
                match relay.fetch(Filter::new().id(run), LOOK_UP).await.map(first) {
                    Ok(Some(found)) => Some(found),
                    _ => relay.watch(run).await,
                }
            });
            let looks: FuturesUnordered<_> = looks.collect();
            let found = looks.filter_map(std::future::ready).boxed();
            if let Ok(Some(found)) = tokio::time::timeout(ASK_AGAIN, found.into_future().map(|(found, _)| found)).await
            {
                return Some(found);
            }
        }
        None
    }

    /// Keeps what the readers follow up to date: jobs that may be deleted.
    async fn follow_live(&self) {
        loop {
            self.changed.notified().await;
            match self.desk.live().await {
                Ok(live) => {
                    let jobs = live.iter().filter_map(|id| EventId::from_hex(id).ok());
                    let jobs: Vec<EventId> = jobs.take(reader::FOLLOWED).collect();
                    self.follow.send_if_modified(|follow| {
                        let changed = *follow != jobs;
                        *follow = jobs;
                        changed
                    });
                }
                Err(error) => tracing::error!("live jobs can't be read, deletions may go unheard: {error:#}"),
            }
            tokio::time::sleep(FOLLOW).await;
        }
    }

    /// How long until the first waiting job is given up.
    fn next_expiry(&self) -> Duration {
        let first = self.memory().waiting.values().map(|waiting| waiting.until).min();
        let left = first.map_or(3_600_000, |until| until.saturating_sub((self.clock)()));
        Duration::from_millis(left.clamp(10, 3_600_000))
    }

    async fn expire(&self) {
        let now = (self.clock)();
        let over: Vec<(EventId, Waiting)> = self
            .memory()
            .waiting
            .iter()
            .filter(|(_, job)| job.until <= now)
            .map(|(id, job)| (*id, job.clone()))
            .collect();
        for (id, job) in over {
            let minutes = self.config.queue.pair.div_ceil(60);
            let reason = format!(
                "the run of this job (kind 5401, {}) came to none of our relays within {minutes} minutes: publish it to \
                 them and send the job again",
                job.run
            );
            if let Err(error) = self.give_up(id, &job, reason).await {
                tracing::error!(job = %id, "not given up yet: {error:#}");
                if let Some(waiting) = self.memory().waiting.get_mut(&id) {
                    waiting.until = now + AGAIN.as_secs() * 1000;
                }
            }
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

/// What is asked of a relay from `since` (seconds) on.
fn jobs(us: PublicKey, since: u64) -> Filter {
    let kinds = [hive_ci::JOB, hive_ci::CANCEL].map(Kind::from);
    Filter::new().kinds(kinds).pubkey(us).since(nostr::Timestamp::from(since))
}
