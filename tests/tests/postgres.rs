//! A whole pool whose coordinator has its state in PostgreSQL, and is killed there.
#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use std::time::Duration;

use longshore_tests::harness::{
    client::{kind, tag},
    pool::Pool,
    world::{Relay, World},
};

const LIMIT: Duration = Duration::from_secs(120);
const FILE: &str = ".github/workflows/ci.yml";
const WORKFLOW: &str = "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    strategy:\n      matrix: {leg: [1, 2]}\n    \
                        steps:\n      - run: echo hi\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_on_postgresql_runs_jobs_and_goes_on_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(folder.path()).unwrap();
    let world = World::new(&relay.url, &[(FILE, WORKFLOW)]).await.unwrap();
    let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url)).unwrap();
    let pool = pool.with("LONGSHORE_STORE_URL", &store::testing::postgres_database().await.unwrap());
    let coordinator = pool.coordinator().unwrap();
    let worker = pool.worker(&[("LONGSHORE_SANDBOX", "host")]).unwrap();
    let first = world.send(&world.press(pool.pubkey, FILE)).await.unwrap();
    let answers = world.listener.end(&first.0, &first.1, LIMIT).await.unwrap();
    assert_eq!(tag(answers.only(kind::RESULT).unwrap(), "success"), "true");

    // A run that waits for a worker when the coordinator dies is taken up by its next life.
    drop(worker);
    let second = world.send(&world.press(pool.pubkey, FILE)).await.unwrap();
    world.listener.status(&second.1, "queued", LIMIT).await.unwrap();
    coordinator.kill().unwrap();
    let _coordinator = pool.coordinator().unwrap();
    let _worker = pool.worker(&[("LONGSHORE_SANDBOX", "host")]).unwrap();
    let answers = world.listener.end(&second.0, &second.1, LIMIT).await.unwrap();
    assert_eq!(tag(answers.only(kind::RESULT).unwrap(), "success"), "true");

    let runs: serde_json::Value = reqwest::get(format!("{}/api/runs", pool.http)).await.unwrap().json().await.unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 2, "{runs}");
    assert!(!pool.folder.join("data/longshore.db").exists(), "no second database is made");
}
