//! From relays to requests: verified, once each, within the author's rate.
//!
//! One reader for each relay hands what it hears to a bounded queue; a slow or flooding relay waits in its own turn.
//! A job event whose run event is not there yet waits in the store; both orders end in [`RequestHandler::accept`].

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use nostr::{Event, EventId, Filter, JsonUtil, Keys, Kind, PublicKey};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinSet,
};

use config::Config;
use domain::run::{Millis, RunRequest};
use store::{Batch, Change, Parked, Store, StoreError};

use self::pending::{PendingJob, PendingJobs};
use super::{
    Clock, history,
    hive_ci::{self, Ignored, Refusal, Rejection, Secrets},
    policy::Policy,
    relays::{RelayLease, Relays, normal},
};

mod pending;
mod reader;

/// Events that wait for a free hand.
const QUEUE: usize = 1024;
/// Events handled at the same time, so that their transactions are grouped.
const AT_ONCE: usize = 64;
/// Ids and run events remembered in memory, twice at most.
const RECENT: usize = 8192;
/// A run event that did not come is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How long a look for a run event holds up its job at first.
const AT_ONCE_LOOK_UP: Duration = Duration::from_millis(300);
/// Refusals in a second; what comes beyond is not answered.
const REFUSALS: NonZeroU32 = NonZeroU32::new(50).unwrap();
/// Jobs given up at a time.
const GIVEN_UP: usize = 64;
/// Rate limiters forget authors that were quiet this often.
const SHRINK: Duration = Duration::from_secs(60);
/// What is followed is looked at again no sooner than this.
const FOLLOW: Duration = Duration::from_secs(1);
/// How long a relay may take to answer whether it has a run event.
const LOOK_UP: Duration = Duration::from_secs(8);
/// A request that could not be stored is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// What intake hands requests to. Every call may be repeated.
pub trait RequestHandler: Send + Sync + 'static {
    /// A request that was read well. `settle` belongs into the transaction that stores the run: it fails with
    /// [`StoreError::Seen`] where the request was taken in before, which is success.
    fn accept(&self, request: RunRequest, secrets: Secrets, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>>;
    /// A request that gets a reason instead of a run. `settle` as above, with the events of the answer.
    fn refuse(&self, refusal: Refusal, audience: Audience, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>>;
    /// Somebody asks to end the job of this event. Only its author may.
    fn cancel<'a>(&'a self, job_event: &'a str, by: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// Job events whose runs have not ended, newest first.
    fn live(&self) -> BoxFuture<'_, anyhow::Result<Vec<String>>>;
}

/// How far a refusal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// To all relays of an answer.
    Everywhere,
    /// To our own relays: its author sends too much.
    OwnRelays,
}

/// Remembers the newest ids, forgetting the older half at a time.
#[derive(Debug, Default)]
struct RecentIds {
    new: HashSet<EventId>,
    old: HashSet<EventId>,
}

impl RecentIds {
    fn insert(&mut self, id: EventId) {
        if self.new.len() >= RECENT {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(id);
    }

    fn contains(&self, id: &EventId) -> bool {
        self.new.contains(id) || self.old.contains(id)
    }

    fn remove(&mut self, id: &EventId) {
        self.new.remove(id);
        self.old.remove(id);
    }
}

#[derive(Debug, Default)]
struct Memory {
    known: RecentIds,
    pending: PendingJobs,
    /// Jobs that are being taken in.
    matching: HashSet<EventId>,
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

struct Inner<D> {
    keys: Keys,
    config: Arc<Config>,
    store: Store,
    relays: Relays,
    policy: Policy,
    handler: D,
    clock: Clock,
    /// Jobs, and cancels, of each author.
    jobs_rate: DefaultKeyedRateLimiter<PublicKey>,
    cancels_rate: DefaultKeyedRateLimiter<PublicKey>,
    /// Answers to an author who sends too much.
    warnings_rate: DefaultKeyedRateLimiter<PublicKey>,
    /// Refusals to all authors together.
    refusals_rate: DefaultDirectRateLimiter,
    /// A request that is older may have been answered before the database was made or restored.
    started: Millis,
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

impl<D: RequestHandler> Intake<D> {
    /// Joins what intake needs; nothing is heard before [`Self::run`].
    pub fn new(
        keys: Keys,
        config: Arc<Config>,
        store: Store,
        relays: Relays,
        policy: Policy,
        handler: D,
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
            handler,
            clock,
            jobs_rate: RateLimiter::keyed(Quota::per_minute(per_minute)),
            cancels_rate: RateLimiter::keyed(Quota::per_minute(per_minute)),
            warnings_rate: RateLimiter::keyed(Quota::per_minute(NonZeroU32::MIN)),
            refusals_rate: RateLimiter::direct(Quota::per_second(REFUSALS)),
            started: clock(),
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
        let mut shrink = tokio::time::interval(SHRINK);
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
                _ = shrink.tick() => {
                    for rate in [&inner.jobs_rate, &inner.cancels_rate, &inner.warnings_rate] {
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

    async fn handle(self: Arc<Self>, Arrival { relay, event }: Arrival) {
        // A known id is the event we know, or a forgery of it.
        if self.memory().known.contains(&event.id) {
            return;
        }
        if event.verify().is_err() {
            return self.count(&event, Ignored::Forged);
        }
        self.memory().known.insert(event.id);
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
        // A job that waits is looked for already.
        let waits = self.memory().pending.contains(&job.id);
        if waits || self.store.seen(&job.id.to_hex()).await? {
            return Ok(());
        }
        let cursor = Change::Cursor { relay: relay.to_owned(), seen: job.created_at.as_secs().min(now / 1000) };
        let settle = |mut batch: Batch| {
            batch.push(cursor.clone());
            batch
        };
        if self.jobs_rate.check_key(&job.pubkey).is_err() {
            return self.over_rate(&job, settle(self.settle(&job))).await;
        }
        let awaited = match awaited {
            Ok(run) => run,
            Err(rejection) => return self.reject(&job, rejection, settle(self.settle(&job))).await,
        };
        if let Some(run) = self.find_run(awaited).await {
            return self.match_run(&job, &run, settle(self.settle(&job))).await;
        }
        if !self.memory().pending.has_room(&job.pubkey) {
            self.count(&job, Ignored::TooMany);
            return Ok(());
        }
        let until = now + self.config.queue.pair * 1000;
        let parked = Parked { id: job.id.to_hex(), waits_for: awaited.to_hex(), event: job.as_json(), until };
        self.store.commit(settle(vec![Change::Park(parked)])).await?;
        self.wait_for(&job, awaited, until);
        Ok(())
    }

    /// A run event that one of our read relays has already, as clients send it before its job.
    async fn find_run(&self, id: EventId) -> Option<Event> {
        let urls = self.config.relays.read.iter().filter_map(|url| normal(url));
        let relays: Vec<RelayLease> = urls.filter_map(|url| self.relays.lease(&url).ok()).collect();
        let looks = relays.iter().map(|relay| relay.fetch(Filter::new().id(id), AT_ONCE_LOOK_UP));
        let looks: FuturesUnordered<_> = looks.collect();
        let mut found =
            looks.filter_map(|found| std::future::ready(found.ok().and_then(|mut found| found.pop()))).boxed();
        found.next().await
    }

    /// Beyond the rate: one answer for each author and window.
    async fn over_rate(&self, job: &Event, settle: Batch) -> anyhow::Result<()> {
        if self.warnings_rate.check_key(&job.pubkey).is_err() {
            self.count(job, Ignored::OverRate);
            return settled(self.store.commit(settle).await.map_err(Into::into));
        }
        let rate = self.config.limits.author_per_minute;
        let refusal = Refusal::of_job(job, format!("more than {rate} jobs in a minute: send this one again later"));
        self.refuse(job, refusal, Audience::OwnRelays, settle).await
    }

    async fn run(&self, run: Event) -> anyhow::Result<()> {
        for parked in self.store.parked_for(&run.id.to_hex()).await? {
            let job = Event::from_json(&parked.event)?;
            self.match_run(&job, &run, self.settle(&job)).await?;
        }
        Ok(())
    }

    /// Takes a job in with its run. Both may come at one moment, and each finds the other: then it is done once, so that
    /// no number of a run is given to nothing.
    async fn match_run(&self, job: &Event, run: &Event, settle: Batch) -> anyhow::Result<()> {
        if !self.memory().matching.insert(job.id) {
            return Ok(());
        }
        let taken = self.take_in(job, run, settle).await;
        self.memory().matching.remove(&job.id);
        taken?;
        self.memory().pending.remove(&job.id);
        self.changed.notify_one();
        Ok(())
    }

    async fn take_in(&self, job: &Event, run: &Event, settle: Batch) -> anyhow::Result<()> {
        if self.store.seen(&job.id.to_hex()).await? {
            return Ok(());
        }
        if self.was_answered(job).await? {
            tracing::info!(job = %job.id, "answered before, as our relays know: this database is newer or restored");
            return self.reject(job, Rejection::Ignored(Ignored::Answered), settle).await;
        }
        let read = hive_ci::request(job, run, &self.keys, &self.config.limits, (self.clock)());
        match read {
            Ok((request, secrets)) => settled(self.handler.accept(request, secrets, settle).await),
            Err(rejection) => self.reject(job, rejection, settle).await,
        }
    }

    /// Whether a job from before our start has its final answer at our relays.
    async fn was_answered(&self, job: &Event) -> anyhow::Result<bool> {
        // Clocks of authors may be ahead.
        let newest = (self.started / 1000).saturating_add(self.config.limits.ahead);
        if job.created_at.as_secs() > newest {
            return Ok(false);
        }
        let us = self.keys.public_key();
        let found = history::answered(&self.relays, &self.config.relays, &us, &[job.id], LOOK_UP).await;
        let found = found.context("whether the request was answered before can't be found out")?;
        Ok(found.contains(&job.id))
    }

    async fn reject(&self, job: &Event, rejection: Rejection, settle: Batch) -> anyhow::Result<()> {
        match rejection {
            Rejection::Ignored(why) => {
                self.count(job, why);
                settled(self.store.commit(settle).await.map_err(Into::into))
            }
            Rejection::Refused(refusal) => self.refuse(job, *refusal, Audience::Everywhere, settle).await,
        }
    }

    /// Answers with a reason, as far as there are not too many of them.
    async fn refuse(&self, job: &Event, refusal: Refusal, audience: Audience, settle: Batch) -> anyhow::Result<()> {
        if self.refusals_rate.check().is_err() {
            self.count(job, Ignored::OverRate);
            return settled(self.store.commit(settle).await.map_err(Into::into));
        }
        // A job of an earlier time may be one that was answered otherwise.
        if self.was_answered(job).await? {
            self.count(job, Ignored::Answered);
            return settled(self.store.commit(settle).await.map_err(Into::into));
        }
        tracing::info!(job = %job.id, reason = %refusal.reason, "refused");
        settled(self.handler.refuse(refusal, audience, settle).await)
    }

    /// What makes this the only time that a job is taken in.
    fn settle(&self, job: &Event) -> Batch {
        let id = job.id.to_hex();
        vec![Change::Seen { id: id.clone(), at: (self.clock)() }, Change::Unpark { id }]
    }

    async fn cancel(&self, event: &Event) -> anyhow::Result<()> {
        let jobs = hive_ci::cancels(event, &self.keys.public_key());
        if jobs.is_empty() {
            return Ok(());
        }
        if self.cancels_rate.check_key(&event.pubkey).is_err() {
            self.count(event, Ignored::OverRate);
            return Ok(());
        }
        for id in jobs {
            let pending = EventId::from_hex(&id).ok();
            let pending = pending.and_then(|id| Some((id, self.memory().pending.get(&id)?.clone())));
            match pending {
                Some((id, job)) if job.author == event.pubkey => {
                    self.give_up(id, &job, "cancelled by its author before its run was found".into()).await?;
                }
                Some(_) => {}
                None => self.handler.cancel(&id, &event.pubkey.to_hex()).await?,
            }
        }
        Ok(())
    }

    async fn give_up(&self, id: EventId, job: &PendingJob, reason: String) -> anyhow::Result<()> {
        let (author, relays) = (job.author.to_hex(), job.named.clone());
        let refusal = Refusal { job: id.to_hex(), author, reason, run: None, relays };
        let settle = vec![Change::Seen { id: id.to_hex(), at: (self.clock)() }, Change::Unpark { id: id.to_hex() }];
        settled(self.handler.refuse(refusal, Audience::Everywhere, settle).await)?;
        self.memory().pending.remove(&id);
        Ok(())
    }

    /// Remembers a job that waits, and asks our read relays and those it names for its run.
    fn wait_for(self: &Arc<Self>, job: &Event, run: EventId, until: Millis) {
        let named = hive_ci::relays_named(job);
        let read = self.config.relays.read.iter().filter_map(|url| normal(url));
        let asked: indexmap::IndexSet<String> = read.chain(named.iter().filter_map(|url| normal(url))).collect();
        self.memory().pending.insert(job.id, PendingJob { run, author: job.pubkey, named, until });
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
        while self.memory().pending.contains(&job) {
            let looks = relays.iter().map(|relay| relay.watch(run));
            let looks: FuturesUnordered<_> = looks.collect();
            let found = looks.filter_map(std::future::ready).boxed();
            // Asked again from time to time: a relay may have forgotten the subscription.
            if let Ok((Some(found), _)) = tokio::time::timeout(ASK_AGAIN, found.into_future()).await {
                return Some(found);
            }
        }
        None
    }

    /// Keeps what the readers follow up to date: jobs that may be deleted.
    async fn follow_live(&self) {
        loop {
            self.changed.notified().await;
            match self.handler.live().await {
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
        let first = self.memory().pending.next_deadline();
        let left = first.map_or(3_600_000, |until| until.saturating_sub((self.clock)()));
        Duration::from_millis(left.clamp(10, 3_600_000))
    }

    async fn expire(&self) {
        let now = (self.clock)();
        let over = self.memory().pending.expired(now, GIVEN_UP);
        for (id, job) in over {
            let minutes = self.config.queue.pair.div_ceil(60);
            let reason = format!(
                "the run of this job (kind {}, {}) came to none of our relays within {minutes} minutes: publish it to \
                 them and send the job again",
                hive_ci::RUN,
                job.run
            );
            let given_up = match self.refusals_rate.check() {
                Ok(()) => self.give_up(id, &job, reason).await,
                Err(_) => Err(anyhow::anyhow!("too many refusals at a time")),
            };
            if let Err(error) = given_up {
                tracing::warn!(job = %id, "not given up yet: {error:#}");
                self.memory().pending.postpone(&id, now + AGAIN.as_secs() * 1000);
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
