//! What signatures, tokens and sessions open, and what they do not.

use blobs::Deposit;
use bytes::Bytes;
use nostr::Keys;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use store::Change;

use super::{NOW, Server, authorization, hash, run};

const AT: u64 = NOW / 1000;

/// A token for blobs, as another server may have been shown one.
fn blossom(keys: &Keys, tags: &[(&str, &str)]) -> String {
    let later = (AT + 30 * 24 * 3600).to_string();
    let mut all = vec![("expiration", later.as_str())];
    all.extend(tags);
    authorization(keys, 24242, &all, AT - 24 * 3600)
}

async fn show(server: &Server, method: &Method, path: &str, header: &str) -> Response {
    let request = server.http.request(method.clone(), format!("{}{path}", server.url));
    request.header("authorization", header).send().await.unwrap()
}

#[tokio::test]
async fn attack_53_a_blossom_token_of_any_server_is_no_login() {
    let server = Server::start().await;
    server
        .commit(vec![Change::Run(store::RunChange::whole(run("p", 1, &Keys::generate(), &json!({"readers": []}))))])
        .await;
    let blob = "ab".repeat(32);
    for tags in [
        vec![("t", "get"), ("x", blob.as_str())],
        vec![("t", "get")],
        vec![("t", "get"), ("server", "127.0.0.1")],
        vec![("t", "get"), ("x", blob.as_str()), ("server", "127.0.0.1")],
        vec![("t", "upload"), ("x", blob.as_str()), ("server", "127.0.0.1")],
    ] {
        let header = blossom(&server.operator, &tags);
        for (method, path) in [
            (Method::GET, "/api/me"),
            (Method::GET, "/api/webhooks"),
            (Method::GET, "/api/runs/p"),
            (Method::GET, "/runs/p"),
            (Method::POST, "/api/workers/token"),
            (Method::POST, "/api/workers/w1/drain"),
            (Method::POST, "/api/runs/p/cancel"),
            (Method::POST, "/api/sessions"),
        ] {
            assert_eq!(show(&server, &method, path, &header).await.status(), 401, "{method} {path} {tags:?}");
        }
    }
    assert!(server.asked.0.lock().is_empty());
}

#[tokio::test]
async fn attack_53_a_token_opens_the_blobs_that_it_names_at_the_server_that_it_names() {
    let server = Server::start().await;
    let reader = Keys::generate();
    let visibility = json!({ "readers": [reader.public_key().to_hex()] });
    server.commit(vec![Change::Run(store::RunChange::whole(run("p", 1, &Keys::generate(), &visibility)))]).await;
    let store = async |text: &'static str, owner: &str, public: bool| {
        let deposit = Deposit {
            kind: "text/plain".into(),
            owner: owner.into(),
            public,
            now: NOW,
            expires_at: NOW * 2,
            allowed: None,
            limit: 100,
        };
        server.web.blobs.put_bytes(Bytes::from_static(text.as_bytes()), deposit).await.unwrap();
        hash(text.as_bytes())
    };
    let (private, public) = (store("private", "p", false).await, store("public", "p", true).await);
    let other = "ab".repeat(32);
    let host = ("server", "127.0.0.1");
    let url = format!("{}/", server.url);
    let cases = [
        ("this blob, this server", vec![("t", "get"), ("x", private.as_str()), host], 200),
        ("named by its URL", vec![("t", "get"), ("x", private.as_str()), ("server", &url)], 200),
        ("several blobs", vec![("t", "get"), ("x", &other), ("x", private.as_str()), host], 200),
        ("no server", vec![("t", "get"), ("x", private.as_str())], 401),
        ("another server", vec![("t", "get"), ("x", private.as_str()), ("server", "b.example")], 401),
        ("no blob", vec![("t", "get"), host], 401),
        ("another blob", vec![("t", "get"), ("x", &other), host], 401),
        ("another verb", vec![("t", "list"), ("x", private.as_str()), host], 401),
    ];
    let missing = format!("/{other}");
    for (what, tags, expected) in cases {
        let header = blossom(&reader, &tags);
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(show(&server, &method, &format!("/{private}"), &header).await.status(), expected, "{what}");
        }
        assert_eq!(show(&server, &Method::GET, &format!("/{public}"), &header).await.status(), 200, "{what}");
        if expected == 401 && !tags.contains(&("x", &other)) {
            let status = show(&server, &Method::GET, &missing, &header).await.status();
            assert_eq!(status, 401, "{what}: the answer is the same where there is no blob");
        }
    }
    let stranger = blossom(&Keys::generate(), &[("t", "get"), ("x", &private), host]);
    assert_eq!(show(&server, &Method::GET, &format!("/{private}"), &stranger).await.status(), 404);

    let own = server.writer.public_key().to_hex();
    store("unlisted", &own, false).await;
    for (what, tags, expected) in [
        ("no server", vec![("t", "list")], 401),
        ("another verb", vec![("t", "get"), host], 401),
        ("its own", vec![("t", "list"), host], 200),
    ] {
        let answer = show(&server, &Method::GET, &format!("/list/{own}"), &blossom(&server.writer, &tags)).await;
        assert_eq!(answer.status(), expected, "{what}");
        if expected == 200 {
            assert_eq!(answer.json::<Value>().await.unwrap().as_array().unwrap().len(), 1);
        }
    }
}

#[tokio::test]
async fn attack_53_a_signature_that_acts_is_good_once_and_one_that_reads_may_be_repeated() {
    let server = Server::start().await;
    let sign = |method: &str, path: &str| {
        let url = format!("{}{path}", server.url);
        authorization(&server.operator, 27235, &[("u", &url), ("method", method)], AT)
    };
    let header = sign("POST", "/api/workers/token");
    let statuses = async |method: Method, path: &str, header: &str| {
        let mut statuses = Vec::new();
        for _ in 0..2 {
            statuses.push(show(&server, &method, path, header).await.status().as_u16());
        }
        statuses
    };
    assert_eq!(statuses(Method::POST, "/api/workers/token", &header).await, [200, 401]);
    assert_eq!(statuses(Method::GET, "/api/me", &sign("GET", "/api/me")).await, [200, 200]);
    // What was refused decided nothing: it takes no room that others need.
    let header = sign("POST", "/api/runs/none/cancel");
    assert_eq!(statuses(Method::POST, "/api/runs/none/cancel", &header).await, [404, 404]);
}

#[tokio::test]
async fn attack_53_a_session_reads_what_its_key_may_read_and_does_nothing_else() {
    let server = Server::start().await;
    let reader = Keys::generate();
    let visibility = json!({ "readers": [reader.public_key().to_hex()] });
    server.commit(vec![Change::Run(store::RunChange::whole(run("p", 1, &Keys::generate(), &visibility)))]).await;
    let begin = async |keys: &Keys| {
        let answer = server.call(Method::POST, "/api/sessions", Some(keys)).await;
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let session: Value = answer.json().await.unwrap();
        assert_eq!(session["until"], AT + 3600);
        format!("Bearer {}", session["token"].as_str().unwrap())
    };
    assert_eq!(server.call(Method::POST, "/api/sessions", None).await.status(), 401);
    let (own, operator) = (begin(&reader).await, begin(&server.operator).await);
    let stranger = begin(&Keys::generate()).await;
    for (header, expected) in [(&own, 200), (&operator, 200), (&stranger, 404)] {
        assert_eq!(show(&server, &Method::GET, "/api/runs/p", header).await.status(), expected);
    }
    for path in ["/api/workers/token", "/api/workers/w1/drain", "/api/runs/p/cancel", "/api/sessions"] {
        assert_eq!(show(&server, &Method::POST, path, &operator).await.status(), 401, "{path}");
    }
    let parts: Vec<&str> = own.trim_start_matches("Bearer ").split('.').collect();
    let key = server.operator.public_key().to_hex();
    for forged in [
        format!("Bearer {key}.{}.{}", parts[1], parts[2]),
        format!("Bearer {}.{}.{}", parts[0], AT + 7200, parts[2]),
        format!("Bearer {}.{}", parts[0], parts[1]),
        "Bearer x".to_owned(),
    ] {
        assert_eq!(show(&server, &Method::GET, "/api/runs/p", &forged).await.status(), 401, "{forged}");
    }
}
