//! Secrets and variables that a maintainer stored, set as a user would with `longshore secret` and `longshore variable`:
//! which runs and jobs have them, and which value counts.

use std::process::Stdio;

use longshore_tests::harness::{process, world::World};
use nostr::Keys;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::{LIMIT, PATH, Stage, needs_engine};

/// Each job prints its secrets, which are to be masked, their lengths, and its variables.
const SHOWS: &str = "\
on: [push, workflow_dispatch]
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - run: 'echo \"build <${{ secrets.npm_token }}> ${#TOKEN} ${#KEY} ${{ vars.REGION }}/${{ vars.OWN }}.\"'
        env: {TOKEN: '${{ secrets.NPM_TOKEN }}', KEY: '${{ secrets.DEPLOY_KEY }}'}
  deploy:
    if: vars.REGION != 'nowhere'
    runs-on: ubuntu-latest
    environment: Production
    steps:
      - run: 'echo \"deploy <${{ secrets.npm_token }}> ${#TOKEN} ${#KEY} ${{ vars.REGION }}/${{ vars.OWN }}.\"'
        env: {TOKEN: '${{ secrets.NPM_TOKEN }}', KEY: '${{ secrets.DEPLOY_KEY }}'}
";

impl Stage {
    /// A command about what is stored for a repository: its code, and what it prints.
    async fn stored(&self, world: &World, by: &Keys, arguments: &[&str], input: &str) -> (i32, String) {
        let mut command = tokio::process::Command::new(process::binary("longshore").unwrap());
        command.args(arguments).args(["--server", self.dev.http.trim_end_matches('/')]);
        command.env("LONGSHORE_REPOSITORY", world.address()).env("LONGSHORE_NSEC", by.secret_key().to_secret_hex());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it ends").unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    async fn set(&self, arguments: &[&str], input: &str) {
        let (code, text) = self.stored(&self.world, &self.world.owner, arguments, input).await;
        let shows = !input.is_empty() && text.contains(input.trim());
        assert!(code == 0 && !shows, "{arguments:?}: {text}");
    }
}

/// What the jobs printed.
fn said(log: &str) -> Vec<&str> {
    let line = |line: &'_ str| line.find("| ").map_or(line.len(), |at| at + 2);
    let lines = log.lines().map(|text| text[line(text)..].trim());
    lines.filter(|text| text.starts_with("build <") || text.starts_with("deploy <")).collect()
}

async fn stage() -> Stage {
    let stage = Stage::with_files(&[(PATH, SHOWS)], &[]).await;
    stage.set(&["secret", "set", "npm_token"], "stored-for-all\n").await;
    stage.set(&["secret", "set", "NPM_TOKEN", "--environment", "production"], "stored-for-production").await;
    stage.set(&["secret", "set", "DEPLOY_KEY", "-e", "PRODUCTION"], "line one of it\nline two of it\n").await;
    stage.set(&["variable", "set", "REGION"], "north").await;
    stage.set(&["variable", "set", "OWN", "-e", "production"], "own-of-production").await;
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_uses_what_is_stored_masks_it_and_a_rerun_finds_it_again() {
    needs_engine!();
    let stage = stage().await;
    let expected = ["build <***> 14 0 north/.", "deploy <***> 21 29 north/own-of-production."];
    let run = stage.run(stage.press()).await;
    run.assert_normal_end("completed");
    let log = run.log().await;
    assert_eq!(said(&log), expected, "{log}");
    assert!(!log.contains("stored-for"), "{log}");

    let id = run.run.id.to_hex();
    let server = stage.dev.http.trim_end_matches('/');
    let output = stage.longshore(&stage.world.owner, &["rerun", &id, "--json", "--server", server], None).await;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    let event = process::printed_event(&text, 5401).unwrap();
    let (_, log) = stage.stored(&stage.world, &stage.world.owner, &["logs", &event], "").await;
    assert_eq!(said(&log), expected, "{log}");

    let mut press = stage.press();
    press.secrets = vec![("NPM_TOKEN".into(), "brought".into())];
    press.env = vec![("OWN".into(), "of-the-request".into())];
    let log = stage.run(press).await.log().await;
    let expected = ["build <***> 7 0 north/of-the-request.", "deploy <***> 7 29 north/of-the-request."];
    assert_eq!(said(&log), expected, "what the request brought counts first: {log}");

    stage.set(&["secret", "remove", "NPM_TOKEN"], "").await;
    let (code, text) = stage.stored(&stage.world, &stage.world.owner, &["secret", "rm", "NPM_TOKEN"], "").await;
    assert!(code == 2 && text.contains("no secret NPM_TOKEN to remove"), "{text}");
    let log = stage.run(stage.press()).await.log().await;
    assert_eq!(said(&log)[0], "build <> 0 0 north/.", "it is removed: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_14_what_is_stored_reaches_no_run_of_an_outsider_and_no_other_repository() {
    needs_engine!();
    let stage = stage().await;
    let mut press = stage.press();
    press.author = Keys::generate();
    let run = stage.run(press).await;
    let log = run.log().await;
    assert_eq!(said(&log), ["build <> 0 0 /."], "{log}");
    assert!(run.error().contains("the environment Production is not for runs"), "{}", run.error());

    let other = World::new(&stage.dev.relay, &[(PATH, SHOWS)]).await.unwrap();
    let (run, job) = other.send(&other.press(stage.dev.pubkey, PATH)).await.unwrap();
    let answers = other.listener.end(&run, &job, LIMIT).await.unwrap();
    let run = super::Run { run, job, answers, press: other.press(stage.dev.pubkey, PATH) };
    assert_eq!(said(&run.log().await), ["build <> 0 0 /.", "deploy <> 0 0 /."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_28_names_are_listed_for_maintainers_and_values_of_secrets_for_nobody() {
    needs_engine!();
    let stage = stage().await;
    let owner = stage.world.owner.clone();
    let (code, text) = stage.stored(&stage.world, &owner, &["secret", "list", "--json"], "").await;
    let listed: Value = serde_json::from_str(&text).unwrap();
    let names = listed.as_array().unwrap().iter();
    let names: Vec<_> = names.map(|one| format!("{}/{}", one["environment"], one["name"]).replace('"', "")).collect();
    assert_eq!(
        (code, names),
        (0, vec!["/NPM_TOKEN".into(), "production/DEPLOY_KEY".into(), "production/NPM_TOKEN".into()])
    );
    assert!(listed[0]["author"] == owner.public_key().to_hex() && listed[0].get("value").is_none(), "{listed}");
    let (_, text) = stage.stored(&stage.world, &owner, &["variable", "list"], "").await;
    assert!(text.contains("north") && !text.contains("NPM_TOKEN"), "{text}");
    let (code, text) = stage.stored(&stage.world, &owner, &["cache", "list"], "").await;
    assert!(code == 0 && text.starts_with("ID"), "{text}");

    let stranger = Keys::generate();
    for arguments in [
        vec!["secret", "list"],
        vec!["secret", "set", "NPM_TOKEN"],
        vec!["secret", "remove", "NPM_TOKEN"],
        vec!["variable", "list"],
        vec!["cache", "list"],
        vec!["cache", "delete", "x"],
    ] {
        let (code, text) = stage.stored(&stage.world, &stranger, &arguments, "x").await;
        assert!(code == 2 && text.contains("only owner and maintainers") && !text.contains("DEPLOY"), "{text}");
    }
    // A maintainer may, and no longer once the announcement does not say so any more.
    let maintainer = Keys::generate();
    let at = |seconds| nostr::Timestamp::from(nostr::Timestamp::now().as_secs() + seconds);
    stage.world.maintained_by(&[&maintainer], at(2)).await.unwrap();
    let set = ["secret", "set", "BY_MAINTAINER"];
    let (code, text) = stage.stored(&stage.world, &maintainer, &set, "x").await;
    assert!(code == 0, "{text}");
    stage.world.maintained_by(&[], at(4)).await.unwrap();
    let (code, text) = stage.stored(&stage.world, &maintainer, &set, "y").await;
    assert!(code == 2 && text.contains("only owner and maintainers"), "{text}");
}
