//! The API: lists, lines of logs, the queue, server-sent events, and the document that describes it all.

use std::sync::Arc;

use domain::run::RunState;
use domain::schedule::QueuedJob;
use logs::record;
use nostr::Keys;
use proto::worker::{LogRecord, Mark};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::{Change, DeliveryState, NewWebhookDelivery, WebhookDeliveryChange, WorkChange};

use super::{NOW, Server, ended, events, line, public, run, whole};

/// A run with a job that runs on a worker.
fn with_job(id: &str, serial: u64) -> RunState {
    let mut state = run(id, serial, &Keys::generate(), &json!("public"));
    let attempt = json!({"number": 1, "worker": "w1", "accepted_at": NOW, "begun_at": NOW, "lost": null});
    let job = json!({
        "id": "build", "leg": {"matrix": {}, "index": 0, "total": 1}, "name": "Build it", "labels": ["gpu"],
        "timeout_ms": 0, "tolerated": false, "fail_fast": true, "max_parallel": null, "attempts": [attempt],
        "phase": {"phase": "running", "since": NOW},
    });
    state.jobs.insert("build".into(), Arc::new(serde_json::from_value(job).unwrap()));
    state
}

fn queued(mut state: RunState, reason: &str) -> Vec<Change> {
    let phase = json!({"phase": "queued", "since": NOW});
    Arc::make_mut(&mut state.jobs[0]).phase = serde_json::from_value(phase).unwrap();
    let queued = json!({"run": state.id, "job": "build", "labels": ["gpu"], "avoid": [], "owner": "o", "since": NOW, "reason": reason});
    let queued: QueuedJob = serde_json::from_value(queued).unwrap();
    vec![Change::Run(store::RunChange::whole(state)), Change::Queue(queued)]
}

async fn ids(server: &Server, path: &str) -> Vec<String> {
    let runs: Vec<Value> = server.get(path).await.json().await.unwrap();
    runs.iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_list_is_filtered_and_paged_by_a_link() {
    let server = Server::start().await;
    let author = Keys::generate();
    for serial in 1..=7_u64 {
        server.commit(vec![public(&format!("r{serial}"), serial, &author)]).await;
    }
    server.commit(vec![ended(run("r7", 7, &author, &json!("public")))]).await;
    let first = server.get("/api/runs?limit=3&branch=main").await;
    let link = first.headers()["link"].to_str().unwrap().to_owned();
    assert_eq!(link, "</api/runs?branch=main&limit=3&before=5>; rel=\"next\"");
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    assert_eq!(ids(&server, next).await, ["r4", "r3", "r2"]);
    let last = server.get("/api/runs?limit=3&before=4").await;
    assert!(last.headers().get("link").is_none());
    let key = author.public_key();
    let npub = nostr::ToBech32::to_bech32(&key).unwrap();
    let cases = [
        ("/api/runs?status=success".to_owned(), vec!["r7"]),
        ("/api/runs?status=queued&limit=1".to_owned(), vec!["r6"]),
        ("/api/runs?branch=other".to_owned(), vec![]),
        (format!("/api/runs?actor={npub}&limit=1&repository=&workflow="), vec!["r7"]),
        (format!("/api/runs?actor={}&unfinished=true&before=3", key.to_hex()), vec!["r2", "r1"]),
        ("/api/runs?repository=30617:o:r&before=2".to_owned(), vec!["r1"]),
        ("/api/runs?event=push".to_owned(), vec![]),
    ];
    for (path, expected) in cases {
        assert_eq!(ids(&server, &path).await, expected, "{path}");
    }
    let wrong = server.get("/api/runs?status=sideways").await;
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    assert!(wrong.text().await.unwrap().contains("ask for planning, waiting"));
    let page = server.get("/?limit=3").await.text().await.unwrap();
    assert!(page.contains("href=\"/?limit=3&#38;before=5\" rel=\"next\">"), "{page}");
}

#[tokio::test]
async fn people_have_the_names_of_their_profiles_and_drawings_of_their_keys() {
    let server = Server::start().await;
    let ann = Keys::parse(&format!("{:064x}", 1)).unwrap();
    let key = ann.public_key().to_hex();
    server.commit(vec![public("a", 1, &ann), public("b", 2, &Keys::generate())]).await;
    let runs: Value = server.get("/api/runs").await.json().await.unwrap();
    assert_eq!(runs[1]["actor_name"], "Ann <b>");
    assert!(runs[0]["actor_name"].as_str().unwrap().starts_with("npub1"), "{runs}");
    for path in ["/", "/runs/a"] {
        let page = server.get(path).await.text().await.unwrap();
        assert!(page.contains("Ann &#60;b&#62;") && page.contains(&format!("/avatars/{key}.svg")), "{path}: {page}");
    }
    let drawn = server.get(&format!("/avatars/{key}.svg")).await;
    assert_eq!(drawn.headers()["content-type"], "image/svg+xml");
    assert!(drawn.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    assert_eq!(server.get("/avatars/ann.svg").await.status(), 404);
}

#[tokio::test]
async fn a_first_page_of_fifty_runs_is_small_with_all_that_it_loads() {
    let server = Server::start().await;
    let author = Keys::generate();
    let runs = (1..=50).map(|serial| public(&format!("r{serial}"), serial, &author));
    server.commit(runs.collect()).await;
    let bytes = async |path: &str| {
        let request = server.http.get(format!("{}{path}", server.url)).header("accept-encoding", "br, gzip");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["content-encoding"], "gzip", "{path}");
        answer.bytes().await.unwrap().len()
    };
    let page = bytes("/").await;
    let plain = server.get("/").await.text().await.unwrap();
    assert!(plain.matches("<li data-id").count() == 50 && page * 3 < plain.len(), "{page} of {}", plain.len());
    let mut sum = page;
    for name in [
        "design.css",
        "page.css",
        "log.css",
        "page.js",
        "dom.js",
        "copy.js",
        "list.js",
        "search.js",
        "time.js",
        "run.js",
        "log.js",
        "log_bar.js",
        "log_folds.js",
        "log_row.js",
        "ansi.js",
        "sign.js",
        "edit.js",
        "yaml.js",
        "make.js",
        "dialog.js",
        "review.js",
        "stream.js",
        "icon.svg",
    ] {
        sum += bytes(&format!("/assets/{name}")).await;
    }
    assert!(sum < 60 * 1024, "{sum} bytes");
    let asset = server.get("/assets/page.js").await;
    let known =
        server.http.get(format!("{}/assets/page.js", server.url)).header("if-none-match", &asset.headers()["etag"]);
    assert_eq!(known.send().await.unwrap().status(), 304);
}

#[tokio::test]
async fn what_a_filter_cannot_mean_is_told_and_a_mere_file_is_a_workflow() {
    let server = Server::start().await;
    let author = Keys::generate();
    let mut state = run("a", 1, &author, &json!("public"));
    Arc::make_mut(&mut state.request).workflow = ".github/workflows/ci.yml".into();
    server.commit(vec![Change::Run(store::RunChange::whole(state))]).await;
    for path in ["/api/runs?workflow=ci.yml", "/api/runs?workflow=.github/workflows/ci.yml"] {
        assert_eq!(ids(&server, path).await, ["a"], "{path}");
    }
    assert_eq!(ids(&server, "/api/runs?workflow=other.yml").await, Vec::<String>::new());
    for (query, told) in [
        ("actor=foo", "the author `foo` is no key: write an npub"),
        ("author=foo", "the author `foo` is no key: write an npub"),
        ("repository=toy", "the repository `toy` is no address: write 30617:KEY:NAME"),
    ] {
        for path in [format!("/api/runs?{query}"), format!("/?{query}")] {
            let answer = server.get(&path).await;
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{path}");
            let text = answer.text().await.unwrap();
            assert!(text.contains(told), "{path}: {text}");
        }
    }
    let empty = server.get("/?workflow=other.yml").await.text().await.unwrap();
    assert!(empty.contains("<code>.github/workflows/other.yml</code>"), "{empty}");
}

#[tokio::test]
async fn what_is_not_there_is_said_to_who_asked() {
    let server = Server::start().await;
    let said = async |path: &str, keys: Option<&Keys>| server.call(Method::GET, path, keys).await.text().await.unwrap();
    let unsigned = said("/api/runs/none", None).await;
    assert!(unsigned.contains("not open to you: sign the request"), "{unsigned}");
    let signed = said("/api/runs/none", Some(&Keys::generate())).await;
    assert!(signed.contains("not open to npub1") && !signed.contains("sign the request"), "{signed}");
    let program = said("/nonsense", None).await;
    assert!(program.contains("a blob is named by its SHA-256"), "{program}");
    for path in ["/nonsense", "/more/nonsense"] {
        let page = server.http.get(format!("{}{path}", server.url)).header("accept", "text/html").send().await.unwrap();
        assert_eq!(page.status(), StatusCode::NOT_FOUND, "{path}");
        let page = page.text().await.unwrap();
        assert!(
            page.contains("There is nothing at this address.") && page.contains("href=\"/\">All runs of this pool"),
            "{page}"
        );
    }
}

#[tokio::test]
async fn lines_of_a_log_are_had_by_number_and_found_by_text() {
    let server = Server::start().await;
    server.commit(vec![Change::Run(store::RunChange::whole(with_job("a", 1)))]).await;
    let mark = Mark { name: "Main build".into(), ..Mark::default() };
    let mark = LogRecord { time_ms: NOW, step: 0, stream: 4, text: Default::default(), mark: Some(mark) };
    let begun =
        server.web.logs.append(&"a".into(), &"build".into(), 1, 0, record::encode(&[mark]).into()).await.unwrap();
    let text: String = (2..=2000).map(|number| format!("line {number} <b>\n")).collect();
    server.web.logs.append(&"a".into(), &"build".into(), 1, begun, line(&text)).await.unwrap();

    let lines: Value = server.get("/api/runs/a/lines?job=build&from=1999&to=2005").await.json().await.unwrap();
    assert_eq!((&lines["total"], &lines["complete"], &lines["attempt"]), (&json!(2000), &json!(false), &json!(1)));
    assert_eq!(lines["lines"].as_array().unwrap().len(), 2);
    assert_eq!((&lines["lines"][0]["number"], &lines["lines"][0]["text"]), (&json!(1999), &json!("line 1999 <b>")));
    let found: Value = server.get("/api/runs/a/search?job=build&text=LINE%20777").await.json().await.unwrap();
    assert_eq!((&found["lines"], &found["next"]), (&json!([777]), &Value::Null));
    assert_eq!(server.get("/api/runs/a/lines?job=none").await.status(), 404);
    assert_eq!(server.get("/api/runs/a/search?job=build&text=").await.status(), 400);

    let page = server.get("/runs/a/log?job=build&line=1000").await.text().await.unwrap();
    assert!(page.contains("id=\"L1000\"") && page.contains("line 1000 &#60;b&#62;"), "{page}");
    assert!(!page.contains("id=\"L900\"") && page.contains("rel=\"prev\"") && page.contains("rel=\"next\""));
    let step = server.get("/runs/a/log?job=build&step=Main%20build").await.text().await.unwrap();
    assert!(step.contains("here\" id=\"L1\"") && step.contains("id=\"L500\""), "{step}");
}

#[tokio::test]
async fn the_queue_says_why_each_job_waits_and_hides_private_runs() {
    let server = Server::start().await;
    server.commit(queued(with_job("a", 1), "no worker has the label gpu; connected workers offer: linux")).await;
    let mut private = with_job("p", 2);
    private.visibility = serde_json::from_value(json!({"readers": []})).unwrap();
    server.commit(queued(private, "all 2 slots of matching workers are busy")).await;
    let mut held = run("g", 3, &Keys::generate(), &json!("public"));
    held.phase =
        serde_json::from_value(json!({"phase": "waiting", "on": {"on": "concurrency", "group": "deploy"}})).unwrap();
    server.commit(vec![Change::Run(store::RunChange::whole(held))]).await;
    let queue: Value = server.get("/api/queue").await.json().await.unwrap();
    let reasons: Vec<_> = queue["entries"].as_array().unwrap().iter().map(|entry| entry["reason"].clone()).collect();
    let expected =
        ["no worker has the label gpu; connected workers offer: linux", "waits for the concurrency group deploy"];
    assert_eq!(reasons, expected);
    assert_eq!((&queue["entries"][0]["job"], &queue["others"]), (&json!("Build it"), &json!(1)));
    let all: Value = server.call(Method::GET, "/api/queue", Some(&server.operator)).await.json().await.unwrap();
    assert_eq!((all["entries"].as_array().unwrap().len(), &all["others"]), (3, &json!(0)));
}

#[tokio::test]
async fn a_live_list_tells_what_changed_and_resumes_behind_what_was_told() {
    let server = Server::start().await;
    let author = Keys::generate();
    server.commit(vec![public("old", 1, &author)]).await;
    let live = server.get("/api/changes?status=queued").await;
    let ends = ended(run("a", 2, &author, &json!("public")));
    server.commit(vec![public("a", 2, &author), ends]).await;
    let told = events(live, 1).await;
    let stands: Vec<_> = told.iter().map(|(event, _, run)| (event.as_str(), &run["id"], &run["status"])).collect();
    assert_eq!(stands, [("run", &json!("a"), &json!("success"))], "also what leaves the list");
    server.commit(vec![Change::Run(store::RunChange::whole(run("p", 3, &author, &json!({"readers": []}))))]).await;
    server.commit(vec![public("b", 4, &author)]).await;
    let resume = server.http.get(format!("{}/api/changes", server.url)).header("last-event-id", &told[0].1);
    let rest = events(resume.send().await.unwrap(), 1).await;
    assert_eq!(rest[0].2["id"], "b", "neither told before nor private");
}

#[tokio::test]
async fn changes_of_a_log_are_told_without_its_lines() {
    let server = Server::start().await;
    let state = with_job("a", 1);
    server.commit(vec![Change::Run(store::RunChange::whole(state.clone()))]).await;
    let length = server.web.logs.append(&"a".into(), &"build".into(), 1, 0, line("old\n")).await.unwrap();
    let live = server.get("/api/runs/a/logs?format=changes").await;
    let reader = tokio::spawn(events(live, usize::MAX));
    server.web.logs.append(&"a".into(), &"build".into(), 1, length, line("new\n")).await.unwrap();
    server.commit(vec![ended(state)]).await;
    let told = reader.await.unwrap();
    let logs: Vec<_> = told.iter().filter(|(event, ..)| event == "log").map(|(.., data)| data.clone()).collect();
    assert_eq!(logs, [json!({"job": "build", "attempt": 1})]);
    assert_eq!(told.last().unwrap().0, "end");
}

#[tokio::test]
async fn a_badge_shows_the_latest_end_of_public_runs() {
    let server = Server::start().await;
    let badge = async |query: &str| server.get(&format!("/api/badge.svg?{query}")).await;
    let empty = badge("repository=30617:o:r&workflow=%3Csvg%20onload%3Dx%3E").await;
    assert_eq!(empty.headers()["content-type"], "image/svg+xml");
    let empty = empty.text().await.unwrap();
    assert!(empty.contains("no runs") && !empty.contains("<svg onload"), "{empty}");
    let author = Keys::generate();
    server.commit(vec![public("a", 1, &author)]).await;
    server.commit(vec![ended(run("a", 1, &author, &json!("public")))]).await;
    server.commit(vec![public("b", 2, &author)]).await;
    assert!(badge("repository=30617:o:r&branch=main").await.text().await.unwrap().contains("ci: success"));
}

#[tokio::test]
async fn deliveries_of_webhooks_are_shown_to_the_operator_alone() {
    let server = Server::start().await;
    let delivery = |id: &str, made_at: u64| {
        Change::from(WebhookDeliveryChange::Add(NewWebhookDelivery {
            id: id.into(),
            url: "https://h.example/token".into(),
            event: "run.completed".into(),
            run: "r".into(),
            body: "{}".into(),
            made_at,
        }))
    };
    let (state, answer) = (DeliveryState::GivenUp, "503 Service Unavailable".to_owned());
    let given_up = WebhookDeliveryChange::End { id: "a".into(), state, tries: 3, answer };
    let done = Change::Work(WorkChange::Remove { id: "a".into() });
    server.commit(vec![delivery("a", NOW - 1), given_up.into(), done, delivery("b", NOW)]).await;
    let ask = async |keys: Option<&Keys>| server.call(Method::GET, "/api/webhooks", keys).await;
    assert_eq!(ask(None).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(ask(Some(&Keys::generate())).await.status(), StatusCode::FORBIDDEN);
    let shown: Value = ask(Some(&server.operator)).await.json().await.unwrap();
    let told: Vec<_> =
        shown.as_array().unwrap().iter().map(|one| (&one["id"], &one["state"], &one["answer"])).collect();
    let expected = [("b", "pending", ""), ("a", "given_up", "503 Service Unavailable")];
    let expected = expected.map(|(id, state, answer)| (json!(id), json!(state), json!(answer)));
    assert!(told.iter().zip(&expected).all(|(one, (id, state, answer))| *one == (id, state, answer)), "{shown}");
    assert_eq!((told.len(), &shown[1]["tries"]), (2, &json!(3)));
}

/// Every object of the document has exactly the fields that it names.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(strict);
            if fields.contains_key("properties") {
                fields.insert("additionalProperties".into(), json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        _ => {}
    }
}

#[tokio::test]
async fn every_answer_is_as_the_document_says() {
    let server = Server::start().await;
    server.commit(queued(with_job("q", 1), "all slots are busy")).await;
    let finished = run("a", 2, &Keys::generate(), &json!("public"));
    server.commit(vec![Change::Run(store::RunChange::whole(finished.clone()))]).await;
    server.commit(vec![ended(finished)]).await;
    server.commit(vec![public("first", 3, &Keys::generate())]).await;
    server.commit(vec![Change::Run(store::RunChange::whole(whole::rerun("again", 4, &json!("public"))))]).await;
    server.commit(whole::left("again")).await;
    let row = json!({"id": "w1", "identity": "k", "name": "one", "labels": ["x"], "slots": 1, "seen_at": 1, "draining": false});
    server.commit(vec![Change::Worker(serde_json::from_value(row).unwrap())]).await;
    server.web.logs.append(&"q".into(), &"build".into(), 1, 0, line("one\n")).await.unwrap();

    let mut document: Value = server.get("/api/openapi.json").await.json().await.unwrap();
    strict(&mut document);
    // Each operation of the document with a call: one that is missing here, or there, fails.
    let calls = [
        ("get /api/runs", "/api/runs", vec![200]),
        ("get /api/runs", "/api/runs?status=x", vec![400]),
        ("get /api/runs/{id}", "/api/runs/q", vec![200]),
        ("get /api/runs/{id}", "/api/runs/a", vec![200]),
        ("get /api/runs/{id}", "/api/runs/first", vec![200]),
        ("get /api/runs/{id}", "/api/runs/again", vec![200]),
        ("get /api/runs/{id}", "/api/runs/none", vec![404]),
        ("post /api/runs/{id}/cancel", "/api/runs/q/cancel", vec![401]),
        ("post /api/runs/{id}/approve", "/api/runs/q/approve", vec![401]),
        ("get /api/runs/{id}/logs", "/api/runs/q/logs?format=text", vec![200]),
        ("get /api/runs/{id}/lines", "/api/runs/q/lines?job=build", vec![200]),
        ("get /api/runs/{id}/lines", "/api/runs/q/lines?job=x", vec![404]),
        ("get /api/runs/{id}/steps", "/api/runs/q/steps?job=x", vec![404]),
        ("get /api/runs/{id}/search", "/api/runs/q/search?job=build&text=one", vec![200]),
        ("get /api/runs/{id}/artifacts", "/api/runs/a/artifacts", vec![200]),
        ("get /api/runs/{id}/artifacts", "/api/runs/none/artifacts", vec![404]),
        ("get /api/runs/{id}/artifacts/{artifact}", "/api/runs/a/artifacts/none", vec![404]),
        ("get /api/runs/{id}/artifacts/{artifact}/files", "/api/runs/a/artifacts/none/files", vec![404]),
        ("get /api/runs/{id}/artifacts/{artifact}/file", "/api/runs/a/artifacts/none/file?path=x", vec![404]),
        ("get /api/changes", "/api/changes", vec![200]),
        ("get /api/badge.svg", "/api/badge.svg?repository=x", vec![200]),
        ("get /api/queue", "/api/queue", vec![200]),
        ("get /api/workers", "/api/workers", vec![200]),
        ("get /api/pool", "/api/pool", vec![200]),
        ("get /api/me", "/api/me", vec![401]),
        ("post /api/sessions", "/api/sessions", vec![401]),
        ("post /api/publisher", "/api/publisher", vec![200]),
        ("post /api/events", "/api/events", vec![400]),
        ("get /api/repositories/{address}/definitions", "/api/repositories/30617:o:r/definitions", vec![200]),
        ("get /api/repositories/{address}/values", "/api/repositories/30617:o:r/values", vec![401]),
        ("post /api/repositories/{address}/values", "/api/repositories/30617:o:r/values", vec![401]),
        ("get /api/repositories/{address}/caches", "/api/repositories/30617:o:r/caches", vec![401]),
        ("post /api/repositories/{address}/caches/delete", "/api/repositories/30617:o:r/caches/delete", vec![401]),
        ("get /api/followed", "/api/followed", vec![401]),
        ("post /api/followed", "/api/followed", vec![401]),
        ("delete /api/followed/{address}", "/api/followed/30617:o:r", vec![401]),
        ("get /api/definitions/{event}", "/api/definitions/d1", vec![200]),
        ("get /api/definitions/{event}", "/api/definitions/none", vec![404]),
        ("get /api/definitions/{event}/diff", "/api/definitions/d1/diff", vec![200]),
        ("post /api/definitions", "/api/definitions", vec![400]),
        ("post /api/preview", "/api/preview", vec![400]),
        ("get /api/signer/answers", "/api/signer/answers?relay=wss://r.example&key=x", vec![200]),
        ("get /api/signer/answers", "/api/signer/answers?relay=wss://busy.example&key=x", vec![429]),
        ("post /api/signer/messages", "/api/signer/messages", vec![400]),
        ("get /api/webhooks", "/api/webhooks", vec![401]),
        ("post /api/workers/token", "/api/workers/token", vec![401]),
        ("post /api/workers/{id}/drain", "/api/workers/w1/drain", vec![401]),
    ];
    let mut documented = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        documented.extend(methods.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
    }
    let called: std::collections::BTreeSet<_> = calls.iter().map(|(operation, ..)| (*operation).to_owned()).collect();
    assert_eq!(called, documented);
    for (operation, path, statuses) in calls {
        let (method, template) = operation.split_once(' ').unwrap();
        let response = server.call(method.to_uppercase().parse().unwrap(), path, None).await;
        let status = response.status().as_u16();
        assert!(statuses.contains(&status), "{operation} {path}: {status}");
        let content = &document["paths"][template][method]["responses"][status.to_string()]["content"];
        let kind = response.headers()["content-type"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let described = content.get(&kind).unwrap_or_else(|| panic!("{path} answers {kind}, described: {content}"));
        if kind != "application/json" {
            continue;
        }
        let mut schema = described["schema"].clone();
        schema["components"] = document["components"].clone();
        let answer: Value = response.json().await.unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let wrong: Vec<_> =
            validator.iter_errors(&answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{path}: {wrong:?}\n{answer:#}");
    }
}

#[tokio::test]
async fn readiness_is_a_status_with_its_reasons_and_a_warning_is_no_failure() {
    let server = Server::start().await;
    let ask = async || {
        let answer = server.get("/readyz").await;
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ask().await, (200, "ready\n".to_owned()));
    server.asked.1.lock().warnings = vec!["the relay wss://a is lost".into()];
    assert_eq!(ask().await, (200, "ready\nthe relay wss://a is lost\n".to_owned()));
    server.asked.1.lock().failures = vec!["the disk is full".into()];
    assert_eq!(ask().await, (503, "not ready\nthe disk is full\nthe relay wss://a is lost\n".to_owned()));
}

#[tokio::test]
async fn the_pool_page_shows_a_lost_relay_and_why() {
    let server = Server::start().await;
    let page = server.get("/pool").await.text().await.unwrap();
    assert!(
        page.contains("wss://relay.example") && page.contains(">lost</span> &#60;b&#62;it does not answer"),
        "{page}"
    );
}

#[tokio::test]
async fn a_pool_that_strangers_may_run_on_says_so_on_its_page_and_to_clients() {
    let server = Server::start().await;
    let page = server.get("/pool").await.text().await.unwrap();
    assert!(page.contains("id=\"openness\">this pool is open: set it right<"), "{page}");
    let pool: Value = server.get("/api/pool").await.json().await.unwrap();
    assert_eq!(pool["openness"], "this pool is open: set it right");
}
