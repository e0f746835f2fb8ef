//! Deliveries to a real HTTP server, which takes them, refuses them, hangs, or is where none may lead.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use store::{NewWebhookDelivery, Store, WebhookDelivery};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::*;

const LIMIT: Duration = Duration::from_secs(120);
const SECRET: &str = "0123456789abcdef";

/// What a place does with a request.
#[derive(Clone)]
enum Does {
    Answer(u16),
    Redirect(String),
    Hang,
}

type Request = (HashMap<String, String>, Vec<u8>);

/// A server that keeps what it gets, and does what it is told; when that is done, it takes everything.
#[derive(Clone)]
struct Place {
    url: String,
    got: Arc<parking_lot::Mutex<Vec<Request>>>,
    does: Arc<parking_lot::Mutex<VecDeque<Does>>>,
}

impl Place {
    async fn start(does: &[Does]) -> Self {
        // Another test of this process may have set it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let does = Arc::new(parking_lot::Mutex::new(does.iter().cloned().collect()));
        let place = Self { url, got: Arc::default(), does };
        let serving = place.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        place
    }

    async fn serve(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) => drop(headers.insert(name.to_ascii_lowercase(), value.to_owned())),
                None if line.trim_end().is_empty() => break,
                None => {}
            }
        }
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        self.got.lock().push((headers, body));
        let next = self.does.lock().pop_front();
        let head = match next {
            None => "204 -".to_owned(),
            Some(Does::Answer(status)) => format!("{status} -"),
            Some(Does::Redirect(to)) => format!("307 -\r\nlocation: {to}"),
            Some(Does::Hang) => std::future::pending().await,
        };
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    fn got(&self) -> Vec<Request> {
        self.got.lock().clone()
    }

    fn webhook(&self, allow_private: bool) -> Webhook {
        Webhook { url: self.url.clone(), secret: SECRET.into(), events: Vec::new(), allow_private }
    }

    fn delivery(&self, id: &str, made_at: Millis) -> store::Change {
        let new = NewWebhookDelivery {
            id: id.into(),
            url: self.url.clone(),
            event: "run.completed".into(),
            run: "r".into(),
            body: format!(r#"{{"delivery":"{id}","event":"run.completed"}}"#),
            made_at,
        };
        WebhookDeliveryChange::Add(new).into()
    }
}

fn now() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

async fn store(folder: &Path) -> Store {
    Store::open(&folder.join("store.db")).await.unwrap()
}

/// A coordinator's loop of work that ends with its guard.
fn work(store: &Store, webhooks: Vec<Webhook>) -> tokio_util::sync::DropGuard {
    let stop = CancellationToken::new();
    let handlers: Vec<Arc<dyn WorkHandler>> = vec![Arc::new(Config { webhooks, clock: now }.build())];
    let work = work::Config { store: store.clone(), coordinator: "c".into(), clock: now, handlers };
    tokio::spawn(work.build().run(stop.clone()));
    stop.drop_guard()
}

/// Waits until something is so.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = tokio::time::timeout(LIMIT, async {
        loop {
            match look().await {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
}

async fn comes_to(store: &Store, id: &str, so: impl Fn(&WebhookDelivery) -> bool) -> WebhookDelivery {
    let look = async || {
        let all = store.webhook_deliveries(50).await.unwrap();
        all.into_iter().find(|one| one.id == id && so(one))
    };
    until(id, look).await
}

#[tokio::test]
async fn a_delivery_is_signed_and_comes_again_as_the_same_one_until_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = Place::start(&[]).await;
    let place = Place::start(&[Does::Answer(500), Does::Redirect(elsewhere.url.clone())]).await;
    let store = store(folder.path()).await;
    let _working = work(&store, vec![place.webhook(true)]);
    store.commit(vec![place.delivery("d1", now())]).await.unwrap();
    let done = comes_to(&store, "d1", |one| one.state == DeliveryState::Delivered).await;
    assert_eq!((done.tries, done.answer.as_str(), done.due), (3, "204 No Content", None));
    // The same thing told again is the same delivery.
    store.commit(vec![place.delivery("d1", now()), place.delivery("d2", now())]).await.unwrap();
    comes_to(&store, "d2", |one| one.state == DeliveryState::Delivered).await;
    let got = place.got();
    assert_eq!(got.len(), 4);
    for (headers, body) in &got[..3] {
        assert_eq!(
            (headers["longshore-event"].as_str(), headers["longshore-delivery"].as_str()),
            ("run.completed", "d1")
        );
        assert_eq!(headers["content-type"], "application/json");
        let signature = hex::decode(headers["longshore-signature"].strip_prefix("sha256=").unwrap()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        hmac::verify(&key, body, &signature).unwrap();
    }
    assert!(elsewhere.got().is_empty(), "a redirect is not followed");
}

#[tokio::test]
async fn attack_60_a_webhook_into_the_operators_network_is_not_told_unless_the_operator_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::start(&[]).await;
    let store = store(folder.path()).await;
    let _working = work(&store, vec![place.webhook(false)]);
    store.commit(vec![place.delivery("d1", now())]).await.unwrap();
    let tried = comes_to(&store, "d1", |one| !one.answer.is_empty()).await;
    assert_eq!(tried.state, DeliveryState::Pending);
    let said = &tried.answer;
    assert!(said.contains("is not a public address") && said.contains("allow_private"), "{said}");
    assert!(place.got().is_empty());
}

#[tokio::test]
async fn what_is_not_taken_for_a_day_or_goes_where_none_is_configured_is_given_up_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::start(&[Does::Answer(503)]).await;
    let removed = Place::start(&[]).await;
    let store = store(folder.path()).await;
    let yesterday = now() - 24 * 3_600_000;
    store.commit(vec![place.delivery("old", yesterday), removed.delivery("removed", now())]).await.unwrap();
    let _working = work(&store, vec![place.webhook(true)]);
    let old = comes_to(&store, "old", |one| one.state == DeliveryState::GivenUp).await;
    assert_eq!((old.tries, old.answer.as_str()), (1, "503 Service Unavailable"));
    let gone = comes_to(&store, "removed", |one| one.state == DeliveryState::GivenUp).await;
    assert_eq!(gone.answer, "its webhook is no longer configured");
    assert!(removed.got().is_empty());
    assert!(store.work_of(&"r".into()).await.unwrap().is_empty(), "nothing is left to do");
}

#[tokio::test]
async fn one_place_that_hangs_delays_no_other_and_an_end_in_the_midst_loses_no_delivery() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Place::start(&[Does::Hang]).await;
    let other = Place::start(&[]).await;
    let webhooks = vec![slow.webhook(true), other.webhook(true)];
    let first = store(folder.path()).await;
    let working = work(&first, webhooks.clone());
    first.commit(vec![slow.delivery("slow", now()), other.delivery("other", now())]).await.unwrap();
    until("the other is told", async || (other.got().len() == 1).then_some(())).await;
    until("the slow one is asked", async || (slow.got().len() == 1).then_some(())).await;
    drop((working, first));
    let second = store(folder.path()).await;
    let _working = work(&second, webhooks);
    comes_to(&second, "slow", |one| one.state == DeliveryState::Delivered).await;
    assert_eq!(slow.got().len(), 2);
}
