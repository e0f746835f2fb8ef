//! Secrets, variables and caches of a repository: who sees their names, who changes them, and what a signature is good for.

use nostr::Keys;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use store::{Cache, CacheChange, RepositoryValue, ValueContent, ValueKind};

use super::{NOW, Server, authorization, hash};

const OWNER: &str = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

fn address(name: &str) -> String {
    format!("30617:{OWNER}:{name}")
}

fn values() -> String {
    format!("/api/repositories/{}/values", address("name"))
}

/// Who manages every repository here.
fn ann() -> Keys {
    Keys::parse("0000000000000000000000000000000000000000000000000000000000000001").unwrap()
}

fn value(kind: ValueKind, name: &str, content: ValueContent) -> RepositoryValue {
    RepositoryValue {
        repository: address("name"),
        environment: "<b>prod".into(),
        kind,
        name: name.into(),
        ordered_at: NOW / 1000 - 60,
        event: "ab".into(),
        author: ann().public_key().to_hex(),
        content: Some(content),
    }
}

async fn stage() -> Server {
    let server = Server::start().await;
    let sealed = ValueContent::Sealed { value: b"canary-sealed".to_vec(), wrapped_key: b"canary-key".to_vec() };
    server.web.store.order_value(value(ValueKind::Secret, "TOKEN", sealed)).await.unwrap();
    let plain = ValueContent::Plain("<i>eu".into());
    server.web.store.order_value(value(ValueKind::Variable, "REGION", plain)).await.unwrap();
    let cache = |id: u64, repository: &str| Cache {
        id,
        repository: address(repository),
        scope: "refs/heads/main".into(),
        key: format!("deps-<b>{}", id % 2),
        version: format!("v{id}"),
        sha256: format!("{id:064x}").parse().unwrap(),
        size: 5 << 20,
        made_at: NOW,
        used_at: NOW + id,
    };
    let caches = [cache(1, "name"), cache(2, "name"), cache(3, "other")];
    server.commit(caches.map(|one| CacheChange::Add(one).into()).into()).await;
    server
}

/// The header of a signed request for a body.
fn signed(server: &Server, path: &str, keys: &Keys, body: &str) -> String {
    let url = format!("{}{path}", server.url);
    let hash = hash(body.as_bytes());
    let tags = [("u", url.as_str()), ("method", "POST"), ("payload", hash.as_str())];
    authorization(keys, 27235, &tags, NOW / 1000)
}

async fn send(server: &Server, path: &str, header: Option<&str>, body: &str) -> Response {
    let mut request = server.http.post(format!("{}{path}", server.url)).body(body.to_owned());
    if let Some(header) = header {
        request = request.header("authorization", header);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn attack_28_names_are_for_those_who_manage_the_repository_and_values_of_secrets_for_nobody() {
    let server = stage().await;
    let (stranger, ann) = (Keys::generate(), ann());
    for path in [values(), values().replace("/values", "/caches")] {
        let mut refusals = Vec::new();
        for (signer, expected) in [(None, 401), (Some(&stranger), 403), (Some(&server.operator), 403)] {
            let answer = server.call(Method::GET, &path, signer).await;
            assert_eq!(answer.status().as_u16(), expected, "{path}");
            refusals.push(answer.text().await.unwrap());
        }
        // Of a repository that is unknown a stranger learns as much.
        let unknown = path.replace(OWNER, &"ab".repeat(32)).replace("name", "unknown");
        assert_eq!(server.call(Method::GET, &unknown, Some(&stranger)).await.text().await.unwrap(), refusals[1]);
        assert!(refusals.iter().all(|text| !text.contains("TOKEN") && !text.contains("deps")), "{refusals:?}");
    }
    let listed = server.call(Method::GET, &values(), Some(&ann)).await;
    assert_eq!(listed.headers()["cache-control"], "no-store");
    let listed: Value = listed.json().await.unwrap();
    let (author, set_at) = (ann.public_key().to_hex(), NOW / 1000 - 60);
    let expected = json!([
        {"kind": "secret", "name": "TOKEN", "environment": "<b>prod", "author": author, "set_at": set_at},
        {"kind": "variable", "name": "REGION", "environment": "<b>prod", "author": author, "set_at": set_at, "value": "<i>eu"},
    ]);
    assert_eq!(listed, expected);

    let page = &format!("/repositories/{}/settings", address("name"));
    let shown = async |signer| server.call(Method::GET, page, signer).await.text().await.unwrap();
    for (signer, said) in [(None, "id=\"sign-in\""), (Some(&stranger), "is not one of them")] {
        let page = shown(signer).await;
        assert!(page.contains(said) && !page.contains("TOKEN") && !page.contains("REGION"), "{page}");
    }
    let page = shown(Some(&ann)).await;
    for there in
        ["TOKEN", "REGION", "&#60;i&#62;eu", "&#60;b&#62;prod", "deps-&#60;b&#62;1", "5.0 MiB", "Ann &#60;b&#62;"]
    {
        assert!(page.contains(there), "{there}: {page}");
    }
    for absent in ["canary", "<b>prod", "<i>eu", "deps-<b>"] {
        assert!(!page.contains(absent), "{absent}: {page}");
    }
}

#[tokio::test]
async fn attack_56_an_order_is_signed_with_its_body_by_who_manages_the_repository_and_is_good_once() {
    let server = stage().await;
    let (stranger, ann) = (Keys::generate(), ann());
    let body = r#"{"kind": "secret", "name": "npm_token", "environment": "Prod", "value": "sealed"}"#;
    let other = r#"{"kind": "secret", "name": "npm_token", "value": "of somebody else"}"#;
    let (own, elsewhere) = (&values(), values().replace("name", "other"));
    let session: Value = server.call(Method::POST, "/api/sessions", Some(&ann)).await.json().await.unwrap();
    let session = format!("Bearer {}", session["token"].as_str().unwrap());
    let cases = [
        ("nobody signed", None, 401),
        ("a session, which reads alone", Some(session.clone()), 401),
        ("signed for another body", Some(signed(&server, own, &ann, other)), 401),
        ("signed for another repository", Some(signed(&server, &elsewhere, &ann, body)), 401),
        ("a stranger", Some(signed(&server, own, &stranger, body)), 403),
        ("the operator, who is no maintainer", Some(signed(&server, own, &server.operator, body)), 403),
    ];
    for (what, header, expected) in cases {
        let answer = send(&server, own, header.as_deref(), body).await;
        assert_eq!(answer.status().as_u16(), expected, "{what}: {}", answer.text().await.unwrap());
    }
    let listed = server.http.get(format!("{}{own}", server.url)).header("authorization", &session).send().await;
    assert_eq!(listed.unwrap().status().as_u16(), 200, "a session reads");
    for (body, expected) in [
        (r#"{"kind": "secret", "name": "GITHUB_TOKEN", "value": "x"}"#, 400),
        (r#"{"kind": "password", "name": "A", "value": "x"}"#, 400),
        (r#"{"kind": "secret", "name": "A", "value": "x", "force": true}"#, 400),
        (r#"{"kind": "secret", "name": "A", "environment": "a\nb", "value": "x"}"#, 400),
    ] {
        let answer = send(&server, own, Some(&signed(&server, own, &ann, body)), body).await;
        assert_eq!(answer.status().as_u16(), expected, "{body}");
    }
    assert!(server.asked.0.lock().is_empty(), "nothing was ordered");

    let header = signed(&server, own, &ann, body);
    let answer = send(&server, own, Some(&header), body).await;
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer, json!({"name": "NPM_TOKEN", "environment": "prod", "replaced": false}));
    let again = send(&server, own, Some(&header), body).await;
    assert_eq!(again.status().as_u16(), 401);
    assert!(again.text().await.unwrap().contains("was used before"));
    let by = format!("by {} at {}", ann.public_key().to_hex(), NOW / 1000);
    let told = server.asked.0.lock().clone();
    assert_eq!(told, [format!("secret NPM_TOKEN=sealed of {} \"prod\" {by}", address("name"))]);
    for (body, expected) in [
        (r#"{"kind": "variable", "name": "GONE"}"#, 404),
        (r#"{"kind": "variable", "name": "OLD", "value": "x"}"#, 409),
        (r#"{"kind": "variable", "name": "FULL", "value": "x"}"#, 400),
    ] {
        let answer = send(&server, own, Some(&signed(&server, own, &ann, body)), body).await;
        assert_eq!(answer.status().as_u16(), expected, "{body}");
    }
}

#[tokio::test]
async fn caches_are_deleted_by_id_or_key_of_their_own_repository_alone() {
    let server = stage().await;
    let (stranger, ann) = (Keys::generate(), ann());
    let path = &values().replace("/values", "/caches/delete");
    let delete =
        async |keys: &Keys, body: &str| send(&server, path, Some(&signed(&server, path, keys, body)), body).await;
    for (keys, body, expected) in [
        (&stranger, r#"{"id": 1}"#, 403),
        (&ann, r#"{}"#, 400),
        (&ann, r#"{"id": 3}"#, 404),
        (&ann, r#"{"key": "deps-<b>1", "scope": "refs/heads/other"}"#, 404),
    ] {
        assert_eq!(delete(keys, body).await.status().as_u16(), expected, "{body}");
    }
    assert!(server.asked.0.lock().is_empty(), "nothing was deleted");
    let answer: Value = delete(&ann, r#"{"key": "deps-<b>1"}"#).await.json().await.unwrap();
    assert_eq!(answer["caches"][0]["id"], 1, "not that of the other repository: {answer}");
    assert_eq!(delete(&ann, r#"{"id": 2, "scope": "refs/heads/main"}"#).await.status().as_u16(), 200);
    assert_eq!(server.asked.0.lock().clone(), ["delete cache 1", "delete cache 2"]);
}
