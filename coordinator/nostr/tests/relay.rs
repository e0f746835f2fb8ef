//! Intake and outbox against real relays over websockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use config::{self, Config};
use domain::run::{Millis, RunRequest};
use futures::future::BoxFuture;
use nostr::{Event, EventBuilder, EventId, Keys, Kind, PublicKey, Tag, Timestamp, nips::nip44};
use nostr_client::{
    delivery::Audience,
    history::AnswerHistory,
    intake::{CancelRequest, Counted, IntakeConfig, RequestHandler},
    policy::Policy,
    protocol::{
        Ignored, Protocols, Refusal, Secrets,
        hive_ci::{self, HiveCi},
        nip_c1::{self, NipC1},
    },
    relays::{Answer, Relays},
};
use nostr_relay_builder::{
    LocalRelay, RelayBuilder,
    builder::{RateLimit, RelayBuilderNip42, RelayBuilderNip42Mode},
};
use nostr_sdk::Client;
use parking_lot::Mutex;
use store::{Batch, Store};
use tokio::sync::mpsc;

#[path = "relay/challenges.rs"]
mod challenges;
#[path = "relay/nip_c1.rs"]
mod of_nip_c1;
#[path = "relay/pages.rs"]
mod pages;
#[path = "relay/strangers.rs"]
mod strangers;

const PROTOCOLS: Protocols = Protocols::new(&[&HiveCi, &NipC1]);
const LIMIT: Duration = Duration::from_secs(60);
/// Who waits for a closed subscription waits until a partner is asked for again.
const ASKED_AGAIN: Duration = Duration::from_secs(60);

fn now() -> Millis {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} took longer than {LIMIT:?}"))
}

async fn relay() -> (LocalRelay, String) {
    started(RelayBuilder::default()).await
}

async fn started(builder: RelayBuilder) -> (LocalRelay, String) {
    // Relays are asked for their limits over HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let relay = LocalRelay::new(builder);
    relay.run().await.unwrap();
    let url = relay.url().await.to_string();
    (relay, url)
}

async fn publish(urls: &[String], event: &Event) {
    let client = Client::new(Keys::generate());
    for url in urls {
        client.add_relay(url).await.unwrap();
    }
    client.connect().await;
    assert_eq!(client.send_event(event).await.unwrap().success.len(), urls.len());
    client.shutdown().await;
}

fn tags<const N: usize>(tags: [&[&str]; N]) -> Vec<Tag> {
    tags.into_iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap()).collect()
}

/// The pair as Budabit sends it.
fn pair(author: &Keys, pool: &PublicKey) -> (Event, Event) {
    pair_with(author, pool, &[])
}

/// A pair with more tags in its job.
fn pair_with(author: &Keys, pool: &PublicKey, more: &[&[&str]]) -> (Event, Event) {
    let publisher = Keys::generate();
    let key = publisher.secret_key().to_secret_hex();
    let sealed = nip44::encrypt(author.secret_key(), pool, key, nip44::Version::V2).unwrap();
    let run = EventBuilder::new(Kind::from(hive_ci::RUN), "")
        .tags(tags([
            &["a", &format!("30617:{}:repo", author.public_key())],
            &["workflow", ".github/workflows/ci.yml"],
            &["publisher", &publisher.public_key().to_hex()],
        ]))
        .sign_with_keys(author)
        .unwrap();
    let job = EventBuilder::new(Kind::from(hive_ci::JOB), "")
        .tags(tags([
            &["p", &pool.to_hex()],
            &["e", &run.id.to_hex()],
            &["cmd", "bash"],
            &["args", "-c", "curl -fsSL x -o /tmp/run-workflow.sh"],
            &["secret", "HIVE_CI_NSEC", &sealed],
        ]))
        .tags(more.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap()))
        .sign_with_keys(author)
        .unwrap();
    (run, job)
}

/// What intake handed in.
#[derive(Debug, PartialEq, Eq)]
enum Handed {
    Accepted(String),
    Refused(String, Audience),
    Cancelled(EventId, CancelRequest),
    Service(EventId),
}

/// Stores as `serve` does and tells the test.
struct TestHandler {
    store: Store,
    handed: mpsc::UnboundedSender<Handed>,
    live: Arc<Mutex<Vec<EventId>>>,
}

impl RequestHandler for TestHandler {
    fn accept(&self, request: RunRequest, _: Secrets, settle: Batch) -> BoxFuture<'_, anyhow::Result<Option<Refusal>>> {
        Box::pin(async move {
            self.store.commit(settle).await?;
            self.live.lock().push(EventId::from_hex(&request.id)?);
            self.handed.send(Handed::Accepted(request.id)).ok();
            Ok(None)
        })
    }

    fn secrets(&self, _: Event, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move { Ok(self.store.commit(settle).await?) })
    }

    fn service(&self, event: Event, _: String, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            self.store.commit(settle).await?;
            self.handed.send(Handed::Service(event.id)).ok();
            Ok(())
        })
    }

    fn refuse(&self, refusal: Refusal, audience: Audience, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            self.store.commit(settle).await?;
            self.handed.send(Handed::Refused(refusal.reason, audience)).ok();
            Ok(())
        })
    }

    fn cancel(&self, request: EventId, cancel: CancelRequest) -> BoxFuture<'_, anyhow::Result<bool>> {
        Box::pin(async move {
            let is_known = self.live.lock().contains(&request);
            if is_known {
                self.handed.send(Handed::Cancelled(request, cancel)).ok();
            }
            Ok(is_known)
        })
    }

    fn live(&self) -> BoxFuture<'_, anyhow::Result<Vec<EventId>>> {
        Box::pin(async { Ok(self.live.lock().clone()) })
    }
}

struct Heard {
    handed: mpsc::UnboundedReceiver<Handed>,
    counted: Counted,
    task: tokio::task::JoinHandle<()>,
}

impl Heard {
    fn start(pool: &Keys, config: Config, store: &Store) -> Self {
        let (sender, handed) = mpsc::unbounded_channel();
        let handler = TestHandler { store: store.clone(), handed: sender, live: Arc::default() };
        let relays = Relays::new(pool, &config.relays);
        let policy = Policy::new(&config).unwrap();
        let intake = IntakeConfig {
            keys: pool.clone(),
            config: Arc::new(config),
            store: store.clone(),
            relays,
            policy,
            protocols: PROTOCOLS,
            handler,
            clock: now,
        }
        .build();
        let counted = intake.counted();
        let task = tokio::spawn(async move { intake.run().await.unwrap() });
        Self { handed, counted, task }
    }

    async fn next(&mut self) -> Handed {
        soon("intake", self.handed.recv()).await.unwrap()
    }
}

/// A pool where everybody may run.
fn hearing(read: Vec<String>) -> Config {
    let relays = config::Relays { read, allow_private: true, ..config::Relays::default() };
    let policy = config::Policy { everyone: true, ..config::Policy::default() };
    Config { relays, policy, ..Config::default() }
}

/// A pool where these keys may run, and nobody else.
fn closed(read: Vec<String>, keys: &[&Keys]) -> Config {
    let pubkeys = keys.iter().map(|keys| keys.public_key().to_hex()).collect();
    Config { policy: config::Policy { pubkeys, ..config::Policy::default() }, ..hearing(read) }
}

#[tokio::test]
async fn t11_t12_a_pair_is_taken_once_in_either_order_from_every_relay_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let ((_a, a), (_b, b)) = (relay().await, relay().await);
    let both = [a.clone(), b.clone()];
    let (pool, author) = (Keys::generate(), Keys::generate());
    let us = pool.public_key();
    let mut heard = Heard::start(&pool, hearing(both.to_vec()), &store);

    let (run, job) = pair(&author, &us);
    publish(&both, &run).await;
    publish(&both, &job).await;
    assert_eq!(heard.next().await, Handed::Accepted(job.id.to_hex()));

    let (late_run, early_job) = pair(&author, &us);
    publish(&both, &early_job).await;
    // The job waits in the store before its run exists on any relay.
    soon("parking", async {
        while store.parked_for(&late_run.id.to_hex()).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    publish(&both, &late_run).await;
    assert_eq!(heard.next().await, Handed::Accepted(early_job.id.to_hex()), "and the first one not again");

    heard.task.abort();
    let mut heard = Heard::start(&pool, hearing(both.to_vec()), &store);
    let (run, job) = pair(&author, &us);
    publish(&both, &run).await;
    publish(&both, &job).await;
    assert_eq!(heard.next().await, Handed::Accepted(job.id.to_hex()), "relays gave the older ones again in vain");
    heard.task.abort();
}

#[tokio::test]
async fn two_jobs_of_one_run_that_is_on_a_relay_of_others_are_both_taken_in() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let ((_ours, ours), (_others, others)) = (relay().await, relay().await);
    let (pool, author) = (Keys::generate(), Keys::generate());
    let mut heard = Heard::start(&pool, hearing(vec![ours.clone()]), &store);
    let (run, first) = pair_with(&author, &pool.public_key(), &[&["env", "HIVE_CI_RELAYS", &others]]);
    let again = EventBuilder::new(Kind::from(hive_ci::JOB), "again").tags(first.tags.clone());
    let second = again.sign_with_keys(&author).unwrap();
    publish(&[others], &run).await;
    for job in [first, second] {
        publish(std::slice::from_ref(&ours), &job).await;
        assert_eq!(heard.next().await, Handed::Accepted(job.id.to_hex()));
    }
    heard.task.abort();
}

#[tokio::test]
async fn t29_t31_cancels_by_5102_and_by_deletion_are_heard() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let (_relay, url) = relay().await;
    let urls = [url];
    let (pool, author) = (Keys::generate(), Keys::generate());
    let mut heard = Heard::start(&pool, hearing(urls.to_vec()), &store);
    let (run, job) = pair(&author, &pool.public_key());
    publish(&urls, &run).await;
    publish(&urls, &job).await;
    assert_eq!(heard.next().await, Handed::Accepted(job.id.to_hex()));
    let (id, by) = (job.id.to_hex(), author.public_key());
    let cancel = EventBuilder::new(Kind::from(hive_ci::CANCEL), "")
        .tags(tags([&["e", &id], &["p", &pool.public_key().to_hex()]]))
        .sign_with_keys(&author)
        .unwrap();
    publish(&urls, &cancel).await;
    assert_eq!(heard.next().await, Handed::Cancelled(job.id, CancelRequest::Cancel(by)));
    let deletion =
        EventBuilder::new(Kind::EventDeletion, "").tags(tags([&["e", &id]])).sign_with_keys(&author).unwrap();
    publish(&urls, &deletion).await;
    assert_eq!(heard.next().await, Handed::Cancelled(job.id, CancelRequest::Deletion(by)));
    heard.task.abort();
}

#[tokio::test]
async fn t11_a_job_whose_run_never_comes_is_refused_and_beyond_the_rate_one_answer_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let (_relay, url) = relay().await;
    let urls = [url];
    let (pool, author) = (Keys::generate(), Keys::generate());
    let mut config = closed(urls.to_vec(), &[&author]);
    config.queue.pair = 1;
    config.limits.author_per_minute = 1;
    let mut heard = Heard::start(&pool, config, &store);
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let (_, job) = pair(&author, &pool.public_key());
        publish(&urls, &job).await;
        jobs.push(job);
    }
    let mut answers = [heard.next().await, heard.next().await];
    answers.sort_by_key(|answer| matches!(answer, Handed::Refused(_, Audience::OwnRelays)));
    let [Handed::Refused(lost, Audience::Everywhere), Handed::Refused(rate, Audience::OwnRelays)] = answers else {
        panic!("{answers:?}")
    };
    assert!(lost.contains("came to none of our relays"), "{lost}");
    assert!(rate.contains("more than 1 jobs in a minute"), "{rate}");
    soon("counting the third", async {
        for job in &jobs {
            while !store.seen(&job.id.to_hex()).await.unwrap() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    })
    .await;
    assert!(heard.handed.try_recv().is_err(), "the third is not answered");
    heard.task.abort();
}

#[tokio::test]
async fn a_request_that_was_answered_is_never_run_again_by_a_new_or_restored_database() {
    let (_relay, url) = relay().await;
    let urls = [url];
    let (pool, author) = (Keys::generate(), Keys::generate());
    let us = pool.public_key();
    let ended = |job: &Event, status: &str| {
        let id = job.id.to_hex();
        let tags = tags([&["d", &id], &["e", &id], &["p", &author.public_key().to_hex()], &["status", status]]);
        EventBuilder::new(Kind::from(hive_ci::STATUS), "").tags(tags).sign_with_keys(&pool).unwrap()
    };
    let (run, answered) = pair(&author, &us);
    let (lost_run, lost) = pair(&author, &us);
    let stranger = Keys::generate();
    let forged = EventBuilder::new(Kind::from(hive_ci::RESULT), "")
        .tags(tags([&["e", &lost.id.to_hex()]]))
        .sign_with_keys(&stranger)
        .unwrap();
    for event in [&run, &answered, &ended(&answered, "completed"), &lost_run, &lost, &ended(&lost, "running"), &forged]
    {
        publish(&urls, event).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let mut heard = Heard::start(&pool, hearing(urls.to_vec()), &store);
    // A database that lost everything: what has no final answer is taken in, what has one is not.
    assert_eq!(heard.next().await, Handed::Accepted(lost.id.to_hex()));
    soon("the answered one", async {
        while !store.seen(&answered.id.to_hex()).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(heard.handed.try_recv().is_err(), "the answered one is not handed in");
    heard.task.abort();
}

#[tokio::test]
async fn a_request_from_history_waits_while_no_relay_of_ours_can_say_whether_it_was_answered() {
    let (_relay, url) = relay().await;
    let (pool, author) = (Keys::generate(), Keys::generate());
    let jobs = [pair(&author, &pool.public_key()).1.id];
    let ours =
        |write: &str| config::Relays { write: vec![write.into()], allow_private: true, ..config::Relays::default() };
    let ask = async |config: config::Relays| {
        let relays = Relays::new(&pool, &config);
        let (relays, config, us, wait) = (&relays, &config, pool.public_key(), Duration::from_millis(500));
        let history = AnswerHistory { relays, config, protocols: PROTOCOLS, us, wait };
        (history.answered(&jobs).await, history.answered_since(0).await)
    };
    let (of_jobs, since) = ask(ours("ws://127.0.0.1:1")).await;
    assert!(of_jobs.is_err() && since.is_err());
    let (of_jobs, since) = ask(ours(&url)).await;
    assert!(of_jobs.unwrap().is_empty() && since.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn a_relay_that_asks_who_we_are_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let nip42 = RelayBuilderNip42 { mode: RelayBuilderNip42Mode::Both };
    let (_relay, url) = started(RelayBuilder::default().nip42(nip42)).await;
    let urls = [url];
    let (pool, author) = (Keys::generate(), Keys::generate());
    let mut heard = Heard::start(&pool, hearing(urls.to_vec()), &store);
    let (run, job) = pair(&author, &pool.public_key());
    publish(&urls, &run).await;
    publish(&urls, &job).await;
    assert_eq!(heard.next().await, Handed::Accepted(job.id.to_hex()));
    heard.task.abort();

    let config = config::Relays { write: urls.to_vec(), allow_private: true, ..config::Relays::default() };
    let relays = Relays::new(&pool, &config);
    assert_eq!(relays.send(&urls[0], &job).await, Answer::Taken, "it has the event from before");
}

/// A relay that allows as few subscriptions of one connection as public ones do.
async fn narrow_relay() -> (LocalRelay, String) {
    started(RelayBuilder::default().rate_limit(RateLimit { max_reqs: 20, notes_per_minute: u32::MAX })).await
}

#[tokio::test]
async fn of_a_thousand_requests_at_once_none_waits_for_a_subscription_that_the_relay_closed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let (_relay, url) = narrow_relay().await;
    let (pool, author) = (Keys::generate(), Keys::generate());
    let mut config = hearing(vec![url.clone()]);
    config.limits.author_per_minute = u32::MAX;
    let mut heard = Heard::start(&pool, config, &store);
    let sender = Relays::new(&author, &config::Relays { allow_private: true, ..config::Relays::default() });
    let lease = sender.lease(&url).unwrap();
    let send = async |events: Vec<Event>| {
        let sent = events.into_iter().map(|event| lease.send(Arc::new(event)));
        assert!(futures::future::join_all(sent).await.iter().all(|answer| *answer == Answer::Taken));
    };
    let (mut runs, mut jobs) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        let (run, job) = pair_with(&author, &pool.public_key(), &[&["env", "HIVE_CI_RELAYS", &url]]);
        runs.push(run);
        jobs.push(job);
    }
    send(runs).await;
    let begun = std::time::Instant::now();
    send(jobs).await;
    for _ in 0..1000 {
        assert!(matches!(heard.next().await, Handed::Accepted(_)));
    }
    assert!(begun.elapsed() < ASKED_AGAIN, "{:?}", begun.elapsed());
    heard.task.abort();
}

#[tokio::test]
async fn a_thousand_different_questions_are_answered_within_a_relays_limits() {
    let (_relay, url) = narrow_relay().await;
    let relays = Relays::new(&Keys::generate(), &config::Relays { allow_private: true, ..config::Relays::default() });
    let keys: Vec<Keys> = (0..1000).map(|_| Keys::generate()).collect();
    let list = EventBuilder::new(Kind::RelayList, "").sign_with_keys(&keys[7]).unwrap();
    publish(std::slice::from_ref(&url), &list).await;
    let asked = keys.iter().enumerate().map(|(number, keys)| {
        // Half of them can be united with others, half can't.
        let filter = nostr::Filter::new().author(keys.public_key());
        let filter = if number % 2 == 1 { filter.kind(Kind::RelayList) } else { filter.limit(number + 1) };
        let (relays, url) = (relays.clone(), url.clone());
        async move { relays.fetch_from(&url, &filter, ASKED_AGAIN).await }
    });
    let answers = futures::future::join_all(asked).await;
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), if number == 7 { vec![list.clone()] } else { Vec::new() }, "question {number}");
    }
}

#[tokio::test]
async fn a_relay_that_is_lost_and_back_is_known_as_such_and_hears_us_again() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("ws://{free}");
    let config = config::Relays { read: vec![url.clone()], ..config::Relays::default() };
    let relays = Relays::new(&Keys::generate(), &config);
    let lease = relays.lease(&url).unwrap();
    lease.connected(Duration::from_millis(100)).await.unwrap_err();
    let [state] = &relays.states()[..] else { panic!("{:?}", relays.states()) };
    assert!(!state.connected && state.error.as_ref().unwrap().contains("refused"), "{state:?}");
    let (relay, _) = started(RelayBuilder::default().port(free.port())).await;
    lease.connected(LIMIT).await.unwrap();
    let [state] = &relays.states()[..] else { panic!("{:?}", relays.states()) };
    assert!(state.connected && state.error.is_none(), "{state:?}");
    let filter = nostr::Filter::new().kind(Kind::RelayList);
    assert_eq!(lease.fetch(filter.clone(), LIMIT).await.unwrap(), []);
    soon("the loss", async {
        while relays.states()[0].connected {
            // The relay tells only those of its tasks that are waiting at this moment.
            relay.shutdown();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(relays.states()[0].error.is_some());
}
