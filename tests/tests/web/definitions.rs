//! Workflow definitions over the API and on their page: texts are looked at, what is signed is checked.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{NOW, Server, hash, signed};
use nostr::{EventBuilder, JsonUtil, Keys, Kind};
use store::DefinitionRow;

/// A version of a definition under an id of its own.
pub(super) fn version(id: &str, text: &str) -> DefinitionRow {
    let signed = EventBuilder::new(Kind::Custom(35417), text).sign_with_keys(&Keys::generate()).unwrap();
    DefinitionRow {
        event: id.into(),
        repository: "30617:o:r".into(),
        path: ".github/workflows/d.yml".into(),
        author: "a".repeat(64),
        made_at: NOW / 1000,
        sha256: hash(text.as_bytes()),
        size: 1,
        withdrawn: false,
        signed: signed.as_json(),
        seen_at: NOW,
    }
}

impl Server {
    async fn say(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let response = self.http.post(format!("{}{path}", self.url)).body(body.to_string()).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }
}

#[tokio::test]
async fn a_text_is_looked_at_before_it_is_signed() {
    let server = Server::start().await;
    let path = ".github/workflows/ci.yml";
    let good = "name: CI\non: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps: [{run: a}]\n";
    let (status, answer) =
        server.say("/api/preview", &json!({"path": path, "text": good, "repository": "30617:o:r"})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&answer["findings"], &answer["outline"]["jobs"][0]["id"]), (&json!([]), &json!("a")));
    assert_eq!(answer["tags"], json!([["path", path]]));

    let (_, answer) = server.say("/api/preview", &json!({"path": path, "text": "on: push\njobs:\n  a: 1\n"})).await;
    let finding = &answer["findings"][0];
    assert_eq!((&finding["level"], &finding["line"], &finding["column"]), (&json!("error"), &json!(3), &json!(6)));
    assert_eq!((&answer["outline"], &answer["tags"]), (&Value::Null, &Value::Null));

    for (body, expected) in [
        (json!({"path": path, "text": "x".repeat(128 * 1024 + 1)}), StatusCode::PAYLOAD_TOO_LARGE),
        (json!({"path": path}), StatusCode::BAD_REQUEST),
        (json!({"path": path, "text": "", "other": 1}), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(server.say("/api/preview", &body).await.0, expected);
    }
}

#[tokio::test]
async fn only_what_is_signed_is_taken_in() {
    let server = Server::start().await;
    let event: Value = serde_json::from_str(&signed(&Keys::generate(), 35417, &[("path", "x")], 1)).unwrap();
    let (status, answer) = server.say("/api/definitions", &json!({"event": event})).await;
    assert_eq!((status, &answer["event"]), (StatusCode::ACCEPTED, &event["id"]));
    let mut forged = event.clone();
    forged["content"] = json!("on: push");
    for body in [json!({"event": forged}), json!({"event": {}}), json!({"events": [event]})] {
        assert_eq!(server.say("/api/definitions", &body).await.0, StatusCode::BAD_REQUEST);
    }
    assert_eq!(*server.asked.0.lock(), ["define 35417"]);
}

#[tokio::test]
async fn versions_are_listed_compared_and_shown_as_text() {
    let server = Server::start().await;
    let found: Value = server.get("/api/definitions/d2/diff").await.json().await.unwrap();
    assert_eq!((&found["from"], &found["to"]), (&json!("d1"), &json!("d2")));
    let lines = json!([{"change": "removed", "text": "on: x"}, {"change": "added", "text": "on: push # <b>"}]);
    assert_eq!(found["lines"], lines);
    let found: Value = server.get("/api/definitions/d1/diff?from=d2").await.json().await.unwrap();
    assert_eq!((&found["from"], &found["lines"][0]["text"]), (&json!("d2"), &json!("on: push # <b>")));

    assert_eq!(server.get("/repositories/nonsense/edit").await.status(), StatusCode::NOT_FOUND);
    let key = Keys::generate().public_key().to_hex();
    let address = format!("30617:{key}:r");
    let page = server.get(&format!("/repositories/{address}/edit")).await.text().await.unwrap();
    assert!(page.contains("on: push # &#60;b&#62;") && !page.contains("# <b>"), "{page}");
    assert!(page.contains("current") && page.contains("earlier"), "{page}");
    assert_eq!(server.get(&format!("/repositories/{address}/edit?version=none")).await.status(), StatusCode::NOT_FOUND);
}
