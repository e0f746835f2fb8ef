//! Runs that are run again, asked for as a user would with `longshore rerun`.

use std::process::Output;

use longshore_tests::harness::{client::tag, process};
use nostr::Keys;
use serde_json::Value;

use super::{LIMIT, PATH, Run, Stage, needs_engine};

/// `test` fails the first time; `deploy` shows what `build` gave it, and has a secret.
const PIPELINE: &str = "\
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    outputs: {from: '${{ steps.say.outputs.from }}'}
    steps:
      - id: say
        run: echo \"from=run-$GITHUB_RUN_ID\" >> \"$GITHUB_OUTPUT\"
  test:
    needs: build
    runs-on: ubuntu-latest
    steps:
      - run: test \"$GITHUB_RUN_ATTEMPT\" -gt 1
  deploy:
    needs: [build, test]
    runs-on: ubuntu-latest
    env: {TOKEN: '${{ secrets.TOKEN }}'}
    steps:
      - run: test \"$TOKEN\" = tell-nobody && echo \"deploys what ${{ needs.build.outputs.from }} built\"
";

impl Stage {
    /// The pipeline's first run, which failed.
    async fn failed_once(&self) -> (Run, Value) {
        let mut press = self.press();
        press.secrets = vec![("TOKEN".into(), "tell-nobody".into())];
        let run = self.run(press).await;
        run.assert_normal_end("failed");
        let shown = self.shown(&run.run.id.to_hex()).await;
        assert_eq!(jobs(&shown), "build=success test=failure deploy=skipped");
        assert_eq!(shown["secret_names"], serde_json::json!(["TOKEN"]));
        (run, shown)
    }

    async fn shown(&self, run: &str) -> Value {
        let url = format!("{}/api/runs/{run}", self.dev.http.trim_end_matches('/'));
        reqwest::get(url).await.unwrap().error_for_status().unwrap().json().await.unwrap()
    }

    pub(super) async fn longshore(&self, author: &Keys, arguments: &[&str], token: Option<&str>) -> Output {
        let mut command = tokio::process::Command::new(process::binary("longshore").unwrap());
        command.args(arguments).env_remove("TOKEN").env("LONGSHORE_NSEC", author.secret_key().to_secret_hex());
        command.env("LONGSHORE_RELAY", &self.dev.relay).kill_on_drop(true);
        if let Some(token) = token {
            command.env("TOKEN", token);
        }
        tokio::time::timeout(LIMIT, command.output()).await.expect("it ends").unwrap()
    }

    async fn rerun(&self, author: &Keys, run: &str, how: &[&str], token: Option<&str>) -> Rerun {
        let server = self.dev.http.trim_end_matches('/');
        let arguments = [&["rerun", run, "--json", "--server", server], how].concat();
        let output = self.longshore(author, &arguments, token).await;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let event = process::printed_event(&text, 5401).unwrap_or_default();
        Rerun { code: output.status.code(), event, text }
    }
}

struct Rerun {
    code: Option<i32>,
    /// Id of the new 5401.
    event: String,
    text: String,
}

fn jobs(run: &Value) -> String {
    let jobs = run["jobs"].as_array().unwrap().iter();
    let word = |job: &Value| format!("{}={}", job["key"].as_str().unwrap(), job["conclusion"].as_str().unwrap_or("?"));
    jobs.map(word).collect::<Vec<_>>().join(" ")
}

/// Keys of the jobs whose results came from this run.
fn carried(run: &Value, from: &Value) -> Vec<String> {
    let jobs = run["jobs"].as_array().unwrap().iter();
    let theirs = jobs.filter(|job| job["carried_from"]["run"] == from["id"]);
    theirs.map(|job| job["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_of_what_failed_carries_the_rest_over_and_ends_in_a_new_signed_chain() {
    needs_engine!();
    let stage = Stage::with(PIPELINE).await;
    let (first, shown) = stage.failed_once().await;
    let owner = &stage.world.owner;

    let again = stage.rerun(owner, &shown["id"].to_string().replace('"', ""), &["--failed"], Some("tell-nobody")).await;
    assert_eq!(again.code, Some(0), "{}", again.text);
    let rerun = stage.shown(&again.event).await;
    assert_eq!(jobs(&rerun), "build=success test=success deploy=success");
    assert_eq!(carried(&rerun, &shown), ["build"]);
    assert_eq!((&rerun["previous"], &rerun["number"]), (&shown["id"], &shown["number"]));
    assert_eq!(rerun["attempt"], 2);
    let log = reqwest::get(rerun["log_url"].as_str().unwrap()).await.unwrap().text().await.unwrap();
    assert!(log.contains(&format!("deploys what run-{} built", shown["serial"])), "{log}");
    assert!(!log.contains("tell-nobody"));

    let verified = stage.longshore(owner, &["verify", &again.event], None).await;
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let before = stage.longshore(owner, &["verify", &first.run.id.to_hex()], None).await;
    assert!(before.status.success(), "the earlier chain stays as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_of_all_runs_all_and_one_of_a_job_runs_it_alone() {
    needs_engine!();
    let stage = Stage::with(PIPELINE).await;
    let (first, shown) = stage.failed_once().await;
    let (owner, id) = (&stage.world.owner, first.run.id.to_hex());

    let all = stage.rerun(owner, &id, &[], Some("tell-nobody")).await;
    assert_eq!(all.code, Some(0), "{}", all.text);
    let all = stage.shown(&all.event).await;
    assert_eq!((jobs(&all), carried(&all, &shown)), ("build=success test=success deploy=success".into(), vec![]));

    let event = all["run_event"].as_str().unwrap();
    let one = stage.rerun(owner, event, &["--job", "deploy"], Some("tell-nobody")).await;
    assert_eq!(one.code, Some(0), "{}", one.text);
    let one = stage.shown(&one.event).await;
    assert_eq!(carried(&one, &all), ["build", "test"]);
    assert_eq!(one["attempt"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_asked_for_again_and_a_job_that_misses_one_is_refused_by_name() {
    needs_engine!();
    let stage = Stage::with(PIPELINE).await;
    let (first, _) = stage.failed_once().await;
    let (owner, id) = (&stage.world.owner, first.run.id.to_hex());

    let asked = stage.rerun(owner, &id, &["--failed"], None).await;
    assert_eq!(asked.code, Some(2), "{}", asked.text);
    assert!(asked.text.contains("TOKEN") && asked.event.is_empty(), "nothing is published: {}", asked.text);

    let without = stage.rerun(owner, &id, &["--failed", "--without-secret", "TOKEN"], None).await;
    assert_eq!(without.code, Some(1), "{}", without.text);
    assert!(without.text.contains("jobs.deploy: it uses the secret TOKEN"), "{}", without.text);
    assert_eq!(jobs(&stage.shown(&without.event).await), "build=success test=success deploy=failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_by_a_stranger_or_of_what_is_not_there_is_refused_with_a_reason() {
    needs_engine!();
    let stage = Stage::with_files(&[(PATH, PIPELINE), (".github/workflows/other.yml", PIPELINE)], &[]).await;
    let (first, _) = stage.failed_once().await;
    let (owner, id) = (&stage.world.owner, first.run.id.to_hex());

    let stranger = stage.rerun(&Keys::generate(), &id, &["--failed"], Some("x")).await;
    assert_eq!(stranger.code, Some(1), "{}", stranger.text);
    let unknown = stage.rerun(owner, &id, &["--job", "tset"], Some("x")).await;
    assert_eq!(unknown.code, Some(1), "{}", unknown.text);
    assert!(unknown.text.contains("its jobs are: build, test, deploy"), "{}", unknown.text);

    let again = |previous: &str| vec![vec!["previous".into(), previous.into()], vec!["rerun".into(), "failed".into()]];
    for (workflow, more, reason) in [
        (PATH, again(&"0".repeat(64)), "is none of this workflow and repository here"),
        (".github/workflows/other.yml", again(&id), "is none of this workflow and repository here"),
        (PATH, vec![vec!["previous".into(), id.clone()]], "give both"),
        (PATH, vec![vec!["previous".into(), id.clone()], vec!["rerun".into(), "some".into()]], "`rerun` is `all`"),
    ] {
        let mut press = stage.press();
        (press.workflow, press.more) = (workflow.into(), more);
        let refused = stage.run(press).await;
        assert_eq!(refused.answers.statuses().last().unwrap(), "failed");
        assert!(tag(refused.result(), "error").contains(reason), "{}", refused.error());
    }
}

const GREETS: &str = "\
on:
  workflow_dispatch:
    inputs: {who: {type: string, default: world}}
jobs:
  greet:
    runs-on: ubuntu-latest
    env: {WHO: '${{ inputs.who }}'}
    steps:
      - run: test \"$WHO\" = bob
";

#[tokio::test(flavor = "multi_thread")]
async fn inputs_of_a_submit_reach_the_run_and_its_rerun_and_who_does_not_wait_is_told_which_run_it_is() {
    needs_engine!();
    let stage = Stage::with(GREETS).await;
    let (owner, pool, repository) = (&stage.world.owner, stage.dev.pubkey.to_hex(), stage.world.address());
    let server = stage.dev.http.trim_end_matches('/');
    let submit = ["submit", "--to", &pool, "--repository", &repository, "-W", PATH, "--server", server];
    let submitted = stage.longshore(owner, &[submit.as_slice(), &["--input", "who=bob"]].concat(), None).await;
    let said = String::from_utf8_lossy(&submitted.stdout).into_owned();
    assert_eq!(submitted.status.code(), Some(0), "{said}");
    let run = said.lines().find_map(|line| line.strip_prefix("  run ")?.split(':').next()).unwrap_or_default();
    let again = stage.rerun(owner, run, &[], None).await;
    assert_eq!(again.code, Some(0), "{}", again.text);

    let page = format!(": {server}/runs/");
    let detached = stage.longshore(owner, &[submit.as_slice(), &["--detach"]].concat(), None).await;
    let said = String::from_utf8_lossy(&detached.stdout);
    assert!(detached.status.success() && said.contains(&page), "{said}");
}
