//! What belongs to a run: artifacts, caches, reruns, what was carried over, and why each job stands as it does.

use std::sync::Arc;

use domain::run::RunState;
use nostr::Keys;
use serde_json::{Value, json};
use store::{Artifact, ArtifactChange, CacheChange, CacheOutcome, CacheUse, Change};

use super::{NOW, Server, run};

fn job(phase: &Value, more: &Value) -> Value {
    let mut job = json!({
        "id": "", "leg": {"matrix": {}, "index": 0, "total": 1}, "name": "", "labels": [], "timeout_ms": 0,
        "tolerated": false, "fail_fast": true, "max_parallel": null, "attempts": [], "phase": phase,
    });
    job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    job
}

/// A rerun of `first`: one job carried over, one that was tried again.
pub(super) fn rerun(id: &str, serial: u64, visibility: &Value) -> RunState {
    let mut state = run(id, serial, &Keys::generate(), visibility);
    state.attempt = 2;
    state.rerun = Some(Arc::new(
        serde_json::from_value(json!({
            "previous": "first", "number": 1, "attempt": 2, "jobs": ["test"], "carried": {}, "calls": {}, "missing": [],
        }))
        .unwrap(),
    ));
    let carried = json!({"id": "build", "name": "Build", "carried": {"run": "first", "serial": 1}});
    let done = json!({"phase": "done", "conclusion": "success", "reason": null, "outcome": null});
    let attempts = json!([
        {"number": 1, "worker": "w1", "accepted_at": NOW, "begun_at": null, "lost": {"kind": "pull_failed", "detail": "no <net>"}},
        {"number": 2, "worker": "w2", "accepted_at": NOW, "begun_at": NOW, "lost": null},
    ]);
    let running = json!({"phase": "running", "since": NOW});
    let jobs = [
        ("build", job(&done, &carried)),
        ("test", job(&running, &json!({"id": "test", "name": "Test", "attempts": attempts}))),
    ];
    state.jobs.extend(jobs.map(|(key, job)| (key.into(), Arc::new(serde_json::from_value(job).unwrap()))));
    state
}

/// What the jobs of [`rerun`] left.
pub(super) fn left(id: &str) -> Vec<Change> {
    let artifact = |number: u64, job: &str, name: &str| {
        Change::Artifact(ArtifactChange::Add(Artifact {
            id: number,
            run: id.into(),
            job: job.into(),
            attempt: 1,
            name: name.into(),
            sha256: "ab".repeat(32).parse().unwrap(),
            size: 1536,
            made_at: NOW,
            expires_at: NOW + 1,
        }))
    };
    let used = |outcome, key: &str, found: Option<&str>| {
        Change::Cache(CacheChange::Use(CacheUse {
            run: id.into(),
            job: "test".into(),
            attempt: 2,
            outcome,
            key: key.into(),
            found: found.map(Into::into),
            size: found.map_or(0, |_| 5 << 20),
            at: NOW,
        }))
    };
    vec![
        artifact(1, "build", "program <b>"),
        artifact(2, "test", "report"),
        used(CacheOutcome::Hit, "deps-2", Some("deps-1")),
        used(CacheOutcome::Miss, "tools", None),
        used(CacheOutcome::Saved, "deps-2", Some("deps-2")),
    ]
}

#[tokio::test]
async fn a_rerun_shows_what_it_kept_used_and_carried_over_and_both_runs_lead_to_each_other() {
    let server = Server::start().await;
    let first = run("first", 1, &Keys::generate(), &json!("public"));
    server.commit(vec![Change::Run(store::RunChange::whole(first))]).await;
    server.commit(vec![Change::Run(store::RunChange::whole(rerun("again", 2, &json!("public"))))]).await;
    server.commit(vec![Change::Run(store::RunChange::whole(rerun("hidden", 3, &json!({"readers": []}))))]).await;
    server.commit(left("again")).await;

    let again: Value = server.get("/api/runs/again").await.json().await.unwrap();
    let artifacts: Vec<_> =
        again["artifacts"].as_array().unwrap().iter().map(|one| &one["carried_from"]["serial"]).collect();
    assert_eq!(artifacts, [&json!(1), &Value::Null]);
    let caches: Vec<_> = again["caches"].as_array().unwrap().iter().map(|one| (&one["outcome"], &one["key"])).collect();
    let expected = [("hit", "deps-2"), ("saved", "deps-2"), ("miss", "tools")].map(|(a, b)| (json!(a), json!(b)));
    assert_eq!(caches.len(), 3);
    assert!(expected.iter().all(|(outcome, key)| caches.contains(&(outcome, key))), "{caches:?}");
    assert_eq!((&again["previous_run"]["serial"], &again["previous_run"]["status"]), (&json!(1), &json!("queued")));
    let test = &again["jobs"][1];
    assert_eq!(test["attempts"][0]["lost"], "the image could not be pulled: no <net>");
    let first: Value = server.get("/api/runs/first").await.json().await.unwrap();
    let reruns: Vec<_> = first["reruns"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(reruns, ["again"], "one that is not open to the caller is not named");
    let listed: Vec<Value> = server.get("/api/runs?previous=first").await.json().await.unwrap();
    assert_eq!(listed.len(), 1);

    let page = server.get("/runs/again").await.text().await.unwrap();
    for part in [
        "<a href=\"/api/runs/again/artifacts/1\" download>program &#60;b&#62;</a> <a class=\"small\" href=\"/runs/again/artifacts/1\"",
        "from <a href=\"/runs/first\">an earlier attempt</a>",
        "its result and its log come from <a href=\"/runs/first\">an earlier attempt</a>",
        "<a href=\"/runs/first\">attempt 1</a> came before",
        "Attempt 1 on worker w1 was lost: the image could not be pulled: no &#60;net&#62;",
        "<span class=\"state success\">hit</span></td><td class=\"any\">deps-2</td><td class=\"any\">deps-1</td><td>5.0 MiB",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let page = server.get("/runs/first").await.text().await.unwrap();
    assert!(page.contains("<a href=\"/runs/again\">attempt 2</a>") && !page.contains("/runs/hidden"), "{page}");
}
