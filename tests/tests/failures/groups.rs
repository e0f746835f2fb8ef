//! Concurrency groups between runs of one pool, and what a kill of the coordinator leaves of them.

use longshore_tests::harness::client::{kind, sign, tag};
use nostr::Event;

use super::{LIMIT, PATH, Stage, needs_engine};

const DEPLOY: &str = "\
on: push
concurrency: {group: '${{ github.ref_name }}-deploy'}
jobs:
  deploy:
    runs-on: ubuntu-latest
    steps:
      - run: sleep 3600
";

impl Stage {
    pub(super) async fn cancel(&self, job: &Event) {
        let tags = vec![vec!["e".into(), job.id.to_hex()], vec!["p".into(), self.pool.pubkey.to_hex()]];
        self.world.listener.publish(&sign(&self.world.owner, kind::CANCEL, tags).unwrap()).await.unwrap();
    }

    async fn press(&self) -> (Event, Event) {
        self.world.send(&self.world.press(self.pool.pubkey, PATH)).await.unwrap()
    }

    /// A run as the API shows it.
    async fn shown(&self, run: &Event) -> serde_json::Value {
        let url = format!("{}/api/runs/{}", self.pool.http, run.id.to_hex());
        reqwest::get(url).await.unwrap().json().await.unwrap()
    }

    /// Waits until a status says why the run waits.
    async fn waits(&self, (run, job): &(Event, Event), reason: &str) {
        let told = self.world.listener.answered(run, job, LIMIT, |answers| {
            answers
                .of(kind::STATUS)
                .iter()
                .any(|event| tag(event, "status") == "queued" && tag(event, "reason") == reason)
        });
        told.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_groups_holder_and_queue_survive_a_kill_and_each_run_that_gives_way_says_to_whom() {
    if !needs_engine() {
        return;
    }
    let stage = Stage::with(DEPLOY).await;
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[]).unwrap();
    let first = stage.begin().await;
    let held = format!("held by run {} of the concurrency group main-deploy", stage.shown(&first.0).await["serial"]);
    let second = stage.press().await;
    stage.waits(&second, &held).await;
    coordinator.kill().unwrap();

    let coordinator = stage.pool.coordinator().unwrap();
    let third = stage.press().await;
    stage.waits(&third, &held).await;
    let replaced = stage.end(&second.0, &second.1, &[&coordinator]).await;
    assert_eq!(replaced.statuses().last().unwrap(), "cancelled");
    let shown = stage.shown(&third.0).await;
    let error = tag(replaced.only(kind::RESULT).unwrap(), "error");
    assert_eq!(error, format!("cancelled by run {} of the concurrency group main-deploy", shown["serial"]));
    assert_eq!(shown["waits"], held, "{shown}");
    coordinator.kill().unwrap();

    let coordinator = stage.pool.coordinator().unwrap();
    stage.cancel(&first.1).await;
    let cancelled = stage.end(&first.0, &first.1, &[&coordinator, &worker]).await;
    assert_eq!(cancelled.statuses().last().unwrap(), "cancelled");
    stage.world.listener.status(&third.1, "running", LIMIT).await.unwrap();
    stage.cancel(&third.1).await;
    stage.end(&third.0, &third.1, &[&coordinator, &worker]).await;
}

/// Holds one group, and asks for another after a while; which ones says the request.
const CROSSES: &str = "\
on: push
concurrency: {group: '${{ vars.OWN }}'}
jobs:
  begin:
    runs-on: ubuntu-latest
    steps:
      - run: sleep 8
  cross:
    needs: begin
    runs-on: ubuntu-latest
    concurrency: {group: '${{ vars.OTHER }}'}
    steps:
      - run: echo through
";

#[tokio::test(flavor = "multi_thread")]
async fn of_two_runs_that_come_to_wait_for_each_other_one_is_told_why_it_gives_up_and_the_other_ends_well() {
    if !needs_engine() {
        return;
    }
    let stage = Stage::with(CROSSES).await;
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[("LONGSHORE_SLOTS", "2")]).unwrap();
    let mut runs = Vec::new();
    for (own, other) in [("a", "b"), ("b", "a")] {
        let mut press = stage.world.press(stage.pool.pubkey, PATH);
        press.env = vec![("OWN".into(), own.into()), ("OTHER".into(), other.into())];
        runs.push(stage.world.send(&press).await.unwrap());
    }
    let mut ends = Vec::new();
    for (run, job) in &runs {
        let answers = stage.end(run, job, &[&coordinator, &worker]).await;
        let error = tag(answers.only(kind::RESULT).unwrap(), "error");
        ends.push((answers.statuses().last().unwrap().clone(), error));
    }
    ends.sort();
    let [(cancelled, why), (completed, _)] = &ends[..] else { panic!("{ends:?}") };
    assert_eq!((cancelled.as_str(), completed.as_str()), ("cancelled", "completed"), "{ends:?}");
    assert!(why.contains("a circle of waits: run ") && why.contains("holds the concurrency group "), "{why}");
}
