//! Pages, API, live log and Blossom endpoint over real connections.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

#[path = "web/api.rs"]
mod api;
#[path = "web/approve.rs"]
mod approve;
#[path = "web/artifacts.rs"]
mod artifacts;
#[path = "web/blossom.rs"]
mod blossom;
#[path = "web/connections.rs"]
mod connections_of_clients;
#[path = "web/control.rs"]
mod control;
#[path = "web/definitions.rs"]
mod definitions;
#[path = "web/settings.rs"]
mod settings;
#[path = "web/tokens.rs"]
mod tokens;
#[path = "web/whole.rs"]
mod whole;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use blobs::Blobs;
use bytes::Bytes;
use connections::{
    client_address::TrustedProxies,
    listener::LimitedListener,
    shares::{Limits, Shares},
};
use domain::run::{RunDocument, RunState};
use futures::StreamExt;
use logs::{Logs, record};
use nostr::{EventBuilder, JsonUtil, Keys, Kind, Tag, Timestamp};
use proto::worker::LogRecord;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use store::{Change, Store, StoredReport, WorkerRow};
use tokio_util::sync::CancellationToken;
use web::{Config, Settings};

use control::Asked;

const NOW: u64 = 1_800_000_000_000;
/// How long a connection may be idle.
const IDLE: std::time::Duration = std::time::Duration::from_secs(1);

/// What the pages show.
struct Stored {
    store: Store,
    logs: Logs,
    blobs: Blobs,
}

struct Server {
    url: String,
    http: reqwest::Client,
    web: Stored,
    asked: Arc<Asked>,
    operator: Keys,
    writer: Keys,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        Self::start_behind(&[]).await
    }

    /// With permits for 6 connections, 4 of one address, which may be idle for a second; and for 3 streams, 2 of one
    /// client. The proxies' word counts.
    async fn start_behind(proxies: &[&str]) -> Self {
        // Another test of this process may have set it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.sqlite")).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (operator, writer) = (Keys::generate(), Keys::generate());
        let asked = Arc::new(Asked::default());
        let settings = Settings {
            name: "test pool".into(),
            public_url: url.parse().unwrap(),
            pubkey: operator.public_key().to_hex(),
            relays: vec!["wss://relay.example".into()],
            openness: Some("this pool is open: set it right".into()),
            operators: vec![operator.public_key().to_hex()],
            writers: vec![writer.public_key().to_hex()],
            link_key: [7; 32],
            idle: IDLE,
            streams: 3,
            streams_per_address: 2,
            well_known: [("jwks".to_owned(), json!({"keys": []}))].into(),
            max_blob: 1000,
            max_total: 20_480,
            keep: 1000,
            now: || NOW,
        };
        let logs = Logs::new(folder.path().join("logs"));
        let blobs = Blobs::open(&folder.path().join("blobs"), store.clone()).unwrap();
        let stored = Stored { store: store.clone(), logs: logs.clone(), blobs: blobs.clone() };
        let web = Config { store, logs, blobs, control: asked.clone(), metrics: asked.clone(), settings }.build();
        let proxies = TrustedProxies::new(proxies.iter().map(|network| network.parse().unwrap()).collect());
        let shares = Shares::new(Limits { all: 6, each: 4 });
        let listener = LimitedListener::new(listener, shares, 4, proxies, web::REFUSALS);
        tokio::spawn(web::serve(listener, web, CancellationToken::new()));
        Self { url, http: reqwest::Client::new(), web: stored, asked, operator, writer, _folder: folder }
    }

    async fn call(&self, method: Method, path: &str, signer: Option<&Keys>) -> Response {
        let url = format!("{}{path}", self.url);
        let mut request = self.http.request(method.clone(), &url);
        if let Some(keys) = signer {
            let tags = [("u", url.as_str()), ("method", method.as_str())];
            request = request.header("authorization", authorization(keys, 27235, &tags, NOW / 1000));
        }
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.call(Method::GET, path, None).await
    }

    async fn put(&self, body: &'static [u8], token: Option<String>) -> Response {
        let mut request = self.http.put(format!("{}/upload", self.url)).body(body);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        request.send().await.unwrap()
    }

    async fn commit(&self, changes: Vec<Change>) {
        self.web.store.commit(changes).await.unwrap();
    }
}

/// An event like no other: the same signature would be taken once.
fn signed(keys: &Keys, kind: u16, tags: &[(&str, &str)], at: u64) -> String {
    static NONCE: AtomicU64 = AtomicU64::new(0);
    let nonce = NONCE.fetch_add(1, Ordering::Relaxed).to_string();
    let tags = tags.iter().copied().chain([("nonce", nonce.as_str())]);
    let tags = tags.map(|(name, value)| Tag::parse([name, value]).unwrap());
    let event = EventBuilder::new(Kind::Custom(kind), "").tags(tags).custom_created_at(Timestamp::from(at));
    event.sign_with_keys(keys).unwrap().as_json()
}

fn authorization(keys: &Keys, kind: u16, tags: &[(&str, &str)], at: u64) -> String {
    format!("Nostr {}", STANDARD.encode(signed(keys, kind, tags, at)))
}

fn token(keys: &Keys, verb: &str, hash: &str) -> String {
    let expiration = (NOW / 1000 + 60).to_string();
    let tags = [("t", verb), ("x", hash), ("server", "127.0.0.1"), ("expiration", &expiration)];
    authorization(keys, 24242, &tags, NOW / 1000)
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn run(id: &str, serial: u64, author: &Keys, visibility: &Value) -> RunState {
    let author = author.public_key().to_hex();
    let document = json!({
        "id": id, "version": 0, "serial": serial, "number": 1, "attempt": 1, "previous": null,
        "request": {
            "id": format!("job-{id}"),
            "origin": {"kind": "hive_ci", "run_event": format!("run-{id}"), "job_event": format!("job-{id}"),
                "author": author, "publisher": null, "workflow": "<script>alert(1)</script>", "relays": []},
            "repository": {"address": "30617:o:r", "owner": "o", "identifier": "r", "relays": []},
            "workflow": "<script>alert(1)</script>", "commit": "", "branch": "main", "reference": null,
            "trigger": null, "actor": author, "env": {}, "notices": [], "inputs": null, "received_at": 1,
        },
        "planned": null, "phase": {"phase": "active"}, "jobs": {}, "cancelled": null, "visibility": visibility,
        "expires_at": NOW, "created_at": NOW, "started_at": null, "stamped_at": 0, "expired_at": null, "message": null,
        "secrets": false,
        "rules": {"max_duration_ms": 0, "retry_started": "harmless", "maintainers_read": false},
    });
    RunDocument::read(document).unwrap().state
}

fn public(id: &str, serial: u64, author: &Keys) -> Change {
    Change::Run(store::RunChange::whole(run(id, serial, author, &json!("public"))))
}

fn ended(mut state: RunState) -> Change {
    state.version += 1;
    state.phase = serde_json::from_value(json!({
        "phase": "done", "log": {"url": "", "sha256": "", "full_url": ""},
        "end": {"conclusion": "success", "reason": null, "exit_code": 0, "at": NOW},
    }))
    .unwrap();
    Change::Run(store::RunChange::whole(state))
}

fn line(text: &str) -> Bytes {
    let record = LogRecord { time_ms: NOW, step: 0, stream: 1, text: text.as_bytes().to_vec().into(), mark: None };
    record::encode(&[record]).into()
}

/// Server-sent events as (event, id, data), until the stream ends or enough were read.
async fn events(response: Response, most: usize) -> Vec<(String, String, Value)> {
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.bytes_stream();
    let (mut text, mut found) = (String::new(), Vec::new());
    while found.len() < most {
        let Some(part) = stream.next().await else { break };
        text.push_str(std::str::from_utf8(&part.unwrap()).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            let field = |name: &str| {
                event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
            };
            // A comment says only that the stream is alive.
            if !event.starts_with(':') {
                found.push((field("event:"), field("id:"), serde_json::from_str(&field("data:")).unwrap()));
            }
            text = rest.to_owned();
        }
    }
    found
}

#[tokio::test]
async fn t46_markup_in_a_run_and_its_log_is_inert_on_the_pages() {
    let server = Server::start().await;
    server.commit(vec![public("a", 1, &Keys::generate())]).await;
    for path in ["/", "/runs/a"] {
        let page = server.get(path).await;
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
        assert_eq!(page.headers()["x-content-type-options"], "nosniff");
        let text = page.text().await.unwrap();
        assert!(!text.contains("<script>alert"), "{text}");
        assert!(text.contains("&#60;script&#62;alert(1)"), "{text}");
    }
    for name in [
        "page",
        "dom",
        "copy",
        "log_bar",
        "log_folds",
        "log_row",
        "list",
        "search",
        "time",
        "run",
        "log",
        "ansi",
        "stream",
        "sign",
        "make",
        "dialog",
        "review",
        "settings",
        "edit",
        "yaml",
        "bunker",
    ] {
        let script = server.get(&format!("/assets/{name}.js")).await;
        assert_eq!(script.status(), 200, "{name}");
        let script = script.text().await.unwrap();
        let ways_in = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("];
        assert!(ways_in.iter().all(|way| !script.contains(way)), "{name}");
    }
}

#[tokio::test]
async fn annotations_summaries_and_commits_of_actions_stand_in_the_answer_and_on_the_page() {
    let server = Server::start().await;
    let mut state = run("a", 1, &Keys::generate(), &json!("public"));
    let report = json!({
        "conclusion": "failure", "reason": {"kind": "step"}, "exit_code": 1, "steps": [], "outputs": {},
        "annotations": [{"level": "error", "message": "<b>bad</b>", "file": "src/a.rs", "line": 7}],
        "summary": "# Sum <script>alert(2)</script>", "started": true, "image": null,
        "actions": {"acme/tool@v1": "c0ffee"}, "started_at_ms": 0, "finished_at_ms": 0,
    });
    let job = json!({
        "id": "build", "leg": {"matrix": {}, "index": 0, "total": 1}, "name": "build", "labels": [], "timeout_ms": 0,
        "tolerated": false, "fail_fast": true, "max_parallel": null, "attempts": [],
        "phase": {"phase": "done", "conclusion": "failure", "reason": {"kind": "step"}, "outcome": {
            "attempt": 1, "exit_code": 1, "outputs": {}, "started_at": 0, "finished_at": 0,
        }},
    });
    state.jobs.insert("build".into(), Arc::new(serde_json::from_value(job).unwrap()));
    let report = serde_json::from_value(report).unwrap();
    let report = StoredReport { run: "a".into(), job: "build".into(), attempt: 1, report };
    server.commit(vec![Change::Run(store::RunChange::whole(state)), Change::Report(report)]).await;
    let answer: Value = server.get("/api/runs/a").await.json().await.unwrap();
    let job = &answer["jobs"][0];
    assert_eq!((&job["annotations"][0]["line"], &job["annotations"][0]["level"]), (&json!(7), &json!("error")));
    assert!(job["summary"].as_str().unwrap().starts_with("# Sum"));
    assert_eq!(job["actions"], json!({"acme/tool@v1": "c0ffee"}));
    let page = server.get("/runs/a").await.text().await.unwrap();
    for part in ["<code>src/a.rs:7</code> <span>&#60;b&#62;bad", "<h1>Sum </h1>"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("alert(2)"), "{page}");
}

#[tokio::test]
async fn an_unknown_address_is_a_page_for_browsers_and_json_for_others() {
    let server = Server::start().await;
    for path in ["/nope", "/runs", "/a/b/c"] {
        let answer = server.http.get(format!("{}{path}", server.url)).header("accept", "text/html,*/*").send();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        assert!(answer.text().await.unwrap().contains("<a href=\"/\">Runs</a>"), "{path}");
        let answer = server.get(path).await;
        assert_eq!(answer.status(), 404, "{path}");
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["error"].is_string(), "{path}: {problem}");
    }
}

#[tokio::test]
async fn a_private_run_answers_its_readers_alone_and_others_as_if_it_were_not_there() {
    let server = Server::start().await;
    let (reader, stranger) = (Keys::generate(), Keys::generate());
    let visibility = json!({ "readers": [reader.public_key().to_hex()] });
    server.commit(vec![Change::Run(store::RunChange::whole(run("p", 7, &stranger, &visibility)))]).await;
    server.web.logs.append(&"p".into(), &"build".into(), 1, 0, line("secret line\n")).await.unwrap();
    for path in ["/runs/p", "/api/runs/p", "/api/runs/7", "/api/runs/job-p", "/api/runs/p/logs?format=text"] {
        let missing = server.get(&path.replace('p', "q").replace("q7", "9")).await.status();
        assert_eq!(missing, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(server.get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
        let strange = server.call(Method::GET, path, Some(&stranger)).await;
        assert_eq!(strange.status(), StatusCode::NOT_FOUND, "{path}");
        for keys in [&reader, &server.operator] {
            assert_eq!(server.call(Method::GET, path, Some(keys)).await.status(), StatusCode::OK, "{path}");
        }
    }
    let list =
        async |signer| server.call(Method::GET, "/api/runs", signer).await.json::<Vec<Value>>().await.unwrap().len();
    assert_eq!((list(None).await, list(Some(&stranger)).await, list(Some(&reader)).await), (0, 0, 1));
}

#[tokio::test]
async fn a_signature_counts_for_its_url_method_and_minute_only() {
    let server = Server::start().await;
    server.commit(vec![public("a", 1, &Keys::generate())]).await;
    let url = format!("{}/api/runs/a", server.url);
    let at = NOW / 1000;
    let header = |kind, url: &str, method: &str, at| {
        authorization(&server.operator, kind, &[("u", url), ("method", method)], at)
    };
    let mut forged: Value =
        serde_json::from_str(&signed(&server.operator, 27235, &[("u", &url), ("method", "GET")], at)).unwrap();
    forged["pubkey"] = json!(Keys::generate().public_key().to_hex());
    let cases = [
        ("right", header(27235, &url, "GET", at), 200),
        ("late within a minute", header(27235, &url, "GET", at - 60), 200),
        ("too old", header(27235, &url, "GET", at - 61), 401),
        ("from the future", header(27235, &url, "GET", at + 61), 401),
        ("another method", header(27235, &url, "POST", at), 401),
        ("another url", header(27235, &format!("{url}?x"), "GET", at), 401),
        ("another kind", header(1, &url, "GET", at), 401),
        ("forged", format!("Nostr {}", STANDARD.encode(forged.to_string())), 401),
        ("no event", "Nostr xyz".to_owned(), 401),
        ("another scheme", "Basic eDp5".to_owned(), 200),
    ];
    for (what, header, expected) in cases {
        let response = server.http.get(&url).header("authorization", header).send().await.unwrap();
        assert_eq!(response.status(), expected, "{what}");
    }
}

#[tokio::test]
async fn a_run_is_cancelled_by_its_author_or_the_operator_and_a_worker_drained_by_the_operator() {
    let server = Server::start().await;
    let (author, stranger) = (Keys::generate(), Keys::generate());
    let row =
        json!({"id": "w1", "identity": "k", "name": "one", "labels": [], "slots": 1, "seen_at": 1, "draining": false});
    let row: WorkerRow = serde_json::from_value(row).unwrap();
    server.commit(vec![public("a", 1, &author), Change::Worker(row)]).await;
    let cases = [
        ("/api/runs/a/cancel", None, 401),
        ("/api/runs/a/cancel", Some(&stranger), 403),
        ("/api/runs/a/cancel", Some(&author), 202),
        ("/api/runs/run-a/cancel", Some(&server.operator), 202),
        ("/api/runs/none/cancel", Some(&author), 404),
        ("/api/workers/w1/drain", None, 401),
        ("/api/workers/w1/drain", Some(&author), 403),
        ("/api/workers/none/drain", Some(&server.operator), 404),
        ("/api/workers/w1/drain", Some(&server.operator), 202),
    ];
    for (path, signer, expected) in cases {
        assert_eq!(server.call(Method::POST, path, signer).await.status(), expected, "{path} {expected}");
    }
    let key = |keys: &Keys| keys.public_key().to_hex();
    let expected =
        [format!("cancel a by {}", key(&author)), format!("cancel a by {}", key(&server.operator)), "drain w1".into()];
    assert_eq!(*server.asked.0.lock(), expected);
    let workers: Value = server.get("/api/workers").await.json().await.unwrap();
    assert_eq!(workers[0]["name"], "one");
    assert_eq!(workers[0].get("identity"), None);
    assert_eq!(server.get("/healthz").await.status(), 200);
    assert_eq!(server.get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn a_live_log_comes_as_it_is_written_resumes_and_ends_with_the_run() {
    let server = Server::start().await;
    let state = run("a", 1, &Keys::generate(), &json!("public"));
    server.commit(vec![Change::Run(store::RunChange::whole(state.clone()))]).await;
    let length = server.web.logs.append(&"a".into(), &"build".into(), 1, 0, line("one\n")).await.unwrap();
    let live = server.get("/api/runs/a/logs").await;
    let first = events(live, 2).await;
    assert_eq!((first[0].0.as_str(), &first[0].2["phase"]), ("run", &json!("active")));
    assert_eq!((first[1].0.as_str(), &first[1].2["lines"][0]["text"]), ("log", &json!("one\n")));

    let request = server.http.get(format!("{}/api/runs/a/logs", server.url)).header("last-event-id", &first[1].1);
    let resumed = request.send().await.unwrap();
    let reader = tokio::spawn(events(resumed, usize::MAX));
    server.web.logs.append(&"a".into(), &"build".into(), 1, length, line("two\n")).await.unwrap();
    server.commit(vec![ended(state)]).await;
    let rest = reader.await.unwrap();
    let logs: Vec<_> =
        rest.iter().filter(|(event, ..)| event == "log").map(|(.., data)| data["lines"][0]["text"].clone()).collect();
    assert_eq!(logs, ["two\n"]);
    assert_eq!(rest.last().unwrap().0, "end");
    let run = rest.iter().rev().find(|(event, ..)| event == "run").unwrap();
    assert_eq!(run.2["conclusion"], "success");
    let text = server.get("/api/runs/a/logs?format=text").await.text().await.unwrap();
    assert!(text.starts_with("==== build, attempt 1\n") && text.ends_with(" two\n"), "{text}");
}

#[tokio::test]
async fn a_reader_that_does_not_read_keeps_no_writer_waiting() {
    let server = Server::start().await;
    server.commit(vec![public("a", 1, &Keys::generate())]).await;
    let idle = server.get("/api/runs/a/logs").await;
    let big = line(&"x".repeat(200_000));
    let mut offset = 0;
    for _ in 0..100 {
        offset = server.web.logs.append(&"a".into(), &"build".into(), 1, offset, big.clone()).await.unwrap();
    }
    let read = events(idle, 101).await;
    assert_eq!(read.iter().filter(|(event, ..)| event == "log").count(), 100);
}
