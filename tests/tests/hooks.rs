//! Webhooks: deliveries to a real HTTP server, which takes them, refuses them, hangs, or is where none may lead.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use std::{
    collections::VecDeque,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, response::IntoResponse, routing::post,
};
use config::Webhook;
use longshore_tests::harness::{
    pool::Pool,
    world::{Relay, World},
};
use parking_lot::Mutex;
use ring::hmac;
use serde_json::Value;
use store::{Change, Delivery, DeliveryState, Hook, Store};
use webhooks::Sender;

const LIMIT: Duration = Duration::from_secs(120);
const SECRET: &str = "0123456789abcdef";
const FILE: &str = ".github/workflows/ci.yml";

/// What a server does with a request.
#[derive(Clone)]
enum Does {
    Answer(u16),
    Redirect(String),
    Hang,
}

/// A server that keeps what it gets, and does what it is told; when that is done, it takes everything.
#[derive(Clone)]
struct Place {
    url: String,
    got: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    does: Arc<Mutex<VecDeque<Does>>>,
}

impl Place {
    async fn start(does: &[Does]) -> Self {
        // Another test of this process may have set it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let place = Self { url, got: Arc::default(), does: Arc::new(Mutex::new(does.iter().cloned().collect())) };
        let router = Router::new().route("/hook", post(take)).with_state(place.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        place
    }

    fn got(&self) -> Vec<(HeaderMap, Bytes)> {
        self.got.lock().clone()
    }

    fn hook(&self, allow_private: bool) -> Webhook {
        Webhook { url: self.url.clone(), secret: SECRET.into(), events: Vec::new(), allow_private }
    }

    fn delivery(&self, id: &str, made_at: u64) -> Change {
        Change::Hook(Hook::Tell(Delivery {
            id: id.into(),
            url: self.url.clone(),
            event: "run.completed".into(),
            run: "r".into(),
            body: format!("{{\"delivery\":\"{id}\"}}"),
            made_at,
            due: made_at,
            tries: 0,
            state: DeliveryState::Pending,
            answer: String::new(),
        }))
    }
}

async fn take(State(place): State<Place>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    place.got.lock().push((headers, body));
    let next = place.does.lock().pop_front();
    match next {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(Does::Answer(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Does::Redirect(to)) => (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response(),
        Some(Does::Hang) => std::future::pending().await,
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

async fn store(folder: &Path) -> Store {
    Store::open(&folder.join("store.db")).await.unwrap()
}

fn send(store: &Store, hooks: &[Webhook]) -> tokio::task::JoinHandle<anyhow::Result<()>> {
    tokio::spawn(Sender::new(store.clone(), hooks, now).run())
}

/// Waits until something is so.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = tokio::time::timeout(LIMIT, async {
        loop {
            match look().await {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
}

async fn comes_to(store: &Store, id: &str, so: impl Fn(&Delivery) -> bool) -> Delivery {
    until(id, async || store.deliveries(50).await.unwrap().into_iter().find(|one| one.id == id && so(one))).await
}

#[tokio::test]
async fn a_delivery_is_signed_and_comes_again_as_the_same_one_until_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = Place::start(&[]).await;
    let place = Place::start(&[Does::Answer(500), Does::Redirect(elsewhere.url.clone())]).await;
    let store = store(folder.path()).await;
    let sending = send(&store, &[place.hook(true)]);
    store.commit(vec![place.delivery("d1", now())]).await.unwrap();
    // The same thing told again is the same delivery.
    store.commit(vec![place.delivery("d1", now())]).await.unwrap();
    let done = comes_to(&store, "d1", |one| one.state == DeliveryState::Delivered).await;
    assert_eq!((done.tries, done.answer.as_str()), (3, "204 No Content"));
    let got = place.got();
    assert_eq!(got.len(), 3);
    for (headers, body) in got {
        let text = |name: &str| headers[name].to_str().unwrap();
        assert_eq!((text("longshore-event"), text("longshore-delivery")), ("run.completed", "d1"));
        assert_eq!(text("content-type"), "application/json");
        let signature = hex::decode(text("longshore-signature").strip_prefix("sha256=").unwrap()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        hmac::verify(&key, &body, &signature).unwrap();
    }
    assert!(elsewhere.got().is_empty(), "a redirect is not followed");
    sending.abort();
}

#[tokio::test]
async fn attack_60_a_webhook_into_the_operators_network_is_not_told_unless_the_operator_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::start(&[]).await;
    let store = store(folder.path()).await;
    let sending = send(&store, &[place.hook(false)]);
    store.commit(vec![place.delivery("d1", now())]).await.unwrap();
    let tried = comes_to(&store, "d1", |one| one.tries > 0).await;
    assert_eq!(tried.state, DeliveryState::Pending);
    assert!(
        tried.answer.contains("is not a public address") && tried.answer.contains("allow_private"),
        "{}",
        tried.answer
    );
    assert!(place.got().is_empty());
    sending.abort();
}

#[tokio::test]
async fn what_is_not_taken_for_a_day_or_goes_where_none_is_configured_is_given_up_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::start(&[Does::Answer(503)]).await;
    let removed = Place::start(&[]).await;
    let store = store(folder.path()).await;
    let yesterday = now() - 24 * 3_600_000;
    store.commit(vec![place.delivery("old", yesterday), removed.delivery("removed", now())]).await.unwrap();
    let sending = send(&store, &[place.hook(true)]);
    let old = comes_to(&store, "old", |one| one.state == DeliveryState::GivenUp).await;
    assert_eq!((old.tries, old.answer.as_str()), (1, "503 Service Unavailable"));
    let gone = comes_to(&store, "removed", |one| one.state == DeliveryState::GivenUp).await;
    assert_eq!(gone.answer, "its webhook is no longer configured");
    assert!(removed.got().is_empty());
    sending.abort();
}

#[tokio::test]
async fn one_place_that_hangs_delays_no_other_and_an_end_in_the_midst_loses_no_delivery() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Place::start(&[Does::Hang]).await;
    let other = Place::start(&[]).await;
    let hooks = [slow.hook(true), other.hook(true)];
    let first = store(folder.path()).await;
    let sending = send(&first, &hooks);
    first.commit(vec![slow.delivery("slow", now()), other.delivery("other", now())]).await.unwrap();
    until("the other is told", async || (other.got().len() == 1).then_some(())).await;
    until("the slow one is asked", async || (slow.got().len() == 1).then_some(())).await;
    sending.abort();
    drop(first);
    let second = store(folder.path()).await;
    let sending = send(&second, &hooks);
    comes_to(&second, "slow", |one| one.state == DeliveryState::Delivered).await;
    assert_eq!(slow.got().len(), 2);
    sending.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_told_of_although_the_coordinator_is_killed_before_anybody_took_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::start(&vec![Does::Answer(500); 1000]).await;
    let relay = Relay::start(folder.path()).unwrap();
    let workflow = "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo hi\n";
    let world = World::new(&relay.url, &[(FILE, workflow)]).await.unwrap();
    let hooks = format!("[{{ url = \"{}\", secret = \"{SECRET}\", allow_private = true }}]", place.url);
    let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url)).unwrap();
    let pool = pool.with("LONGSHORE_WEBHOOKS", &hooks);
    let coordinator = pool.coordinator().unwrap();
    let (_, job) = world.send(&world.press(pool.pubkey, FILE)).await.unwrap();
    until("the first try", async || (!place.got().is_empty()).then_some(())).await;
    coordinator.kill().unwrap();
    let before = place.got().len();
    place.does.lock().clear();
    let _coordinator = pool.coordinator().unwrap();
    until("a further try", async || (place.got().len() > before).then_some(())).await;
    let told: Vec<Value> = place.got().iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect();
    assert!(told.iter().all(|one| one["delivery"] == told[0]["delivery"]), "{told:?}");
    let run = &told[0]["run"];
    assert_eq!((&told[0]["event"], run["request"].as_str()), (&"run.queued".into(), Some(job.id.to_hex().as_str())));
    let url = run["url"].as_str().unwrap();
    assert_eq!(reqwest::get(url).await.unwrap().status(), 200, "{url}");
}
