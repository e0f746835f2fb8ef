//! How runs end other than by themselves: time, cancel.

use std::time::Duration;

use longshore_tests::harness::client::{kind, sign, tag};
use nostr::{Event, Keys};

use super::{LIMIT, PASSES, Run, Stage, needs_engine};

const SLEEPS: &str = "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: |\n          echo started\n          sleep 300\n";

fn cancel(author: &Keys, job: &Event, worker: &str) -> Event {
    let tags = vec![vec!["e".to_owned(), job.id.to_hex()], vec!["p".into(), worker.to_owned()]];
    sign(author, kind::CANCEL, tags).unwrap()
}

fn assert_cancelled(run: &Run) {
    run.assert_well_formed();
    assert_eq!(run.answers.statuses().last().unwrap(), "cancelled");
    assert_eq!((tag(run.result(), "success"), tag(run.result(), "exit_code")), ("false".into(), "130".into()));
    assert_eq!(tag(run.workflow_result(), "status"), "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn t28_a_run_past_its_time_ends_as_timeout_with_the_log_so_far() {
    needs_engine!();
    let stage = Stage::with_files(&[(super::PATH, SLEEPS)], &["--max-duration", "4"]).await;
    let run = stage.run(stage.press()).await;
    run.assert_normal_end("timeout");
    assert_eq!(tag(run.result(), "exit_code"), "124");
    assert_eq!(tag(run.workflow_result(), "status"), "failure");
    assert!(run.log().await.contains("started"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t29_a_cancel_by_the_author_ends_a_running_job() {
    needs_engine!();
    let stage = Stage::with(SLEEPS).await;
    let press = stage.press();
    let (run, job) = stage.world.send(&press).await.unwrap();
    stage.world.listener.status(&job, "running", LIMIT).await.unwrap();
    let worker = stage.dev.pubkey.to_hex();
    // A stranger's cancel changes nothing: had it counted, the author's would find the run ended as cancelled at once.
    let stranger = cancel(&Keys::generate(), &job, &worker);
    stage.world.listener.publish(&stranger).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(stage.world.listener.answers(&run, &job).len() == 2);
    stage.world.listener.publish(&cancel(&press.author, &job, &worker)).await.unwrap();
    assert_cancelled(&stage.ended(press, run, job).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn t31_a_deletion_request_cancels_a_queued_job() {
    let stage = Stage::with(&PASSES.replace("ubuntu-latest", "no-such-label")).await;
    let press = stage.press();
    let (run, job) = stage.world.send(&press).await.unwrap();
    stage.world.listener.status(&job, "queued", LIMIT).await.unwrap();
    let tags = vec![vec!["e".to_owned(), job.id.to_hex()], vec!["k".into(), "5100".into()]];
    stage.world.listener.publish(&sign(&press.author, 5, tags).unwrap()).await.unwrap();
    assert_cancelled(&stage.ended(press, run, job).await);
}
