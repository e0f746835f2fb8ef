//! Artifacts of a run, for those who may see it.

use bytes::Bytes;
use coordinator::{
    blob::Deposit,
    store::{Artifact, Change, Kept},
};
use nostr::Keys;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{NOW, Server, run};

#[tokio::test]
async fn artifacts_are_listed_and_given_to_those_who_may_see_their_run_until_their_time_is_over() {
    let server = Server::start().await;
    let (author, stranger) = (Keys::generate(), Keys::generate());
    let hidden = json!({"readers": [author.public_key().to_hex()]});
    let deposit = Deposit {
        kind: "application/zip".into(),
        owner: "artifact:1".into(),
        public: false,
        now: NOW,
        expires_at: NOW + 1000,
        allowed: Vec::new(),
        limit: 100,
    };
    let sha256 =
        server.web.blobs.put_bytes(Bytes::from_static(b"zipped"), deposit).await.unwrap().blob().sha256.clone();
    let artifact = |id: u64, name: &str, expires_at: u64| {
        let (run, job, name) = ("p".to_owned(), "build".to_owned(), name.to_owned());
        let sha256 = sha256.clone();
        Change::Kept(Kept::Artifact(Artifact {
            id,
            run,
            job,
            attempt: 1,
            name,
            sha256,
            size: 6,
            made_at: NOW,
            expires_at,
        }))
    };
    server.commit(vec![Change::Run(Box::new(run("p", 1, &author, &hidden)))]).await;
    server.commit(vec![artifact(1, "report", NOW + 1), artifact(2, "old", NOW)]).await;
    let ask = async |keys: Option<&Keys>, path: &str| server.call(Method::GET, path, keys).await;
    let listed: Value = ask(Some(&author), "/api/runs/p/artifacts").await.json().await.unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!((listed[0]["name"].as_str(), listed[0]["size"].as_u64()), (Some("report"), Some(6)));
    let path = listed[0]["url"].as_str().unwrap().strip_prefix(&server.url).unwrap().to_owned();
    let given = ask(Some(&author), &path).await;
    assert_eq!(given.headers()["content-disposition"], "attachment; filename=\"report.zip\"");
    assert_eq!(given.bytes().await.unwrap(), "zipped");
    for (keys, path) in [
        (None, "/api/runs/p/artifacts"),
        (Some(&stranger), "/api/runs/p/artifacts/report"),
        (Some(&author), "/api/runs/p/artifacts/old"),
        (None, &format!("/{sha256}")),
    ] {
        assert_eq!(ask(keys, path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let document: Value = server.get("/.well-known/jwks").await.json().await.unwrap();
    assert_eq!(document["keys"], json!([]));
}
