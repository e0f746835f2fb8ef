//! Webhooks of a coordinator that is killed: what nobody took is told again by its next life.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use longshore_tests::harness::{
    pool::Pool,
    world::{Relay, World},
};
use parking_lot::Mutex;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);
const FILE: &str = ".github/workflows/ci.yml";

/// A server that keeps what it gets, and refuses it until it is ready.
#[derive(Clone)]
struct Place {
    url: String,
    got: Arc<Mutex<Vec<Bytes>>>,
    ready: Arc<AtomicBool>,
}

impl Place {
    async fn start() -> Self {
        // Another test of this process may have set it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let place = Self { url, got: Arc::default(), ready: Arc::default() };
        let router = Router::new().route("/hook", post(take)).with_state(place.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        place
    }

    fn got(&self) -> Vec<Bytes> {
        self.got.lock().clone()
    }
}

async fn take(State(place): State<Place>, body: Bytes) -> StatusCode {
    place.got.lock().push(body);
    if place.ready.load(Ordering::Relaxed) { StatusCode::NO_CONTENT } else { StatusCode::INTERNAL_SERVER_ERROR }
}

/// Waits until something is so.
async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !look() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_told_of_although_the_coordinator_is_killed_before_anybody_took_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::start().await;
    let relay = Relay::start(folder.path()).unwrap();
    let workflow = "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo hi\n";
    let world = World::new(&relay.url, &[(FILE, workflow)]).await.unwrap();
    let hooks = format!("[{{ url = \"{}\", secret = \"0123456789abcdef\", allow_private = true }}]", place.url);
    let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url)).unwrap();
    let pool = pool.with("LONGSHORE_WEBHOOKS", &hooks);
    let coordinator = pool.coordinator().unwrap();
    let (_, job) = world.send(&world.press(pool.pubkey, FILE)).await.unwrap();
    until("the first try", || !place.got().is_empty()).await;
    coordinator.kill().unwrap();
    let before = place.got().len();
    place.ready.store(true, Ordering::Relaxed);
    let _coordinator = pool.coordinator().unwrap();
    until("a further try", || place.got().len() > before).await;
    let told: Vec<Value> = place.got().iter().map(|body| serde_json::from_slice(body).unwrap()).collect();
    assert!(told.iter().all(|one| one["delivery"] == told[0]["delivery"]), "{told:?}");
    let run = &told[0]["run"];
    assert_eq!((&told[0]["event"], run["request"].as_str()), (&"run.queued".into(), Some(job.id.to_hex().as_str())));
    let url = run["url"].as_str().unwrap();
    assert_eq!(reqwest::get(url).await.unwrap().status(), 200, "{url}");
}
