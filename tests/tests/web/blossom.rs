//! The Blossom endpoint, and uploads to others.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use blobs::{Deposit, client::Client};
use bytes::Bytes;
use nostr::Keys;
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};
use store::Change;

use super::{NOW, Server, authorization, hash, run, signed, token};

#[tokio::test]
async fn t80_a_blob_is_taken_from_writers_with_a_token_for_it() {
    let server = Server::start().await;
    let body: &[u8] = b"a log";
    let right = hash(body);
    let at = NOW / 1000;
    let made = |tags: &[(&str, &str)], at| authorization(&server.writer, 24242, tags, at);
    let later = (at + 60).to_string();
    let past = at.to_string();
    let upload = ("t", "upload");
    let cases = [
        ("no token", None, 401),
        ("no writer", Some(token(&Keys::generate(), "upload", &right)), 403),
        ("another verb", Some(token(&server.writer, "delete", &right)), 401),
        ("another blob", Some(token(&server.writer, "upload", &hash(b"other"))), 409),
        ("no blob", Some(made(&[upload, ("expiration", &later)], at)), 401),
        ("expired", Some(made(&[upload, ("x", &right), ("expiration", &past)], at)), 401),
        ("no expiration", Some(made(&[upload, ("x", &right)], at)), 401),
        ("from the future", Some(made(&[upload, ("x", &right), ("expiration", &later)], at + 120)), 401),
        (
            "another server",
            Some(made(&[upload, ("x", &right), ("expiration", &later), ("server", "b.example")], at)),
            401,
        ),
        ("this server", Some(made(&[upload, ("x", &right), ("expiration", &later), ("server", "127.0.0.1")], at)), 201),
        ("again", Some(token(&server.writer, "upload", &right)), 200),
    ];
    for (what, token, expected) in cases {
        let response = server.put(body, token).await;
        assert_eq!(response.status(), expected, "{what}");
        assert_eq!(response.headers()["access-control-allow-origin"], "*", "{what}");
        assert_eq!(response.headers().contains_key("x-reason"), expected >= 400, "{what}");
    }
    let event = signed(&server.writer, 24242, &[upload, ("x", &right), ("expiration", &later)], at);
    let url_safe = format!("Nostr {}", URL_SAFE_NO_PAD.encode(event));
    let descriptor: Value = server.put(body, Some(url_safe)).await.json().await.unwrap();
    assert_eq!(descriptor["url"], format!("{}/{right}", server.url));
    assert_eq!(
        (&descriptor["sha256"], &descriptor["size"], &descriptor["uploaded"]),
        (&json!(right), &json!(5), &json!(at))
    );
}

#[tokio::test]
async fn a_blob_is_read_whole_or_in_part_by_browsers_of_any_origin_and_deleted_by_its_owner() {
    let server = Server::start().await;
    let name = hash(b"0123456789");
    let put = server.put(b"0123456789", Some(token(&server.writer, "upload", &name))).await;
    assert_eq!(put.status(), 201);
    let whole = server.get(&format!("/{name}.txt")).await;
    assert_eq!(whole.headers()["access-control-allow-origin"], "*");
    assert!(whole.headers()["content-security-policy"].to_str().unwrap().contains("sandbox"));
    assert_eq!(whole.text().await.unwrap(), "0123456789");
    let head = server.call(Method::HEAD, &format!("/{name}"), None).await;
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "10"));
    let part = server.http.get(format!("{}/{name}", server.url)).header("range", "bytes=2-4").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.headers()["content-range"].to_str().unwrap()), (206, "bytes 2-4/10"));
    assert_eq!(part.text().await.unwrap(), "234");
    let beyond = server.http.get(format!("{}/{name}", server.url)).header("range", "bytes=10-").send().await.unwrap();
    assert_eq!(beyond.status(), 416);
    let key = server.writer.public_key().to_hex();
    let list: Value = server.get(&format!("/list/{key}")).await.json().await.unwrap();
    assert_eq!(list[0]["sha256"], name);

    let delete = async |keys: &Keys| {
        let request = server.http.delete(format!("{}/{name}", server.url));
        request.header("authorization", token(keys, "delete", &name)).send().await.unwrap().status().as_u16()
    };
    assert_eq!(delete(&Keys::generate()).await, 403);
    assert_eq!(delete(&server.writer).await, 204);
    assert_eq!(server.get(&format!("/{name}")).await.status(), 404);
}

#[tokio::test]
async fn uploads_have_limits_that_a_precheck_tells() {
    let server = Server::start().await;
    let check = async |size: &str| {
        let request = server.http.head(format!("{}/upload", server.url)).header("x-content-length", size);
        let token = token(&server.writer, "upload", &hash(b"x"));
        request.header("authorization", token).send().await.unwrap().status().as_u16()
    };
    assert_eq!((check("1000").await, check("1001").await), (200, 413));
    let big: &[u8] = &[0; 1001];
    assert_eq!(server.put(big, Some(token(&server.writer, "upload", &hash(big)))).await.status(), 413);
    // What jobs keep has limits of its own and takes no room from uploads.
    let cache = Deposit {
        kind: String::new(),
        owner: "cache:1".into(),
        public: false,
        now: NOW,
        expires_at: u64::MAX >> 1,
        allowed: None,
        limit: 9000,
    };
    server.web.blobs.put_bytes(vec![7; 9000].into(), cache).await.unwrap();
    for index in 0..5_u8 {
        let body: &'static [u8] = vec![index; 1000].leak();
        assert_eq!(server.put(body, Some(token(&server.writer, "upload", &hash(body)))).await.status(), 201);
    }
    assert_eq!(server.put(b"x", Some(token(&server.writer, "upload", &hash(b"x")))).await.status(), 507);
}

#[tokio::test]
async fn attack_36_the_key_of_a_run_uploads_little_for_as_long_as_its_run_matters() {
    let server = Server::start().await;
    let (author, publisher, late) = (Keys::generate(), Keys::generate(), Keys::generate());
    let published = |id: &str, serial, keys: &Keys| {
        let mut state = run(id, serial, &author, &json!("public"));
        let mut request = (*state.request).clone();
        request.origin = serde_json::from_value(json!({
            "kind": "hive_ci", "run_event": format!("run-{id}"), "job_event": format!("job-{id}"),
            "author": author.public_key().to_hex(), "publisher": keys.public_key().to_hex(), "workflow": "", "relays": [],
        }))
        .unwrap();
        state.request = std::sync::Arc::new(request);
        state
    };
    server.commit(vec![Change::Run(store::RunChange::whole(published("p", 1, &publisher)))]).await;
    let mut over = published("l", 2, &late);
    over.phase = serde_json::from_value(json!({
        "phase": "done", "log": {"url": "", "sha256": "", "full_url": ""},
        "end": {"conclusion": "success", "reason": null, "exit_code": 0, "at": NOW - 2 * 86_400_000},
    }))
    .unwrap();
    server.commit(vec![Change::Run(store::RunChange::whole(over))]).await;
    let put = async |keys: &Keys, number: u8| {
        let body: &'static [u8] = vec![number; 4].leak();
        server.put(body, Some(token(keys, "upload", &hash(body)))).await.status().as_u16()
    };
    assert_eq!(put(&late, 0).await, 403, "its run ended two days ago");
    assert_eq!((put(&publisher, 1).await, put(&publisher, 2).await), (201, 201));
    assert_eq!(put(&publisher, 3).await, 507, "keys of runs fill no more than half, in pages of the disk");
    for number in 4..7 {
        assert_eq!(put(&server.writer, number).await, 201, "the operator's own key has the rest");
    }
    assert_eq!(put(&server.writer, 8).await, 507);
}

#[tokio::test]
async fn a_private_runs_blob_is_open_to_its_readers_alone() {
    let server = Server::start().await;
    let reader = Keys::generate();
    let visibility = json!({ "readers": [reader.public_key().to_hex()] });
    server.commit(vec![Change::Run(store::RunChange::whole(run("p", 1, &Keys::generate(), &visibility)))]).await;
    let deposit = Deposit {
        kind: "text/plain".into(),
        owner: "p".into(),
        public: false,
        now: NOW,
        expires_at: NOW,
        allowed: None,
        limit: 100,
    };
    server.web.blobs.put_bytes(Bytes::from_static(b"private"), deposit).await.unwrap();
    let name = hash(b"private");
    let path = format!("/{name}");
    assert_eq!(server.get(&path).await.status(), 404);
    assert_eq!(server.call(Method::GET, &path, Some(&Keys::generate())).await.status(), 404);
    let open = server.call(Method::GET, &path, Some(&reader)).await;
    assert_eq!(open.headers()["cache-control"], "private, no-store");
    assert_eq!(open.text().await.unwrap(), "private");
    let request = server.http.get(format!("{}{path}", server.url));
    let by_token = request.header("authorization", token(&reader, "get", &name)).send().await.unwrap();
    assert_eq!(by_token.status(), 200);
}

/// A server as `answer` says, for what our own endpoint never does.
async fn other(answer: fn(String, Bytes) -> (StatusCode, String)) -> Url {
    use axum::{Router, http::HeaderMap, routing::put};
    let app = Router::new().route(
        "/upload",
        put(async move |headers: HeaderMap, body: Bytes| {
            answer(headers["authorization"].to_str().unwrap().to_owned(), body)
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    url
}

fn descriptor(sha256: &str) -> (StatusCode, String) {
    (StatusCode::OK, json!({"url": format!("https://b.example/{sha256}.txt"), "sha256": sha256}).to_string())
}

#[tokio::test]
async fn t78_an_upload_goes_to_the_next_server_or_encoding_until_one_takes_it() {
    let server = Server::start().await;
    let client = Client::new().unwrap();
    let bytes = Bytes::from_static(b"a log");
    let sha256 = hash(&bytes);
    let now = NOW / 1000;
    let own: Url = server.url.parse().unwrap();
    let url = client.upload(&own, &bytes, "text/plain", &server.writer, now).await.unwrap();
    assert_eq!(url.as_str(), format!("{}/{sha256}", server.url));

    let strict = other(|authorization, body| {
        let token = authorization.strip_prefix("Nostr ").unwrap();
        if STANDARD.decode(token).is_err() {
            (StatusCode::UNAUTHORIZED, String::new())
        } else {
            descriptor(&hash(&body))
        }
    });
    let strict = strict.await;
    // A token whose base64 has no padding reads alike in both alphabets; one of these texts has.
    for text in ["a", "bb", "ccc"] {
        let bytes = Bytes::from_static(text.as_bytes());
        let url = client.upload(&strict, &bytes, "text/plain", &server.writer, now).await.unwrap();
        assert_eq!(url.as_str(), format!("https://b.example/{}", hash(&bytes)));
    }

    let busy = other(|_, _| (StatusCode::TOO_MANY_REQUESTS, String::new())).await;
    let liar = other(|_, _| descriptor(&"00".repeat(32))).await;
    let chatty = other(|_, _| (StatusCode::OK, "x".repeat(100_000))).await;
    let dead: Url = "http://127.0.0.1:9".parse().unwrap();
    let servers = [busy, liar, chatty, dead.clone(), own];
    let signers = [Keys::generate(), server.writer.clone()];
    let url = client.upload_any(&servers, &bytes, "text/plain", &signers, now).await.unwrap();
    assert_eq!(url.as_str(), format!("{}/{sha256}", server.url));
    let error = client.upload_any(&[dead], &bytes, "text/plain", &signers, now).await.unwrap_err();
    assert!(error.to_string().contains("http://127.0.0.1:9/ can't be reached"), "{error}");
}
