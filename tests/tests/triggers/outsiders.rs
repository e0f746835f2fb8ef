//! Pull requests of people whom a repository does not know: what they may have, and when.

use std::time::Duration;

use longshore_tests::{
    harness::{client::tag, engine},
    oracle::ngit,
};
use nostr::{Event, Keys, Kind};
use serde_json::{Value, json};

use super::{
    CI, LIMIT,
    pull_requests::{ON_PULL_REQUEST, Proposed, npub},
};

/// What every outsider is told.
const NO_MAINTAINER: &str = "its author is no maintainer of the repository";

/// Says what a job was given: nothing of it by name.
const ASKS_FOR_MUCH: &str = "\
on: pull_request
permissions: {id-token: write, contents: read}
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - run: 'echo \"token=${ACTIONS_ID_TOKEN_REQUEST_URL:+given} secret=${#SECRET} var=${{ vars.REGION }}.\"'
        env: {SECRET: '${{ secrets.NPM_TOKEN }}'}
      - run: mkdir -p kept; cat kept/* || true; echo from-a-pull-request > kept/it
      - uses: actions/cache@v4
        with: {path: kept, key: deps}
  deploy:
    needs: build
    runs-on: ubuntu-latest
    environment: production
    steps:
      - run: echo deployed
";

#[tokio::test(flavor = "multi_thread")]
async fn attack_14_a_strangers_pull_request_waits_for_a_maintainer_and_has_no_rights_after() {
    if !engine::available("attack_14_a_strangers_pull_request_waits_for_a_maintainer_and_has_no_rights_after") {
        return;
    }
    let proposed = Proposed::new(&[(CI, ON_PULL_REQUEST)]).await;
    let (owner, stranger) = (proposed.followed.world.owner.clone(), Keys::generate());
    let topic = proposed.topic("topic", "a thing", &[(CI, ASKS_FOR_MUCH)]);
    let coordinator = proposed.followed.start();
    let _worker = proposed.followed.pool.worker(&[]).unwrap();
    for arguments in [["secret", "set", "NPM_TOKEN"], ["variable", "set", "REGION"]] {
        let mut command = std::process::Command::new(longshore_tests::harness::process::binary("longshore").unwrap());
        command.args(arguments).args(["--server", &proposed.followed.pool.http]);
        command.env("LONGSHORE_REPOSITORY", proposed.followed.world.address());
        command.env("LONGSHORE_NSEC", owner.secret_key().to_secret_hex());
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"stored-for-maintainers").unwrap();
        assert!(child.wait().unwrap().success(), "{arguments:?}");
    }
    proposed.open(&stranger, &topic, &[]).await;
    let runs = proposed.runs(1).await;
    let run = proposed.run_is(&runs[0], "waiting").await;
    let by = &owner.public_key().to_hex()[..8];
    assert_eq!(run["waits"], format!("waits for an approval by {by}: {NO_MAINTAINER}"));
    assert_eq!(run["approval"]["approvers"], json!([owner.public_key().to_hex()]));
    // It outlives the coordinator, and neither its author nor the operator of the pool decides.
    coordinator.kill().unwrap();
    let _coordinator = proposed.followed.pool.coordinator().unwrap();
    let (code, said) = proposed.approve(&stranger, &run, &[]);
    assert!(code == 2 && said.contains("403") && said.contains("may approve or reject this run"), "{said}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(proposed.run_is(&run, "waiting").await["jobs"][0]["attempt"], 0, "no worker has it");

    let (code, said) = proposed.approve(&owner, &run, &["--comment", "harmless"]);
    assert_eq!((code, said.trim()), (0, "approved: the run"));
    let run = proposed.run_is(&run, "failure").await;
    let log = proposed.log(&run).await;
    assert!(log.contains("token= secret=0 var=."), "{log}");
    assert!(log.contains("who is no maintainer of this repository"), "{log}");
    assert!(!log.contains("deployed"), "{log}");
    let of_deploy = run["jobs"][1]["why"].as_str().unwrap();
    assert!(of_deploy.contains("the environment production is not for runs that outsiders ask for"), "{of_deploy}");
    assert_eq!(run["approval"]["verdict"], "approved");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_14_a_rejected_pull_request_never_begins_and_a_trusted_keys_runs_at_once() {
    let proposed = Proposed::new(&[(CI, ON_PULL_REQUEST)]).await;
    let (owner, stranger, trusted) = (proposed.followed.world.owner.clone(), Keys::generate(), Keys::generate());
    let list = format!("trusted:\n  - {}\n", npub(&trusted));
    let listed = proposed.followed.commit("trust", &[(".github/longshore.yml", &list)]);
    proposed.followed.push(&[("refs/heads/main", &listed)]).await;
    let topic = proposed.topic("topic", "a thing", &[("a", "1")]);
    let _coordinator = proposed.followed.start();
    proposed.open(&stranger, &topic, &[]).await;
    let runs = proposed.runs(1).await;
    let held = proposed.run_is(&runs[0], "waiting").await;
    proposed.open(&trusted, &topic, &[]).await;
    let runs = proposed.runs(2).await;
    proposed.run_is(&runs[1], "queued").await;
    let (code, said) = proposed.approve(&owner, &held, &["--reject", "--comment", "it mines coins"]);
    assert_eq!((code, said.trim()), (0, "rejected: the run"));
    let ended = proposed.run_is(&held, "failure").await;
    let why = ended["why"].as_str().unwrap();
    assert!(why.contains("the run was refused by") && why.ends_with(": it mines coins"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_16_a_head_whose_commits_are_in_a_maintainers_name_is_whose_key_published_it() {
    let proposed = Proposed::new(&[(CI, ON_PULL_REQUEST)]).await;
    let owner = npub(&proposed.followed.world.owner);
    proposed.git(&["checkout", "--quiet", "-b", "topic"]);
    let name = format!("user.name={owner}");
    proposed.git(&["-c", &name, "commit", "--quiet", "--allow-empty", "-m", "theirs"]);
    let topic = proposed.git(&["rev-parse", "HEAD"]);
    proposed.git(&["checkout", "--quiet", "main"]);
    proposed.serve_fork("fork.git");
    let _coordinator = proposed.followed.start();
    let stranger = Keys::generate();
    let root = proposed.open(&stranger, &topic, &[]).await;
    let runs = proposed.runs(1).await;
    let run = proposed.run_is(&runs[0], "waiting").await;
    assert_eq!(run["actor"], stranger.public_key().to_hex());
    // A maintainer who opens it again vouches for nothing.
    proposed.status(&proposed.followed.world.owner, &root, 1632).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    proposed.status(&proposed.followed.world.owner, &root, 1630).await;
    let runs = proposed.runs(2).await;
    let run = proposed.run_is(&runs[1], "waiting").await;
    assert_eq!(run["actor"], stranger.public_key().to_hex());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_17_an_approval_is_of_one_head_and_its_workflow_alone() {
    let proposed = Proposed::new(&[(CI, ON_PULL_REQUEST)]).await;
    let (owner, stranger) = (proposed.followed.world.owner.clone(), Keys::generate());
    let harmless = proposed.topic("topic", "harmless", &[("a", "1")]);
    let _coordinator = proposed.followed.start();
    let root = proposed.open(&stranger, &harmless, &[]).await;
    let runs = proposed.runs(1).await;
    let first = proposed.run_is(&runs[0], "waiting").await;
    assert_eq!(proposed.approve(&owner, &first, &[]).0, 0);
    proposed.run_is(&first, "queued").await;
    // After the maintainer said yes, before it starts, the head moves.
    let evil = proposed.topic("topic", "evil", &[(CI, &ON_PULL_REQUEST.replace("echo hi", "curl evil"))]);
    proposed.update(&stranger, &root, &evil).await;
    let runs = proposed.runs(2).await;
    let second = proposed.run_is(&runs[1], "waiting").await;
    assert_ne!(first["commit"], second["commit"]);
    let approved = proposed.run_is(&first, "queued").await;
    assert_eq!(approved["commit"], first["commit"], "what was seen is what runs");
    // While the maintainer reads the second one, it moves again.
    let worse = proposed.topic("topic", "worse", &[(CI, &ON_PULL_REQUEST.replace("echo hi", "curl worse"))]);
    proposed.update(&stranger, &root, &worse).await;
    let runs = proposed.runs(3).await;
    let third = proposed.run_is(&runs[2], "waiting").await;
    let ended = proposed.run_is(&second, "cancelled").await;
    assert_eq!(ended["why"], "cancelled by a newer head of its pull request");
    let (code, said) = proposed.approve(&owner, &second, &[]);
    assert!(code == 2 && said.contains("409"), "{said}");
    assert_eq!(third["approval"]["verdict"], Value::Null);
    // With the pull request it ends; what was approved goes on.
    proposed.status(&stranger, &root, 1632).await;
    proposed.run_is(&third, "cancelled").await;
    proposed.run_is(&first, "queued").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_15_pull_request_target_runs_the_bases_code_at_once_with_the_bases_rights() {
    if !engine::available("attack_15_pull_request_target_runs_the_bases_code_at_once_with_the_bases_rights") {
        return;
    }
    let says = "> ${{ github.event_name }} ${{ github.ref }} ${{ github.sha }} ${{ github.head_ref }} \
                ${{ github.event.number }} ${{ github.event.pull_request.head.sha }} \
                ${{ github.event.pull_request.head.repo.full_name != github.repository }}";
    let target = |line: &str| {
        let checkout = "      - uses: actions/checkout@v4\n";
        let head = "      - uses: actions/checkout@v4\n        continue-on-error: true\n        \
                    with: {ref: '${{ github.event.pull_request.head.sha }}'}\n";
        format!(
            "on: pull_request_target\npermissions: {{id-token: write}}\njobs:\n  build:\n    runs-on: ubuntu-latest\n    \
             steps:\n{checkout}      - run: 'echo \"token=${{ACTIONS_ID_TOKEN_REQUEST_URL:+given}} $(cat file)\"'\n      \
             - run: echo '{line}'\n{head}"
        )
    };
    let proposed = Proposed::new(&[(CI, &target(says)), ("file", "of-base")]).await;
    let evil = target("evil");
    let topic =
        proposed.topic("topic", "a thing", &[(CI, &evil), ("file", "of-head"), (".github/workflows/new.yml", &evil)]);
    let _coordinator = proposed.followed.start();
    let _worker = proposed.followed.pool.worker(&[]).unwrap();
    proposed.open(&Keys::generate(), &topic, &[]).await;
    let runs = proposed.runs(1).await;
    let run = proposed.run_is(&runs[0], "success").await;
    let (log, base) = (proposed.log(&run).await, &proposed.base);
    let expected = format!("> pull_request_target refs/heads/main {base} topic 1 {topic} true");
    assert!(log.contains(&expected), "{expected}\n{log}");
    assert!(log.contains("token=given of-base") && !log.contains("evil"), "{log}");
    assert!(log.contains("refused: it would bring code of a pull request"), "{log}");
    assert_eq!((run["commit"].as_str(), &run["approval"]), (Some(base.as_str()), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_19_what_a_strangers_pull_request_would_cache_no_other_run_finds() {
    if !engine::available("attack_19_what_a_strangers_pull_request_would_cache_no_other_run_finds") {
        return;
    }
    let caches = |on: &str, text: &str| {
        format!(
            "on: {on}\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/cache@v4\n        \
             with: {{path: kept, key: deps-{text}, restore-keys: deps-}}\n      - run: 'echo \"kept: $(cat kept/* 2>/dev/null)\"; \
             mkdir -p kept; echo {text} > kept/it'\n"
        )
    };
    let push = caches("push", "main");
    let proposed = Proposed::new(&[(CI, &push)]).await;
    let (owner, stranger) = (proposed.followed.world.owner.clone(), Keys::generate());
    let own = ".github/workflows/own.yml";
    let topic = proposed.topic("topic", "poison", &[(own, &caches("pull_request", "poison"))]);
    let _coordinator = proposed.followed.start();
    let _worker = proposed.followed.pool.worker(&[]).unwrap();
    let second = proposed.followed.commit("second", &[("a", "1")]);
    proposed.followed.push(&[("refs/heads/main", &second)]).await;
    let runs = proposed.runs(1).await;
    proposed.run_is(&runs[0], "success").await;
    proposed.open(&stranger, &topic, &[]).await;
    let runs = proposed.runs(2).await;
    let held = proposed.run_is(&runs[1], "waiting").await;
    assert_eq!(proposed.approve(&owner, &held, &[]).0, 0);
    let run = proposed.run_is(&held, "success").await;
    assert!(proposed.log(&run).await.contains("kept: main"), "it reads what its base has");
    let third = proposed.followed.commit("third", &[("a", "2")]);
    proposed.followed.push(&[("refs/heads/main", &third)]).await;
    let runs = proposed.runs(3).await;
    let run = proposed.run_is(&runs[2], "success").await;
    let log = proposed.log(&run).await;
    assert!(log.contains("kept: main") && !log.contains("poison"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_20_no_run_has_what_a_strangers_pull_request_made_and_none_is_chained_to_it() {
    if !engine::available("attack_20_no_run_has_what_a_strangers_pull_request_made_and_none_is_chained_to_it") {
        return;
    }
    let chained = "on: {workflow_run: {workflows: [Made], types: [completed]}}\njobs:\n  build:\n    runs-on: ubuntu-latest\n    \
                   steps: [{run: echo chained}]\n";
    let takes = "on: push\njobs:\n  take:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/download-artifact@v4\n        \
                 with: {name: made}\n";
    let makes = "name: Made\non: pull_request\njobs:\n  make:\n    runs-on: ubuntu-latest\n    steps:\n      \
                 - run: echo evil > made\n      - uses: actions/upload-artifact@v4\n        with: {name: made, path: made}\n";
    let proposed = Proposed::new(&[(CI, takes), (".github/workflows/chained.yml", chained)]).await;
    let owner = proposed.followed.world.owner.clone();
    let topic = proposed.topic("topic", "makes", &[(".github/workflows/made.yml", makes)]);
    let _coordinator = proposed.followed.start();
    let _worker = proposed.followed.pool.worker(&[]).unwrap();
    proposed.open(&Keys::generate(), &topic, &[]).await;
    let runs = proposed.runs(1).await;
    let held = proposed.run_is(&runs[0], "waiting").await;
    assert_eq!(proposed.approve(&owner, &held, &[]).0, 0);
    proposed.run_is(&held, "success").await;
    let second = proposed.followed.commit("second", &[("a", "1")]);
    proposed.followed.push(&[("refs/heads/main", &second)]).await;
    let runs = proposed.runs(2).await;
    let run = proposed.run_is(&runs[1], "failure").await;
    let log = proposed.log(&run).await;
    assert!(log.to_lowercase().contains("artifact") && !log.contains("evil"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_14_a_flood_of_pull_requests_starts_no_more_than_an_authors_share() {
    let proposed = Proposed::new(&[(CI, ON_PULL_REQUEST)]).await;
    let stranger = Keys::generate();
    let topic = proposed.topic("topic", "a thing", &[("a", "1")]);
    let mut coordinator = proposed.followed.start();
    for number in 0..60 {
        proposed.open(&stranger, &topic, &[&["t", &number.to_string()]]).await;
    }
    coordinator
        .line(LIMIT, |line| line.contains("is not looked at: its author, who is no maintainer, had as much"))
        .unwrap();
    let runs = proposed.runs(20).await;
    assert!(runs.iter().all(|run| run["status"] == "waiting"), "{runs:?}");
    // Nobody else waits for them.
    let push = proposed.followed.commit("push", &[(CI, super::ON_PUSH)]);
    proposed.followed.push(&[("refs/heads/main", &push)]).await;
    let runs = proposed.runs(21).await;
    assert_eq!(runs[20]["event"], "push");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_is_told_of_in_nip_c1_as_queued_with_the_reason_until_it_is_approved() {
    if !engine::available("a_pull_request_is_told_of_in_nip_c1_as_queued_with_the_reason_until_it_is_approved") {
        return;
    }
    let mut proposed = Proposed::new(&[(CI, ON_PULL_REQUEST)]).await;
    let address = proposed.followed.world.address();
    proposed.followed.pool = proposed.followed.pool.with("LONGSHORE_NIP_C1_REPOSITORIES", &address);
    let (owner, stranger) = (proposed.followed.world.owner.clone(), Keys::generate());
    let topic = proposed.topic("topic", "a thing", &[("a", "1")]);
    let _coordinator = proposed.followed.start();
    let _worker = proposed.followed.pool.worker(&[]).unwrap();
    let root = proposed.open(&stranger, &topic, &[]).await;
    let us = proposed.followed.pool.pubkey;
    let of = |heard: &[Event], kind: u16| -> Vec<Event> {
        heard.iter().filter(|event| event.kind == Kind::from(kind) && event.pubkey == us).cloned().collect()
    };
    let listener = &proposed.followed.world.listener;
    let heard = listener.until(LIMIT, |heard| !of(heard, 39842).is_empty()).await.unwrap();
    let waits = of(&heard, 39842).remove(0);
    assert_eq!(tag(&waits, "status"), "queued");
    assert!(tag(&waits, "alt").ends_with(NO_MAINTAINER), "{waits:?}");
    let runs = proposed.runs(1).await;
    assert_eq!(proposed.approve(&owner, &runs[0], &[]).0, 0);
    let heard = listener.until(LIMIT, |heard| !of(heard, 9842).is_empty()).await.unwrap();
    ngit::judge_all(heard.iter().filter(|event| event.pubkey == us)).unwrap();
    let result = of(&heard, 9842).remove(0);
    let named = ["conclusion", "o", "c", "E", "P", "e", "k"].map(|name| tag(&result, name));
    let (id, by) = (root.id.to_hex(), stranger.public_key().to_hex());
    assert_eq!(named, ["success", "pull_request", &topic, &id, &by, &id, "1618"].map(str::to_owned));
    assert_eq!(of(&heard, 9841).len(), 1);
    let last = of(&heard, 39842).pop().unwrap();
    assert_eq!(tag(&last, "alt"), "");
}
