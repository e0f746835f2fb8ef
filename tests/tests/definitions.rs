//! Workflow definitions as events: whose count, which one, where they stand for a file, and what a run says of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use std::{process::Output, time::Duration};

use longshore_tests::harness::{
    client::{Answers, kind, sign_at, tag},
    pool::{Dev, Pool},
    process::{self, Process},
    world::{Relay, World},
};
use nostr::{Event, JsonUtil, Keys, PublicKey, Timestamp};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Long enough for a run on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);
const PATH: &str = ".github/workflows/ci.yml";

/// A workflow that says a word in its log.
fn says(word: &str) -> String {
    format!(
        "on: workflow_dispatch\njobs:\n  say:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo \"it says {word}\"\n"
    )
}

/// A pool and a repository.
struct Stage {
    world: World,
    http: String,
    pubkey: PublicKey,
    /// The pool's processes.
    processes: Vec<Process>,
    _data: tempfile::TempDir,
}

struct Ended {
    answers: Answers,
    /// As the API has it.
    run: Value,
}

impl Stage {
    async fn with(files: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let dev = Dev::start(&data.path().join("data"), &["--sandbox", "host"]).unwrap();
        let world = World::new(&dev.relay, files).await.unwrap();
        Self { world, http: dev.http, pubkey: dev.pubkey, processes: vec![dev.process], _data: data }
    }

    /// Under a policy of the operator.
    async fn under(policy: &str, files: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let relay = Relay::start(data.path()).unwrap();
        let pool = Pool::create(&data.path().join("pool"), std::slice::from_ref(&relay.url)).unwrap();
        let pool = pool.with("LONGSHORE_DEFINITIONS_POLICY", policy);
        let world = World::new(&relay.url, files).await.unwrap();
        let processes =
            vec![pool.coordinator().unwrap(), pool.worker(&[("LONGSHORE_SANDBOX", "host")]).unwrap(), relay.process];
        Self { world, http: pool.http, pubkey: pool.pubkey, processes, _data: data }
    }

    /// The owner presses a workflow.
    async fn run(&self, path: &str) -> Ended {
        let (run, job) = self.world.send(&self.world.press(self.pubkey, path)).await.unwrap();
        let answers = self.world.listener.end(&run, &job, LIMIT).await;
        let answers = answers.unwrap_or_else(|error| panic!("{error:#}\n{}", self.processes[0].text()));
        let run = self.get(&format!("/api/runs/{}", run.id.to_hex())).await;
        Ended { answers, run }
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.http.trim_end_matches('/'));
        reqwest::get(url).await.unwrap().error_for_status().unwrap().json().await.unwrap()
    }

    /// A run of a path that nobody who counts has defined.
    async fn nothing_runs(&self, path: &str) {
        let ended = self.run(path).await;
        assert_eq!(ended.answers.statuses().last().unwrap(), "failed");
        let error = tag(ended.answers.only(kind::RESULT).unwrap(), "error");
        assert!(error.contains("does not exist at commit"), "{error}");
        assert_eq!((&ended.run["supplied"], &ended.run["jobs"]), (&serde_json::json!([]), &serde_json::json!([])));
    }
}

impl Ended {
    async fn said(&self, word: &str) {
        assert_eq!(self.answers.statuses().last().unwrap(), "completed", "{:#}", self.run);
        let log = reqwest::get(self.run["log_url"].as_str().unwrap()).await.unwrap().text().await.unwrap();
        assert!(log.contains(&format!("it says {word}")), "{log}");
    }

    /// Id of the definition that stood for the workflow; nothing: the commit's file ran.
    fn definition(&self) -> &str {
        self.run["supplied"][0]["event"].as_str().unwrap_or_default()
    }
}

/// Seconds from now.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from(Timestamp::now().as_secs().saturating_add_signed(seconds))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owners_definition_runs_and_the_run_names_its_event_and_the_hash_of_its_text() {
    let stage = Stage::with(&[("README.md", "no workflow here")]).await;
    let text = says("defined");
    let definition = stage.world.define(&stage.world.owner, PATH, Some(&text), at(0)).await.unwrap();
    let ended = stage.run(PATH).await;
    ended.said("defined").await;

    let (id, hash) = (definition.id.to_hex(), hex::encode(Sha256::digest(&text)));
    let supplied = &ended.run["supplied"][0];
    assert_eq!((supplied["event"].as_str(), supplied["sha256"].as_str()), (Some(id.as_str()), Some(hash.as_str())));
    assert_eq!((supplied["path"].as_str(), &supplied["replaces"]), (Some(PATH), &Value::Bool(false)));
    assert_eq!(supplied["author"], stage.world.owner.public_key().to_hex());
    for kind in [kind::RESULT, kind::WORKFLOW_RESULT] {
        let event: &Event = ended.answers.only(kind).unwrap();
        let named: Vec<_> = event.tags.iter().filter(|tag| tag.as_slice()[0] == "definition").collect();
        assert_eq!(named.len(), 1);
        assert_eq!(named[0].as_slice()[1..], [PATH.to_owned(), id.clone(), hash.clone()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_by_strangers_and_removed_maintainers_run_nothing_and_older_ones_change_nothing() {
    let stage = Stage::with(&[("README.md", "no workflow here")]).await;
    let (owner, stranger) = (stage.world.owner.clone(), Keys::generate());
    let (maintainer, removed) = (Keys::generate(), Keys::generate());
    let [by_stranger, by_removed, twice, gone] =
        ["stranger", "removed", "twice", "gone"].map(|name| format!(".github/workflows/{name}.yml"));
    stage.world.maintained_by(&[&maintainer, &removed], at(1)).await.unwrap();

    stage.world.define(&stranger, &by_stranger, Some(&says("stranger")), at(0)).await.unwrap();
    stage.nothing_runs(&by_stranger).await;

    // It counts as long as its author does.
    stage.world.define(&removed, &by_removed, Some(&says("removed")), at(0)).await.unwrap();
    stage.run(&by_removed).await.said("removed").await;
    stage.world.maintained_by(&[&maintainer], at(2)).await.unwrap();
    stage.nothing_runs(&by_removed).await;

    let newer = stage.world.define(&owner, &twice, Some(&says("newer")), at(0)).await.unwrap();
    stage.world.define(&maintainer, &twice, Some(&says("older")), at(-100)).await.unwrap();
    let ended = stage.run(&twice).await;
    ended.said("newer").await;
    assert_eq!(ended.definition(), newer.id.to_hex());
    let newest = stage.world.define(&maintainer, &twice, Some(&says("newest")), at(5)).await.unwrap();
    let ended = stage.run(&twice).await;
    ended.said("newest").await;
    assert_eq!(ended.definition(), newest.id.to_hex());

    stage.world.define(&owner, &gone, Some(&says("gone")), at(0)).await.unwrap();
    stage.world.define(&maintainer, &gone, None, at(5)).await.unwrap();
    stage.nothing_runs(&gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_replaces_no_file_of_the_commit_unless_the_repository_says_so() {
    let commits = says("commit");
    let stage = Stage::with(&[(PATH, &commits)]).await;
    let definition = stage.world.define(&stage.world.owner, PATH, Some(&says("definition")), at(0)).await.unwrap();
    let ended = stage.run(PATH).await;
    ended.said("commit").await;
    assert_eq!(ended.definition(), "");

    let own = ".github/longshore.yml";
    stage.world.push("Definitions count here", &[(own, "definitions: override\n")]).await.unwrap();
    let ended = stage.run(PATH).await;
    ended.said("definition").await;
    assert_eq!(ended.definition(), definition.id.to_hex());
    assert_eq!(ended.run["supplied"][0]["replaces"], true);

    // What is wrong in it is told with its place, and nothing runs.
    stage.world.push("A mistake", &[(own, "definitions: always\n")]).await.unwrap();
    let refused = stage.run(PATH).await;
    let error = tag(refused.answers.only(kind::RESULT).unwrap(), "error");
    assert!(error.contains(".github/longshore.yml:1:14: error: `definitions` is"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_policy_lets_a_definition_replace_a_file_and_forbids_it_all() {
    let commits = says("commit");
    let stage = Stage::under("override", &[(PATH, &commits)]).await;
    let definition = stage.world.define(&stage.world.owner, PATH, Some(&says("definition")), at(0)).await.unwrap();
    let ended = stage.run(PATH).await;
    ended.said("definition").await;
    assert_eq!(ended.definition(), definition.id.to_hex());
    drop(stage);

    // The operator's `off` is final, whatever the repository says.
    let stage = Stage::under("off", &[(".github/longshore.yml", "definitions: override\n")]).await;
    stage.world.define(&stage.world.owner, PATH, Some(&says("definition")), at(0)).await.unwrap();
    stage.nothing_runs(PATH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_called_workflow_may_be_a_definition_and_one_that_relays_lost_counts_all_the_same() {
    let caller = "on: workflow_dispatch\njobs:\n  call:\n    uses: ./.github/workflows/called.yml\n";
    let stage = Stage::with(&[(PATH, caller)]).await;
    let called = says("called").replace("workflow_dispatch", "workflow_call");
    let path = ".github/workflows/called.yml";
    let definition = stage.world.define(&stage.world.owner, path, Some(&called), at(0)).await.unwrap();
    let ended = stage.run(PATH).await;
    ended.said("called").await;
    assert_eq!(ended.definition(), definition.id.to_hex());

    // A deletion request makes relays forget it; who wants it to end withdraws it.
    let deletion = vec![vec!["e".to_owned(), definition.id.to_hex()]];
    stage.world.listener.publish(&sign_at(&stage.world.owner, 5, deletion, at(1)).unwrap()).await.unwrap();
    stage.run(PATH).await.said("called").await;
    stage.world.define(&stage.world.owner, path, None, at(2)).await.unwrap();
    let refused = stage.run(PATH).await;
    assert_eq!(refused.answers.statuses().last().unwrap(), "failed");
}

impl Stage {
    /// The program as a user calls it.
    async fn longshore(&self, author: &Keys, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(process::binary("longshore").unwrap());
        command.args(arguments).env("LONGSHORE_NSEC", author.secret_key().to_secret_hex());
        command.env("LONGSHORE_RELAY", &self.world.relay).env("LONGSHORE_SERVER", self.http.trim_end_matches('/'));
        tokio::time::timeout(LIMIT, command.kill_on_drop(true).output()).await.unwrap().unwrap()
    }

    /// What it printed as JSON.
    async fn printed(&self, author: &Keys, arguments: &[&str]) -> Value {
        let output = self.longshore(author, arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_publishes_lists_shows_compares_and_withdraws_definitions() {
    let stage = Stage::with(&[("README.md", "no workflow here")]).await;
    let (owner, repository) = (stage.world.owner.clone(), stage.world.address());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ci.yml");
    let path = file.to_string_lossy().into_owned();
    let publish = ["definition", "publish", &path, "--repository", &repository, "--json"];
    std::fs::write(&file, "on: push\njobs: 1\n").unwrap();
    let faulty = stage.longshore(&owner, &publish).await;
    assert_eq!(faulty.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&faulty.stdout).contains(":2:7"), "{faulty:?}");

    std::fs::write(&file, says("first")).unwrap();
    let first = stage.printed(&owner, &publish).await;
    stage.run(PATH).await.said("first").await;
    std::fs::write(&file, says("second")).unwrap();
    let second = stage.printed(&owner, &publish).await;
    let stranger = Keys::generate();
    let refused = stage.longshore(&stranger, &publish).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("nor one of its maintainers"), "{refused:?}");
    let stranger = stage.world.define(&stranger, PATH, Some(&says("stranger")), at(2)).await.unwrap();
    let stranger = serde_json::json!({"id": stranger.id.to_hex()});
    let ended = stage.run(PATH).await;
    ended.said("second").await;
    assert_eq!(ended.run["supplied"][0]["event"], second["id"]);
    let shown = stage.longshore(&owner, &["show", ended.run["id"].as_str().unwrap()]).await;
    assert!(String::from_utf8_lossy(&shown.stdout).contains(second["id"].as_str().unwrap()));

    let list = stage.printed(&owner, &["definition", "list", "--repository", &repository, "--json"]).await;
    let listed: Vec<_> = list.as_array().unwrap().iter().map(|one| (&one["event"], one["in_force"] == true)).collect();
    assert_eq!(listed, [(&second["id"], true), (&first["id"], false)], "the stranger's is not among them");
    let show = async |event: &Value, more: &[&str]| {
        let event = event["id"].as_str().unwrap();
        let output = stage.longshore(&owner, &[&["definition", "show", event], more].concat()).await;
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(show(&first, &[]).await, (Some(0), says("first")));
    let (_, diff) = show(&second, &["--diff"]).await;
    assert!(diff.contains("-      - run: echo \"it says first\"\n+      - run: echo \"it says second\""), "{diff}");
    assert_eq!(show(&stranger, &[]).await.0, Some(2), "a stranger's is shown nowhere");

    let other = ".github/workflows/none.yml";
    let none = stage.longshore(&owner, &["definition", "withdraw", other, "--repository", &repository]).await;
    let said = String::from_utf8_lossy(&none.stderr);
    assert!(none.status.code() == Some(2) && said.contains(other) && said.contains(PATH), "{none:?}");
    let withdrawn =
        stage.printed(&owner, &["definition", "withdraw", PATH, "--repository", &repository, "--json"]).await;
    assert_eq!(withdrawn["content"], "");
    stage.nothing_runs(PATH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_published_at_once_are_dated_one_after_the_other_whoever_signs_them() {
    let stage = Stage::with(&[("README.md", "no workflow here")]).await;
    let (owner, maintainer, repository) = (stage.world.owner.clone(), Keys::generate(), stage.world.address());
    stage.world.maintained_by(&[&maintainer], at(1)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ci.yml");
    let path = file.to_string_lossy().into_owned();
    let publish = ["definition", "publish", &path, "--repository", &repository, "--json"];
    let mut versions = Vec::new();
    for (author, word) in [(&owner, "first"), (&maintainer, "second"), (&owner, "third"), (&maintainer, "fourth")] {
        std::fs::write(&file, says(word)).unwrap();
        versions.push(stage.printed(author, &publish).await);
    }
    let dates: Vec<u64> = versions.iter().map(|event| event["created_at"].as_u64().unwrap()).collect();
    assert!(dates.is_sorted_by(|earlier, later| earlier < later), "{dates:?}");

    let ended = stage.run(PATH).await;
    ended.said("fourth").await;
    assert_eq!(ended.definition(), versions[3]["id"]);
    let list = stage.printed(&owner, &["definition", "list", "--repository", &repository, "--json"]).await;
    let listed: Vec<_> = list.as_array().unwrap().iter().map(|one| (&one["event"], one["in_force"] == true)).collect();
    assert_eq!(listed[..2], [(&versions[3]["id"], true), (&versions[2]["id"], false)], "of each author the newest");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_to_the_pool_reaches_relays_and_what_would_count_for_nobody_is_refused() {
    let stage = Stage::with(&[("README.md", "no workflow here")]).await;
    let (owner, world) = (stage.world.owner.clone(), &stage.world);
    let url = format!("{}/api/definitions", stage.http.trim_end_matches('/'));
    let hand = async |event: &Event| {
        let event: Value = serde_json::from_str(&event.as_json()).unwrap();
        let body = serde_json::json!({"event": event}).to_string();
        let response = reqwest::Client::new().post(&url).body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let make = |by: &Keys, text: Option<&str>, seconds: i64| world.definition(by, PATH, text, at(seconds)).unwrap();
    let good = make(&owner, Some(&says("good")), 0);
    assert_eq!(hand(&good).await.0, 202);
    assert_eq!(hand(&good).await.0, 202, "once more is once");
    for (event, status, reason) in [
        (make(&owner, Some(&says("older")), -50), 409, good.id.to_hex()),
        (make(&Keys::generate(), Some(&says("stranger")), 5), 403, "only owner and maintainers".into()),
        (make(&owner, Some("on: push\njobs: 1\n"), 5), 422, ":2:7".into()),
        (make(&owner, Some(&says("later")), 5000), 400, "dated ahead".into()),
    ] {
        let (code, text) = hand(&event).await;
        assert!(code == status && text.contains(&reason), "{code} {text}");
    }
    stage.run(PATH).await.said("good").await;
    // It is on the relay: another client finds it there.
    let client = nostr_sdk::Client::default();
    client.add_relay(&world.relay).await.unwrap();
    client.connect().await;
    let filter = nostr::Filter::new().id(good.id);
    let until = tokio::time::Instant::now() + LIMIT;
    while client.fetch_events(filter.clone(), Duration::from_secs(5)).await.unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < until, "no relay has it");
    }
}
