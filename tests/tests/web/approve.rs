//! Approving and rejecting what an environment holds back: who may, and what the signature has to cover.

use std::sync::Arc;

use nostr::Keys;
use reqwest::Response;
use serde_json::{Value, json};
use store::Change;

use super::{NOW, Server, authorization, hash, run};

const PATH: &str = "/api/runs/a/approve";

/// A run whose job waits for this key, to deploy to an environment of a hostile name.
async fn waiting(server: &Server, approver: &str) {
    let mut state = run("a", 1, &Keys::generate(), &json!("public"));
    let on = json!({"on": "approval", "environment": "<b>prod", "approvers": [approver]});
    let job = json!({
        "id": "deploy", "leg": {"matrix": {}, "index": 0, "total": 1}, "name": "deploy", "labels": [], "timeout_ms": 0,
        "tolerated": false, "fail_fast": true, "max_parallel": null, "attempts": [], "environment": "<b>prod",
        "gate": {"approvers": [approver], "until": NOW, "decision": null},
        "phase": {"phase": "waiting", "since": NOW, "on": on},
    });
    state.jobs.insert("deploy".into(), Arc::new(serde_json::from_value(job).unwrap()));
    server.commit(vec![Change::Run(store::RunChange::whole(state))]).await;
}

/// Sends one body with the signature of another.
async fn say(server: &Server, signer: Option<&Keys>, body: &str, signed: Option<&str>) -> Response {
    let url = format!("{}{PATH}", server.url);
    let mut request = server.http.post(&url).body(body.to_owned());
    if let Some(keys) = signer {
        let hash = signed.map(|signed| hash(signed.as_bytes()));
        let mut tags = vec![("u", url.as_str()), ("method", "POST")];
        tags.extend(hash.as_deref().map(|hash| ("payload", hash)));
        request = request.header("authorization", authorization(keys, 27235, &tags, NOW / 1000));
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn only_who_is_asked_decides_and_the_signature_covers_what_was_said() {
    let server = Server::start().await;
    let (approver, stranger) = (Keys::generate(), Keys::generate());
    waiting(&server, &approver.public_key().to_hex()).await;
    let yes = r#"{"environment": "<B>PROD", "verdict": "approved", "comment": "go"}"#;
    let no = r#"{"verdict": "rejected"}"#;
    let long = json!({"verdict": "approved", "comment": "x".repeat(1001)}).to_string();
    let cases = [
        ("nobody signed", None, yes, Some(yes), 401),
        ("no hash of the body", Some(&approver), yes, None, 401),
        ("the hash of another body", Some(&approver), no, Some(yes), 401),
        ("a stranger", Some(&stranger), yes, Some(yes), 403),
        ("the operator, who is not asked", Some(&server.operator), yes, Some(yes), 403),
        ("another environment", Some(&approver), r#"{"environment": "x", "verdict": "approved"}"#, None, 409),
        ("another job", Some(&approver), r#"{"job": "build", "verdict": "approved"}"#, None, 409),
        ("neither yes nor no", Some(&approver), r#"{"verdict": "maybe"}"#, None, 400),
        ("an unknown key", Some(&approver), r#"{"verdict": "approved", "force": true}"#, None, 400),
        ("a long comment", Some(&approver), &long, None, 400),
    ];
    for (what, signer, body, signed, expected) in cases {
        // Where the hash is not what the case is about, it fits.
        let signed = if expected == 401 { signed } else { Some(body) };
        let answer = say(&server, signer, body, signed).await;
        assert_eq!(answer.status().as_u16(), expected, "{what}: {}", answer.text().await.unwrap());
    }
    assert!(server.asked.0.lock().is_empty(), "nothing was decided");
    let answer: Value = say(&server, Some(&approver), yes, Some(yes)).await.json().await.unwrap();
    assert_eq!(answer, json!({"jobs": ["deploy"]}));
    let told = server.asked.0.lock().clone();
    assert_eq!(told, [format!("Approved a deploy by {}: go", approver.public_key().to_hex())]);
}

#[tokio::test]
async fn attack_14_a_run_that_is_held_back_is_approved_by_who_is_asked_and_shown_with_its_author() {
    let server = Server::start().await;
    let (approver, stranger) = (Keys::generate(), Keys::generate());
    let key = approver.public_key().to_hex();
    let mut state = run("a", 1, &stranger, &json!("public"));
    state.phase = serde_json::from_value(json!({
        "phase": "waiting", "on": {"on": "approval", "environment": "", "approvers": [key]},
    }))
    .unwrap();
    state.gate = serde_json::from_value(json!({"approvers": [key], "until": NOW, "decision": null})).unwrap();
    server.commit(vec![Change::Run(store::RunChange::whole(state))]).await;

    let waits = format!("waits for an approval by {}: its author is no maintainer of the repository", &key[..8]);
    let shown: Value = server.get("/api/runs/a").await.json().await.unwrap();
    assert_eq!((&shown["waits"], &shown["approval"]["waits"]), (&json!(waits), &json!(true)));
    let listed: Value = server.get("/api/runs?status=waiting").await.json().await.unwrap();
    assert_eq!(
        listed[0]["waits"],
        "waits for an approval by a maintainer: its author is no maintainer of the repository"
    );
    let page = server.get("/runs/a").await.text().await.unwrap();
    assert!(page.contains(&format!("data-job=\"\" data-approvers=\"{key}\"")), "{page}");

    let yes = r#"{"verdict": "approved", "comment": "looks fine"}"#;
    for (signer, body, expected) in [
        (&stranger, yes, 403),
        (&server.operator, yes, 403),
        (&approver, r#"{"job": "build", "verdict": "approved"}"#, 409),
    ] {
        assert_eq!(say(&server, Some(signer), body, Some(body)).await.status().as_u16(), expected);
    }
    let answer: Value = say(&server, Some(&approver), yes, Some(yes)).await.json().await.unwrap();
    assert_eq!(answer, json!({"jobs": [""]}));
    assert_eq!(server.asked.0.lock().clone(), [format!("Approved a  by {key}: looks fine")]);
}

#[tokio::test]
async fn whom_it_waits_for_stands_in_the_run_the_queue_and_the_page() {
    let server = Server::start().await;
    let key = Keys::generate().public_key().to_hex();
    waiting(&server, &key).await;
    let waits = format!("waits for an approval of the environment <b>prod by {}", &key[..8]);
    let run: Value = server.get("/api/runs/a").await.json().await.unwrap();
    assert_eq!((&run["waits"], &run["jobs"][0]["waits"]), (&json!(waits), &json!(waits)));
    let approval = json!({
        "environment": "<b>prod", "approvers": [key], "waits": true,
        "verdict": null, "by": null, "by_name": null, "comment": null, "at": null,
    });
    assert_eq!(run["jobs"][0]["approval"], approval);
    let listed: Value = server.get("/api/runs?status=waiting").await.json().await.unwrap();
    assert_eq!(listed[0]["waits"], "waits for an approval of the environment <b>prod");
    let queue: Value = server.get("/api/queue").await.json().await.unwrap();
    assert_eq!((&queue["entries"][0]["job"], &queue["entries"][0]["reason"]), (&json!("deploy"), &json!(waits)));
    let page = server.get("/runs/a").await.text().await.unwrap();
    assert!(page.contains(&format!("data-approvers=\"{key}\"")) && !page.contains("<b>prod"), "{page}");
}
