//! Failures made for real: processes killed and stopped, relays and engines gone. Whatever happens, an accepted job
//! gets exactly one set of final events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod approval;
mod groups;
mod job_process;
mod kills;
mod rerun;
mod storage;
mod upgrade;

use std::time::Duration;

use longshore_tests::harness::{
    client::{Answers, kind, tag},
    engine::{self, OwnEngine},
    pool::Pool,
    process::Process,
    world::{Relay, World},
};
use nix::sys::signal::Signal;
use nostr::Event;

const LIMIT: Duration = Duration::from_secs(180);
const PATH: &str = ".github/workflows/ci.yml";

/// A job that runs for a while after it said so.
fn lasting(seconds: u32) -> String {
    format!(
        "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: |\n          echo begun\n          \
         sleep {seconds}\n          echo done\n"
    )
}

/// A pool of processes over a relay process, and a repository.
struct Stage {
    pool: Pool,
    world: World,
    relay: Relay,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn with(workflow: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let relay = Relay::start(folder.path()).unwrap();
        let world = World::new(&relay.url, &[(PATH, workflow)]).await.unwrap();
        let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url)).unwrap();
        Self { pool, world, relay, folder }
    }

    async fn begin(&self) -> (Event, Event) {
        let press = self.world.press(self.pool.pubkey, PATH);
        let (run, job) = self.world.send(&press).await.unwrap();
        self.world.listener.status(&job, "running", LIMIT).await.unwrap();
        (run, job)
    }

    /// Waits for all of the end: a relay that came back gives the newest first, so the last status proves no result.
    async fn end(&self, run: &Event, job: &Event, processes: &[&Process]) -> Answers {
        let complete = |answers: &Answers| {
            answers.ended() && [kind::RESULT, kind::WORKFLOW_RESULT].iter().all(|kind| !answers.of(*kind).is_empty())
        };
        let answers = self.world.listener.answered(run, job, LIMIT, complete).await;
        answers.unwrap_or_else(|error| {
            let logs: Vec<String> = processes.iter().map(|process| process.text()).collect();
            panic!("{error:#}\n{}", logs.join("\n----\n"))
        })
    }
}

/// Exactly one set of final events, each id once.
fn assert_one_end(answers: &Answers) {
    let result = answers.only(kind::RESULT).unwrap();
    assert!(answers.of(kind::WORKFLOW_RESULT).len() == 1);
    let finals: Vec<String> =
        answers.statuses().into_iter().filter(|status| !matches!(status.as_str(), "queued" | "running")).collect();
    assert_eq!(finals.len(), 1, "{finals:?}");
    assert_eq!(finals[0] == "completed", tag(result, "success") == "true");
}

fn needs_engine() -> bool {
    engine::available(std::thread::current().name().unwrap_or("?"))
}

#[tokio::test(flavor = "multi_thread")]
async fn t32_a_worker_killed_in_a_step_is_made_up_for_or_named_as_the_reason() {
    if !needs_engine() {
        return;
    }
    let stage = Stage::with(&lasting(8)).await;
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[]).unwrap();
    let (run, job) = stage.begin().await;
    worker.kill().unwrap();
    let again = stage.pool.worker(&[]).unwrap();
    let answers = stage.end(&run, &job, &[&coordinator, &again]).await;
    assert_one_end(&answers);
    let result = answers.only(kind::RESULT).unwrap();
    let made_up_for = tag(result, "success") == "true";
    assert!(made_up_for || tag(result, "error").contains("worker"), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_a_coordinator_killed_in_a_step_adopts_the_job_and_repeats_no_event_under_another_id() {
    if !needs_engine() {
        return;
    }
    let stage = Stage::with(&lasting(10)).await;
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[]).unwrap();
    let (run, job) = stage.begin().await;
    let before = stage.world.listener.answers(&run, &job);
    coordinator.kill().unwrap();
    let again = stage.pool.coordinator().unwrap();
    let answers = stage.end(&run, &job, &[&again, &worker]).await;
    assert_one_end(&answers);
    assert_eq!(answers.statuses(), ["queued", "running", "completed"], "the job went on: it was not run twice");
    assert!(before.iter().all(|event| answers.0.contains(event)), "what was published stays as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn t33_with_all_relays_gone_for_two_minutes_the_end_is_delivered_afterwards() {
    if !needs_engine() {
        return;
    }
    let stage = Stage::with(&lasting(3)).await;
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[]).unwrap();
    let (run, job) = stage.begin().await;
    let port = stage.relay.port();
    stage.relay.process.signal(Signal::SIGKILL).unwrap();
    // The outage itself is what is tested.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let _relay = Relay::start_on(stage.folder.path(), port).unwrap();
    let answers = stage.end(&run, &job, &[&coordinator, &worker]).await;
    assert_one_end(&answers);
    assert_eq!(answers.statuses().last().unwrap(), "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_paused_past_its_lease_has_its_late_result_refused() {
    if !needs_engine() {
        return;
    }
    let stage = Stage::with(&lasting(5)).await;
    let coordinator = stage.pool.coordinator().unwrap();
    let paused = stage.pool.worker(&[]).unwrap();
    let (run, job) = stage.begin().await;
    paused.signal(Signal::SIGSTOP).unwrap();
    // Longer than the lease of 30 s: the coordinator gives the attempt up while the worker cannot know.
    tokio::time::sleep(Duration::from_secs(40)).await;
    paused.signal(Signal::SIGCONT).unwrap();
    let answers = stage.end(&run, &job, &[&coordinator, &paused]).await;
    assert_one_end(&answers);
    assert!(coordinator.text().contains("attempt lost"), "the coordinator says which attempt it gave up");
    assert!(paused.text().contains("stopped"), "the worker was told that its attempt is not current");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_restarted_in_a_step_ends_the_job_with_a_reason() {
    if !needs_engine() {
        return;
    }
    let stage = Stage::with(&lasting(120)).await;
    let mut own = OwnEngine::start(&stage.folder.path().join("engine")).unwrap();
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[("DOCKER_HOST", &own.host())]).unwrap();
    let (run, job) = stage.begin().await;
    own.stop().unwrap();
    own.resume().unwrap();
    let answers = stage.end(&run, &job, &[&coordinator, &worker]).await;
    assert_one_end(&answers);
    let error = tag(answers.only(kind::RESULT).unwrap(), "error");
    assert!(error.contains("container") || error.contains("Docker engine"), "{error}");
}
