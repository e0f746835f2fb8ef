//! The relay gone while a run is run again.

use longshore_tests::harness::{
    client::tag,
    process::{Process, printed_event},
    world::Relay,
};
use nix::sys::signal::Signal;
use nostr::Filter;
use serde_json::Value;

use super::{LIMIT, PATH, Stage, assert_one_end, needs_engine};

/// Fails the first time; then it takes a while.
const PIPELINE: &str = "\
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    outputs: {made: '${{ steps.make.outputs.made }}'}
    steps:
      - id: make
        run: echo \"made=by $GITHUB_RUN_ID\" >> \"$GITHUB_OUTPUT\"
  test:
    needs: build
    runs-on: ubuntu-latest
    steps:
      - run: test \"$GITHUB_RUN_ATTEMPT\" -gt 1
      - run: sleep 5; echo \"tests what was made ${{ needs.build.outputs.made }}\"
";

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_whose_relay_is_gone_goes_on_and_its_end_is_delivered_afterwards() {
    if !needs_engine() {
        return;
    }
    let stage = Stage::with(PIPELINE).await;
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[]).unwrap();
    let (run, job) = stage.world.send(&stage.world.press(stage.pool.pubkey, PATH)).await.unwrap();
    let first = stage.end(&run, &job, &[&coordinator, &worker]).await;
    assert_eq!(first.statuses().last().unwrap(), "failed");

    let nsec = stage.world.owner.secret_key().to_secret_hex();
    let id = run.id.to_hex();
    let (server, relay) = (stage.pool.http.as_str(), stage.relay.url.as_str());
    let arguments = ["rerun", &id, "--failed", "--json", "--server", server, "--relay", relay, "--detach"];
    let log = stage.folder.path().join("rerun.log");
    let mut rerun = Process::start_with("longshore", &arguments, &[("LONGSHORE_NSEC", &nsec)], &log).unwrap();
    assert_eq!(rerun.wait(LIMIT).unwrap(), 0, "{}", rerun.text());
    let text = rerun.text();
    let event = |kind: u64| printed_event(&text, kind).unwrap_or_default();
    let (again, again_job) = (stage.event(&event(5401)).await, stage.event(&event(5100)).await);
    stage.world.listener.status(&again_job, "running", LIMIT).await.unwrap();
    let port = stage.relay.port();
    stage.relay.process.signal(Signal::SIGKILL).unwrap();
    // Long enough for the run to end without it.
    let url = format!("{}/api/runs/{}", stage.pool.http, again.id.to_hex());
    let end = std::time::Instant::now() + LIMIT;
    let shown = loop {
        let shown: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
        if !shown["conclusion"].is_null() {
            break shown;
        }
        assert!(std::time::Instant::now() < end, "{shown:#}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    assert_eq!(shown["conclusion"], "success", "{shown:#}");
    let _relay = Relay::start_on(stage.folder.path(), port).unwrap();
    let answers = stage.end(&again, &again_job, &[&coordinator, &worker]).await;
    assert_one_end(&answers);
    assert_eq!(tag(answers.only(longshore_tests::harness::client::kind::RESULT).unwrap(), "success"), "true");
    let jobs = shown["jobs"].as_array().unwrap();
    assert_eq!(jobs[0]["carried_from"]["run"], stage.run_id(&id).await, "{shown:#}");
}

impl Stage {
    async fn run_id(&self, event: &str) -> Value {
        let url = format!("{}/api/runs/{event}", self.pool.http);
        let shown: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        shown["id"].clone()
    }

    /// An event as the relay has it.
    async fn event(&self, id: &str) -> nostr::Event {
        let client = nostr_sdk::Client::default();
        client.add_relay(&self.relay.url).await.unwrap();
        client.connect().await;
        let filter = Filter::new().id(nostr::EventId::from_hex(id).unwrap());
        let found = client.fetch_events(filter, LIMIT).await.unwrap();
        client.disconnect().await;
        found.first().cloned().unwrap()
    }
}
