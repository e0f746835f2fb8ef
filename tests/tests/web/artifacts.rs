//! Artifacts of a run, for those who may see it.

use std::sync::Arc;

use blobs::Deposit;
use bytes::Bytes;
use nostr::Keys;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::{Artifact, ArtifactChange, Change};

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
        allowed: None,
        limit: 100,
    };
    let sha256 =
        server.web.blobs.put_bytes(Bytes::from_static(b"zipped"), deposit).await.unwrap().blob().sha256.clone();
    let artifact = |id: u64, name: &str, expires_at: u64| {
        let (run, job, name) = ("p".into(), "build".into(), name.to_owned());
        let sha256 = sha256.clone();
        Change::Artifact(ArtifactChange::Add(Artifact {
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
    server.commit(vec![Change::Run(store::RunChange::whole(run("p", 1, &author, &hidden)))]).await;
    server.commit(vec![artifact(1, "report", NOW + 1), artifact(2, "old", NOW)]).await;
    let ask = async |keys: Option<&Keys>, path: &str| server.call(Method::GET, path, keys).await;
    let listed: Value = ask(Some(&author), "/api/runs/p/artifacts").await.json().await.unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!((listed[0]["name"].as_str(), listed[0]["size"].as_u64()), (Some("report"), Some(6)));
    // The link is the reader's own for an hour: a browser that follows it signs nothing.
    let path = listed[0]["url"].as_str().unwrap().strip_prefix(&server.url).unwrap().to_owned();
    let given = ask(None, &path).await;
    assert_eq!(given.headers()["content-disposition"], "attachment; filename=\"report.zip\"");
    assert_eq!(given.bytes().await.unwrap(), "zipped");
    // Its files are listed, and each is a download, whatever its name says.
    let files: Value = ask(Some(&author), "/api/runs/p/artifacts/report/files").await.json().await.unwrap();
    assert_eq!((files[0]["path"].as_str(), files[0]["size"].as_u64()), (Some("a/<b>.txt"), Some(3)), "{files}");
    let path = files[0]["url"].as_str().unwrap().strip_prefix(&server.url).unwrap().to_owned();
    let given = ask(None, &path).await;
    let headers = given.headers();
    assert_eq!(headers["content-disposition"], "attachment; filename=\"<b>.txt\"");
    assert_eq!(
        (&headers["content-type"], &headers["x-content-type-options"]),
        (&"application/octet-stream".parse().unwrap(), &"nosniff".parse().unwrap())
    );
    assert_eq!(given.bytes().await.unwrap(), "<b>");
    let page = ask(Some(&author), "/runs/p/artifacts/1").await.text().await.unwrap();
    assert!(page.contains("a/&#60;b&#62;.txt") && page.contains("Download all"), "{page}");
    for (keys, path) in [
        (None, "/api/runs/p/artifacts"),
        (None, "/runs/p/artifacts/1"),
        (None, "/api/runs/p/artifacts/1/files"),
        (Some(&stranger), "/api/runs/p/artifacts/1/file?path=a/%3Cb%3E.txt"),
        (Some(&author), "/api/runs/p/artifacts/1/file?path=b"),
        (Some(&stranger), "/api/runs/p/artifacts/report"),
        (Some(&author), "/api/runs/p/artifacts/old"),
        (None, &format!("/{sha256}")),
    ] {
        assert_eq!(ask(keys, path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let document: Value = server.get("/.well-known/jwks").await.json().await.unwrap();
    assert_eq!(document["keys"], json!([]));
}

#[tokio::test]
async fn a_link_into_a_private_run_leads_to_what_it_names_and_nowhere_else() {
    let server = Server::start().await;
    let reader = Keys::generate();
    let hidden = json!({"readers": [reader.public_key().to_hex()]});
    server.commit(vec![Change::Run(store::RunChange::whole(run("p", 1, &Keys::generate(), &hidden)))]).await;
    server.commit(vec![Change::Run(store::RunChange::whole(run("q", 2, &Keys::generate(), &hidden)))]).await;
    let page = server.call(Method::GET, "/runs/p", Some(&reader)).await.text().await.unwrap();
    let link = page.split("<a href=\"").find_map(|rest| rest.strip_prefix("/api/runs/p/logs?format=text")).unwrap();
    let link = format!("/api/runs/p/logs?format=text{}", link.split('"').next().unwrap()).replace("&#38;", "&");
    assert_eq!(server.get(&link).await.status(), 200, "{link}");
    let until = |seconds: u64| format!("until={}", NOW / 1000 + seconds);
    let stranger = Keys::generate().public_key().to_hex();
    for (what, wrong) in [
        ("another run", link.replace("/runs/p/", "/runs/q/")),
        ("another query", link.replace("format=text", "format=events")),
        ("a longer time", link.replace(&until(3600), &until(7200))),
        ("another reader", link.replace(&reader.public_key().to_hex(), &stranger)),
        ("another signature", format!("{}00", link)),
        ("a signature of nothing", "/api/runs/p?until=9999999999&reader=x&sig=".to_owned()),
    ] {
        assert_ne!(wrong, link, "{what}");
        assert_eq!(server.get(&wrong).await.status(), StatusCode::UNAUTHORIZED, "{what}");
    }
    assert_eq!(server.call(Method::POST, &link, None).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    server
        .commit(vec![Change::Run(store::RunChange::whole(run("open", 3, &Keys::generate(), &json!("public"))))])
        .await;
    let page = server.call(Method::GET, "/runs/open", Some(&reader)).await.text().await.unwrap();
    assert!(page.contains("href=\"/api/runs/open/logs?format=text\"") && !page.contains("sig="), "{page}");
}

#[tokio::test]
async fn a_private_run_stands_on_no_page_and_in_no_list_of_those_who_may_not_read_it() {
    let server = Server::start().await;
    let (reader, stranger) = (Keys::generate(), Keys::generate());
    let hidden = json!({"readers": [reader.public_key().to_hex()]});
    let mut state = run("p", 7, &stranger, &hidden);
    Arc::make_mut(&mut state.request).repository.address = "30617:o:hidden-place".into();
    server.commit(vec![Change::Run(store::RunChange::whole(state))]).await;
    let pages = ["/", "/repositories", "/api/runs", "/api/runs?repository=30617:o:hidden-place"];
    for path in pages {
        for (keys, sees) in
            [(None, false), (Some(&stranger), false), (Some(&reader), true), (Some(&server.operator), true)]
        {
            let page = server.call(Method::GET, path, keys).await.text().await.unwrap();
            let shown = page.contains("/runs/p\"") || page.contains("\"id\":\"p\"");
            assert_eq!(shown, sees, "{path} {keys:?}");
        }
    }
    let hidden = [
        "/repositories/30617:o:hidden-place",
        "/runs/p/log?job=x",
        "/api/runs/p/lines?job=x",
        "/api/runs/p/search?job=x&text=y",
    ];
    for path in hidden {
        let status = server.call(Method::GET, path, Some(&stranger)).await.status();
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
    let badge = server.call(Method::GET, "/api/badge.svg?repository=30617:o:hidden-place", Some(&reader)).await;
    assert!(badge.text().await.unwrap().contains("no runs"), "a badge is for everybody");
}
