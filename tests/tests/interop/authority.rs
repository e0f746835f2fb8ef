//! Whose word a run acts on: what a stranger may start in an open pool acts for the stranger alone.

use nostr::{Keys, ToBech32};

use super::{LIMIT, PATH, Stage, needs_engine};

const ASKS_FOR_MUCH: &str = "\
on: [push, workflow_dispatch]
permissions: {id-token: write, contents: read}
concurrency: {group: production, cancel-in-progress: true}
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - run: 'echo \"token=${ACTIONS_ID_TOKEN_REQUEST_URL:+given} steered=${PYTHONSTARTUP:-no} own=${{ secrets.MINE }}\" | sed s/mine-and-long/came/'
  deploy:
    runs-on: ubuntu-latest
    environment: production
    steps:
      - run: echo deployed
";

#[tokio::test(flavor = "multi_thread")]
async fn attack_14_a_strangers_press_of_main_acts_in_nobodys_name_but_the_strangers() {
    needs_engine!();
    let stage = Stage::with_files(&[(PATH, ASKS_FOR_MUCH)], &[]).await;
    let mut logs = Vec::new();
    for author in [stage.world.owner.clone(), Keys::generate()] {
        let mut press = stage.press();
        press.author = author;
        press.env = vec![("PYTHONSTARTUP".into(), "evil.py".into())];
        press.secrets = vec![("MINE".into(), "mine-and-long".into())];
        let run = stage.run(press).await;
        logs.push((run.log().await, run.error()));
    }
    let [(owners, _), (strangers, error)] = &logs[..] else { panic!() };
    assert!(owners.contains("token=given steered=evil.py"), "{owners}");
    assert!(owners.contains("deployed"), "{owners}");
    assert!(strangers.contains("token= steered=no"), "{strangers}");
    assert!(strangers.contains("is no maintainer of this repository"), "{strangers}");
    assert!(!strangers.contains("deployed"), "{strangers}");
    assert!(error.contains("the environment production is not for runs that outsiders ask for"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_16_a_commit_in_a_maintainers_name_is_whose_key_asked_for_it() {
    needs_engine!();
    let stage = Stage::with_files(&[(PATH, ASKS_FOR_MUCH)], &[]).await;
    let owner = stage.world.owner.public_key().to_bech32().unwrap();
    let name = format!("user.name={owner}");
    stage.world.repository.git(&["-c", &name, "commit", "--quiet", "--allow-empty", "-m", "theirs"]).unwrap();
    stage.world.push("after", &[("more", "text")]).await.unwrap();
    let theirs = stage.world.repository.git(&["rev-parse", "HEAD~1"]).unwrap();
    let mut press = stage.press();
    press.author = Keys::generate();
    press.commit = theirs;
    let log = stage.run(press).await.log().await;
    assert!(log.contains("token= ") && log.contains("is no maintainer of this repository"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_press_neither_cancels_nor_holds_up_the_owners_run() {
    needs_engine!();
    let waits = ASKS_FOR_MUCH.replace("echo deployed", "sleep 8; echo deployed").replace("environment: production", "");
    let stage = Stage::with_files(&[(PATH, &waits)], &[]).await;
    let owners = stage.press();
    let (run, job) = stage.world.send(&owners).await.unwrap();
    stage.world.listener.status(&job, "running", LIMIT).await.unwrap();
    let mut press = stage.press();
    press.author = Keys::generate();
    stage.run(press).await;
    stage.ended(owners, run, job).await.assert_normal_end("completed");
}
