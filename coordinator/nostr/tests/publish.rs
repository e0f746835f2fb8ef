//! The publisher against real relays over websockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use domain::id::RunId;
use domain::run::{FinalizedLog, Millis, NostrOrigin, OriginEvent, RunEnd, RunUpdate};
use futures::future::BoxFuture;
use nostr::{Event, JsonUtil, Keys, util::BoxedFuture};
use nostr_client::{
    outbox::outgoing,
    protocol::{Draft, Protocol, hive_ci::HiveCi},
    publish::{Publisher, PublisherKeys},
    relays::Relays,
};
use nostr_relay_builder::{
    LocalRelay, RelayBuilder,
    builder::{PolicyResult, RateLimit, WritePolicy},
};
use store::{Change, Outgoing, RelayClass, Signer, Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);

fn now() -> Millis {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} took longer than {LIMIT:?}"))
}

/// Passes on what a relay was given, in order, and refuses while it is told to.
#[derive(Debug, Clone)]
struct Arrivals {
    arrived: mpsc::UnboundedSender<Event>,
    refuse: Arc<AtomicBool>,
}

impl WritePolicy for Arrivals {
    fn admit_event<'a>(&'a self, event: &'a Event, _: &'a SocketAddr) -> BoxedFuture<'a, PolicyResult> {
        Box::pin(async {
            if self.refuse.load(Ordering::SeqCst) {
                return PolicyResult::Reject("not now".into());
            }
            self.arrived.send(event.clone()).ok();
            PolicyResult::Accept
        })
    }
}

struct TestRelay {
    relay: LocalRelay,
    url: String,
    arrivals: mpsc::UnboundedReceiver<Event>,
    refuse: Arc<AtomicBool>,
}

impl TestRelay {
    async fn start(builder: RelayBuilder) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let refuse = Arc::new(AtomicBool::new(false));
        let builder = builder.rate_limit(RateLimit { max_reqs: 20, notes_per_minute: u32::MAX });
        let relay = LocalRelay::new(builder.write_policy(Arrivals { arrived, refuse: refuse.clone() }));
        relay.run().await.unwrap();
        let url = relay.url().await.to_string().trim_end_matches('/').to_owned();
        Self { relay, url, arrivals, refuse }
    }

    async fn next(&mut self) -> Event {
        soon("an event at the relay", self.arrivals.recv()).await.unwrap()
    }

    async fn take(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.next().await.id.to_hex());
        }
        ids
    }
}

struct Pool {
    _folder: tempfile::TempDir,
    store: Store,
    keys: Keys,
    publisher: Keys,
}

impl Pool {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db")).await.unwrap();
        Self { _folder: folder, store, keys: Keys::generate(), publisher: Keys::generate() }
    }

    async fn commit(&self, drafts: &[Draft], relays: &[(String, RelayClass)]) -> Vec<String> {
        for draft in drafts {
            let batch = outgoing(draft, &self.keys, relays, Some(&"run".into()), now()).unwrap();
            self.store.commit(batch).await.unwrap();
        }
        drafts.iter().map(|draft| draft.event.clone().id().to_hex()).collect()
    }

    /// Sends until the token is cancelled.
    fn start(&self) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let config = config::Relays { allow_private: true, ..config::Relays::default() };
        let relays = Relays::new(&self.keys, &config);
        let publisher = |class| Arc::new(Publisher::new(self.store.clone(), relays.clone(), class, now));
        let work = work::Config {
            store: self.store.clone(),
            coordinator: "test".into(),
            clock: now,
            handlers: vec![publisher(RelayClass::Own), publisher(RelayClass::Other)],
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        (stop, tokio::spawn(async move { work.build().run(stopped).await.unwrap() }))
    }

    async fn all_done(&self) {
        soon("the last delivery", async {
            while !self.store.work_of(&"run".into()).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    async fn answers(&self) -> Vec<(String, String)> {
        let events = self.store.outbox_of(&"run".into()).await.unwrap();
        events.into_iter().flat_map(|event| event.answers).collect()
    }
}

fn own(relay: &TestRelay) -> (String, RelayClass) {
    (relay.url.clone(), RelayClass::Own)
}

#[tokio::test]
async fn t33_a_relay_that_comes_back_gets_the_same_events_in_order_and_delays_no_other() {
    let pool = Pool::new().await;
    let mut up = TestRelay::start(RelayBuilder::default()).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let relays = [own(&up), (format!("ws://{free}"), RelayClass::Own)];
    let ids = pool.commit(&events_of_a_run(&pool.keys, &pool.publisher), &relays).await;
    let (stop, sender) = pool.start();
    assert_eq!(up.take(ids.len()).await, ids, "the other relay is still down");
    stop.cancel();
    sender.await.unwrap();
    // The restarted coordinator sends what was signed, to the relay that did not have it.
    let mut late = TestRelay::start(RelayBuilder::default().port(free.port())).await;
    let (stop, sender) = pool.start();
    assert_eq!(late.take(ids.len()).await, ids);
    pool.all_done().await;
    stop.cancel();
    sender.await.unwrap();
}

#[tokio::test]
async fn events_that_two_relays_take_at_one_moment_are_done() {
    let pool = Pool::new().await;
    let (mut one, mut two) =
        (TestRelay::start(RelayBuilder::default()).await, TestRelay::start(RelayBuilder::default()).await);
    let drafts: Vec<Draft> = (0..20).flat_map(|_| events_of_a_run(&pool.keys, &Keys::generate())).collect();
    let (stop, sender) = pool.start();
    let ids = pool.commit(&drafts, &[own(&one), own(&two)]).await;
    let (first, second) = (one.take(ids.len()).await, two.take(ids.len()).await);
    assert_eq!(first, ids);
    assert_eq!(second, ids);
    pool.all_done().await;
    assert_eq!(pool.answers().await.len(), ids.len() * 2);
    stop.cancel();
    sender.await.unwrap();
}

#[tokio::test]
async fn what_a_relay_refused_is_final_once_another_of_ours_has_it_and_holds_up_nothing_before() {
    let pool = Pool::new().await;
    let (mut taking, refusing) =
        (TestRelay::start(RelayBuilder::default()).await, TestRelay::start(RelayBuilder::default()).await);
    refusing.refuse.store(true, Ordering::SeqCst);
    let drafts = events_of_a_run(&pool.keys, &pool.publisher);
    let alone = pool.commit(&drafts[..1], &[own(&refusing)]).await;
    let (stop, sender) = pool.start();
    // Nobody has it: it waits in a lane of its own, and later events are sent meanwhile.
    soon("the refusal", async {
        while !pool.store.work_of(&"run".into()).await.unwrap().iter().any(|row| row.due > row.made_at + 10_000) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let both = pool.commit(&drafts[1..2], &[own(&taking)]).await;
    assert_eq!(taking.take(1).await, both);
    soon("the delivery", async {
        while pool.answers().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(pool.answers().await, [(taking.url.clone(), String::new())]);
    let left = pool.store.work_of(&"run".into()).await.unwrap();
    assert!(left.len() == 1 && left[0].id.contains(&alone[0]), "{left:?}");
    stop.cancel();
    sender.await.unwrap();
    drop(refusing.relay);
}

/// Fails once, then holds the key of one run.
struct KeyAfterFailure {
    key: Keys,
    failed: AtomicBool,
}

impl PublisherKeys for KeyAfterFailure {
    fn publisher<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, anyhow::Result<Option<Keys>>> {
        Box::pin(async move {
            anyhow::ensure!(self.failed.swap(true, Ordering::SeqCst), "the store is busy");
            Ok((*run == "run").then(|| self.key.clone()))
        })
    }
}

#[tokio::test]
async fn no_event_of_an_earlier_version_is_given_up_for_a_passing_error() {
    let pool = Pool::new().await;
    let mut relay = TestRelay::start(RelayBuilder::default()).await;
    let drafts = events_of_a_run(&pool.keys, &pool.publisher);
    for draft in &drafts {
        let row = Outgoing {
            event: draft.event.clone().id().to_hex(),
            sequence: 0,
            unsigned: draft.event.as_json(),
            signature: None,
            signer: draft.signer.clone(),
            relays: vec![own(&relay)],
            run: Some("run".into()),
            made_at: now(),
        };
        pool.store.commit(vec![Change::Outbox(row)]).await.unwrap();
    }
    let keys = KeyAfterFailure { key: pool.publisher.clone(), failed: AtomicBool::new(false) };
    let config = config::Relays { allow_private: true, ..config::Relays::default() };
    let publisher = || Publisher::new(pool.store.clone(), Relays::new(&pool.keys, &config), RelayClass::Own, now);
    publisher().adopt_unsent(&pool.keys, &keys).await.unwrap_err();
    publisher().adopt_unsent(&pool.keys, &keys).await.unwrap();
    let (stop, sender) = pool.start();
    let ids: Vec<String> = drafts.iter().map(|draft| draft.event.clone().id().to_hex()).collect();
    assert_eq!(relay.take(ids.len()).await, ids);
    pool.all_done().await;
    publisher().adopt_unsent(&pool.keys, &keys).await.unwrap();
    assert!(
        pool.store.work_of(&"run".into()).await.unwrap().is_empty(),
        "what was sent is not sent again after a restart"
    );
    stop.cancel();
    sender.await.unwrap();
}

/// All events of one run, in their order; the result is signed by the run's publisher.
fn events_of_a_run(pool: &Keys, publisher: &Keys) -> Vec<Draft> {
    let origin = NostrOrigin {
        protocol: HiveCi.name().into(),
        request: OriginEvent { kind: 5100, id: publisher.public_key().to_hex() },
        run: Some(OriginEvent { kind: 5401, id: "ab".repeat(32) }),
        author: "ef".repeat(32),
        publisher: Some(publisher.public_key().to_hex()),
        relays: Vec::new(),
        details: serde_json::json!({"workflow": ".github/workflows/ci.yml"}),
    };
    let stamp = now() / 1000;
    let end = RunEnd { conclusion: workflow::plan::Conclusion::Success, reason: None, exit_code: 0, at: now() };
    let (log, definitions) = (FinalizedLog::default(), Vec::new());
    let finished = RunUpdate::Finished { stamp: stamp + 2, end, log, duration_s: 1, definitions };
    let updates = [RunUpdate::Queued { stamp }, RunUpdate::Running { stamp: stamp + 1 }, finished];
    let reports = updates.iter().flat_map(|update| HiveCi.report(&"run".into(), &origin, update, &pool.public_key()));
    let mut drafts: Vec<Draft> = reports.collect();
    for draft in drafts.iter_mut().filter(|draft| matches!(draft.signer, Signer::Publisher { .. })) {
        draft.sign(publisher).unwrap();
    }
    drafts
}
