//! Pull requests, by maintainers and by people whom nobody knows.

use std::time::{Duration, Instant};

use longshore_tests::harness::{
    client::{sign_at, tag},
    engine,
    process::Process,
};
use nostr::{Event, Keys, Timestamp, ToBech32};
use serde_json::{Value, json};

use super::{CI, Followed, LIMIT};

pub(super) const ON_PULL_REQUEST: &str =
    "on: pull_request\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo hi\n";

/// A repository that a pool follows, with a topic branch that lies on a server of its own.
pub(super) struct Proposed {
    pub(super) followed: Followed,
    pub(super) base: String,
}

impl Proposed {
    pub(super) async fn new(files: &[(&str, &str)]) -> Self {
        let followed = Followed::new(files).await;
        let base = followed.world.repository.git(&["rev-parse", "HEAD"]).unwrap();
        Self { followed, base }
    }

    pub(super) fn git(&self, arguments: &[&str]) -> String {
        self.followed.world.repository.git(arguments).unwrap()
    }

    /// Commits on a branch that begins at the base, and puts it on a server that the repository does not name.
    pub(super) fn topic(&self, branch: &str, message: &str, files: &[(&str, &str)]) -> String {
        if self.followed.world.repository.git(&["checkout", "--quiet", branch]).is_err() {
            self.git(&["checkout", "--quiet", "-b", branch, &self.base]);
        }
        let commit = self.followed.commit(message, files);
        self.git(&["checkout", "--quiet", "main"]);
        self.serve_fork("fork.git");
        commit
    }

    pub(super) fn serve_fork(&self, name: &str) {
        self.followed.world.repository.publish(&self.followed.world.git.folder, name).unwrap();
    }

    pub(super) fn fork(&self, name: &str) -> String {
        self.followed.world.git.clone_url(name)
    }

    pub(super) async fn publish(&self, by: &Keys, kind: u16, tags: Vec<Vec<String>>) -> Event {
        self.followed.at.set(self.followed.at.get().max(Timestamp::now().as_secs()) + 1);
        let event = sign_at(by, kind, tags, Timestamp::from(self.followed.at.get())).unwrap();
        self.followed.world.listener.publish(&event).await.unwrap();
        event
    }

    /// Publishes a pull request whose head the fork has.
    pub(super) async fn open(&self, by: &Keys, commit: &str, more: &[&[&str]]) -> Event {
        let mut tags = vec![
            vec!["a".to_owned(), self.followed.world.address()],
            vec!["subject".into(), "Add a thing".into()],
            vec!["branch-name".into(), "topic".into()],
            vec!["c".into(), commit.to_owned()],
        ];
        if more.iter().all(|tag| tag[0] != "clone") {
            tags.push(vec!["clone".into(), self.fork("fork.git")]);
        }
        tags.extend(more.iter().map(|tag| tag.iter().map(|text| (*text).to_owned()).collect()));
        self.publish(by, 1618, tags).await
    }

    pub(super) async fn update(&self, by: &Keys, root: &Event, commit: &str) -> Event {
        let tags = vec![
            vec!["a".to_owned(), self.followed.world.address()],
            vec!["E".into(), root.id.to_hex()],
            vec!["P".into(), root.pubkey.to_hex()],
            vec!["c".into(), commit.to_owned()],
            vec!["clone".into(), self.fork("fork.git")],
        ];
        self.publish(by, 1619, tags).await
    }

    pub(super) async fn status(&self, by: &Keys, root: &Event, kind: u16) -> Event {
        let tags = vec![
            vec!["a".to_owned(), self.followed.world.address()],
            vec!["e".into(), root.id.to_hex(), String::new(), "root".into()],
        ];
        self.publish(by, kind, tags).await
    }

    /// All runs, the oldest first, once there are so many and none more.
    pub(super) async fn runs(&self, count: usize) -> Vec<Value> {
        self.followed.runs_become(count).await;
        let mut runs: Vec<Value> = self.followed.get("/api/runs?limit=50").await.as_array().unwrap().clone();
        runs.sort_by_key(|run| run["serial"].as_u64());
        runs
    }

    /// A run once it has this status.
    pub(super) async fn run_is(&self, run: &Value, status: &str) -> Value {
        let id = run["id"].as_str().unwrap();
        let until = Instant::now() + LIMIT;
        loop {
            let runs = self.followed.get("/api/runs?limit=50").await;
            let found = runs.as_array().unwrap().iter().find(|run| run["id"] == id).unwrap().clone();
            if found["status"] == status {
                return self.followed.get(&format!("/api/runs/{id}")).await;
            }
            assert!(Instant::now() < until, "{status} was expected: {found:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) async fn log(&self, run: &Value) -> String {
        let url = format!("{}/api/runs/{}/logs?format=text", self.followed.pool.http, run["id"].as_str().unwrap());
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }

    /// `longshore approve` by somebody; its exit code, and what it printed.
    pub(super) fn approve(&self, who: &Keys, run: &Value, arguments: &[&str]) -> (i32, String) {
        let log = self.followed.pool.folder.join(format!("approve-{}.log", Keys::generate().public_key()));
        let nsec = who.secret_key().to_secret_hex();
        let mut all = vec!["approve", run["id"].as_str().unwrap(), "--server", &self.followed.pool.http];
        all.extend(arguments);
        let mut process = Process::start_with("longshore", &all, &[("LONGSHORE_NSEC", &nsec)], &log).unwrap();
        (process.wait(LIMIT).unwrap(), process.text())
    }
}

pub(super) fn npub(keys: &Keys) -> String {
    keys.public_key().to_bech32().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maintainers_pull_request_runs_the_merge_at_once_and_sees_what_github_says() {
    if !engine::available("a_maintainers_pull_request_runs_the_merge_at_once_and_sees_what_github_says") {
        return;
    }
    let says = "> ${{ github.event_name }} ${{ github.event.action }} ${{ github.ref }} ${{ github.head_ref }} \
                ${{ github.base_ref }} ${{ github.event.number }} ${{ github.event.pull_request.title }} \
                ${{ github.event.pull_request.user.login }} ${{ github.event.pull_request.head.sha }} \
                ${{ github.event.pull_request.base.sha }} ${{ github.event.pull_request.draft }} \
                ${{ github.event.pull_request.head.repo.full_name == github.repository }} \
                ${{ join(github.event.pull_request.labels.*.name, '+') }} ${{ github.actor }}";
    let steps = "      - uses: actions/checkout@v4\n        with: {fetch-depth: 0}\n      - run: |\n          \
                 echo \"> $(git rev-parse HEAD^1) $(git rev-parse HEAD^2) $(git rev-parse HEAD) $GITHUB_SHA $(cat base topic)\"\n";
    let workflow = format!(
        "on: pull_request\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n{steps}      - run: echo '{says}'\n"
    );
    let proposed = Proposed::new(&[(CI, &workflow)]).await;
    let owner = proposed.followed.world.owner.clone();
    let topic = proposed.topic("topic", "a thing", &[("topic", "of-topic ")]);
    let _coordinator = proposed.followed.start();
    let _worker = proposed.followed.pool.worker(&[]).unwrap();
    let base = proposed.followed.commit("on the base", &[("base", "of-base ")]);
    proposed.followed.push(&[("refs/heads/main", &base)]).await;
    proposed.open(&owner, &topic, &[&["t", "bug"], &["t", "easy"]]).await;

    let runs = proposed.runs(1).await;
    let run = proposed.run_is(&runs[0], "success").await;
    let author = npub(&owner);
    let log = proposed.log(&run).await;
    let expected = format!(
        "> pull_request opened refs/pull/1/merge topic main 1 Add a thing {author} {topic} {base} false true bug+easy {author}"
    );
    assert!(log.contains(&expected), "{expected}\n{log}");
    let commit = run["commit"].as_str().unwrap();
    let expected = format!("> {base} {topic} {commit} {commit} of-base of-topic");
    assert!(log.contains(&expected), "{expected}\n{log}");
    assert_eq!((&run["event"], &run["reference"]), (&json!("pull_request"), &json!("refs/pull/1/merge")));
    assert_eq!(run["commit_message"], "Add a thing (#1)");
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_closing_drafts_and_reopening_are_what_their_authors_and_the_maintainers_say() {
    let typed = ON_PULL_REQUEST
        .replace("pull_request", "{pull_request: {types: [opened, synchronize, reopened, closed, ready_for_review]}}");
    let proposed = Proposed::new(&[(CI, &typed), (".github/workflows/usual.yml", ON_PULL_REQUEST)]).await;
    let (owner, stranger) = (proposed.followed.world.owner.clone(), Keys::generate());
    let first = proposed.topic("topic", "first", &[("a", "1")]);
    let coordinator = proposed.followed.start();
    let root = proposed.open(&owner, &first, &[]).await;
    proposed.runs(2).await;
    let second = proposed.topic("topic", "second", &[("a", "2")]);
    proposed.update(&stranger, &root, &second).await;
    proposed.status(&stranger, &root, 1632).await;
    proposed.runs(2).await;
    proposed.update(&owner, &root, &second).await;
    let runs = proposed.runs(4).await;
    assert_ne!(runs[0]["commit"], runs[2]["commit"], "a new head is a new merge");
    proposed.status(&owner, &root, 1633).await;
    proposed.runs(4).await;
    proposed.status(&owner, &root, 1630).await;
    proposed.runs(5).await;
    proposed.status(&owner, &root, 1632).await;
    proposed.runs(6).await;
    // While it is closed and nobody looks, its head moves, and it is opened again: once for both.
    coordinator.kill().unwrap();
    let third = proposed.topic("topic", "third", &[("a", "3")]);
    proposed.update(&owner, &root, &third).await;
    proposed.status(&owner, &root, 1630).await;
    let coordinator = proposed.followed.pool.coordinator().unwrap();
    let runs = proposed.runs(8).await;
    assert!(runs.iter().all(|run| run["branch"] == "pull/1/merge"), "{runs:?}");
    coordinator.kill().unwrap();
    let _coordinator = proposed.followed.pool.coordinator().unwrap();
    proposed.runs(8).await;
    // A second one has the next number.
    proposed.open(&owner, &third, &[]).await;
    assert_eq!(proposed.runs(10).await[9]["branch"], "pull/2/merge");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_are_held_against_the_base_and_what_changed_since_it_was_left() {
    let with = |filter: &str| ON_PULL_REQUEST.replacen("pull_request", &format!("{{pull_request: {filter}}}"), 1);
    let (source, release) = (with("{paths: ['src/**']}"), with("{branches: ['release/**']}"));
    let (by_path, by_base) = (".github/workflows/path.yml", ".github/workflows/base.yml");
    let proposed = Proposed::new(&[(by_path, &source), (by_base, &release), ("src/a", "1")]).await;
    let owner = proposed.followed.world.owner.clone();
    // What the base changed meanwhile is no change of the pull request, and its own file widens nothing.
    let widened = proposed.topic("topic", "docs", &[("README", "1"), (by_base, ON_PULL_REQUEST)]);
    let source = proposed.topic("source", "source", &[("src/a", "2")]);
    let _coordinator = proposed.followed.start();
    let base = proposed.followed.commit("base moved", &[("src/b", "1")]);
    proposed.git(&["branch", "release/1"]);
    proposed.followed.push(&[("refs/heads/main", &base), ("refs/heads/release/1", &base)]).await;
    proposed.open(&owner, &widened, &[]).await;
    proposed.runs(0).await;
    proposed.open(&owner, &source, &[]).await;
    let runs = proposed.runs(1).await;
    assert_eq!((runs[0]["workflow"].as_str(), runs[0]["branch"].as_str()), (Some(by_path), Some("pull/2/merge")));
    proposed.open(&owner, &widened, &[&["b", "release/1"]]).await;
    assert_eq!(proposed.runs(2).await[1]["workflow"], by_base);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_a_skip_mark_and_a_head_that_the_base_has_start_nothing_and_say_why() {
    let proposed = Proposed::new(&[(CI, ON_PULL_REQUEST), ("file", "1\n")]).await;
    let owner = proposed.followed.world.owner.clone();
    let conflicting = proposed.topic("conflicting", "theirs", &[("file", "2\n")]);
    let quiet = proposed.topic("quiet", "quiet [skip ci]", &[("a", "1")]);
    let mut coordinator = proposed.followed.start();
    let ours = proposed.followed.commit("ours", &[("file", "3\n")]);
    proposed.followed.push(&[("refs/heads/main", &ours)]).await;
    let root = proposed.open(&owner, &conflicting, &[]).await;
    coordinator.line(LIMIT, |line| line.contains("it conflicts with main in file")).unwrap();
    proposed.open(&owner, &quiet, &[]).await;
    coordinator.line(LIMIT, |line| line.contains("its head says [skip ci]")).unwrap();
    proposed.open(&owner, &proposed.base, &[]).await;
    coordinator.line(LIMIT, |line| line.contains("its base has its head already")).unwrap();
    proposed.runs(0).await;
    // Mended, it runs; and against a base that was pushed by force the next head is merged as well.
    proposed.git(&["checkout", "--quiet", "conflicting"]);
    proposed.git(&["reset", "--quiet", "--hard", &ours]);
    let mended = proposed.topic("conflicting", "mended", &[("file", "4\n")]);
    proposed.update(&owner, &root, &mended).await;
    proposed.runs(1).await;
    proposed.git(&["reset", "--quiet", "--hard", &proposed.base]);
    let forced = proposed.followed.commit("forced", &[("other", "1")]);
    proposed.followed.push(&[("refs/heads/main", &forced)]).await;
    let last = proposed.topic("conflicting", "more", &[("more", "1")]);
    proposed.update(&owner, &root, &last).await;
    proposed.runs(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t57_t58_a_head_is_fetched_by_its_id_wherever_it_comes_to_lie() {
    let proposed = Proposed::new(&[(CI, ON_PULL_REQUEST)]).await;
    let owner = proposed.followed.world.owner.clone();
    proposed.serve_fork("older.git");
    let topic = proposed.topic("topic", "a thing", &[("a", "1")]);
    let mut coordinator = proposed.followed.start();
    // The first URL has an older tip, the second does not exist, the third has the head; files of this machine count never.
    let local = format!("file://{}", proposed.followed.world.git.folder.join("fork.git").display());
    let clones =
        ["clone".to_owned(), local, proposed.fork("older.git"), proposed.fork("gone.git"), proposed.fork("fork.git")];
    let clones: Vec<&str> = clones.iter().map(String::as_str).collect();
    proposed.open(&owner, &topic, &[&clones]).await;
    proposed.runs(1).await;
    // A head that is pushed after its event is waited for.
    proposed.git(&["checkout", "--quiet", "-b", "later", &proposed.base]);
    let later = proposed.followed.commit("later", &[("b", "1")]);
    proposed.git(&["checkout", "--quiet", "main"]);
    proposed.open(&owner, &later, &[]).await;
    coordinator
        .line(LIMIT, |line| line.contains("a pull request waits for its head") && line.contains(&later))
        .unwrap();
    proposed.runs(1).await;
    proposed.serve_fork("fork.git");
    proposed.runs(2).await;
    // GRASP servers have it as refs/nostr/<id> beside the repository's own branches.
    proposed.git(&["checkout", "--quiet", "-b", "grasp", &proposed.base]);
    let grasp = proposed.followed.commit("grasp", &[("c", "1")]);
    proposed.git(&["checkout", "--quiet", "main"]);
    let root = proposed.open(&owner, &grasp, &[&["clone", &proposed.fork("gone.git")]]).await;
    let bare = proposed.followed.world.git.folder.join("repo.git");
    proposed.git(&["push", "--quiet", &bare.to_string_lossy(), &format!("{grasp}:refs/nostr/{}", root.id)]);
    proposed.runs(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t67_a_head_of_a_stranger_is_no_commit_of_the_repository() {
    let proposed = Proposed::new(&[(CI, ON_PULL_REQUEST)]).await;
    let topic = proposed.topic("topic", "a thing", &[("a", "1")]);
    let _coordinator = proposed.followed.start();
    proposed.open(&Keys::generate(), &topic, &[]).await;
    let runs = proposed.runs(1).await;
    proposed.run_is(&runs[0], "waiting").await;
    // The commit is in the mirror now; asked for by hand it is as unproven as before.
    let mut press = proposed.followed.world.press(proposed.followed.pool.pubkey, CI);
    press.commit = topic;
    let (run, _) = proposed.followed.world.send(&press).await.unwrap();
    proposed.runs(2).await;
    let shown = proposed.followed.get(&format!("/api/runs/{}", run.id.to_hex())).await;
    assert_eq!(shown["reference"], "refs/heads/main");
    assert_eq!(tag(&run, "commit"), press.commit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_from_before_the_repository_was_followed_starts_nothing_until_something_happens_to_it() {
    let proposed = Proposed::new(&[(CI, ON_PULL_REQUEST)]).await;
    let owner = proposed.followed.world.owner.clone();
    let first = proposed.topic("topic", "first", &[("a", "1")]);
    let tags = vec![
        vec!["a".to_owned(), proposed.followed.world.address()],
        vec!["c".into(), first],
        vec!["clone".into(), proposed.fork("fork.git")],
    ];
    let root = sign_at(&owner, 1618, tags, Timestamp::from(Timestamp::now().as_secs() - 3600)).unwrap();
    proposed.followed.world.listener.publish(&root).await.unwrap();
    let _coordinator = proposed.followed.start();
    proposed.runs(0).await;
    let second = proposed.topic("topic", "second", &[("a", "2")]);
    proposed.update(&owner, &root, &second).await;
    let runs = proposed.runs(1).await;
    let shown = proposed.followed.get(&format!("/api/runs/{}", runs[0]["id"].as_str().unwrap())).await;
    assert_eq!(shown["reference"], "refs/pull/1/merge");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_moves_while_it_runs_is_a_run_beside_it_or_in_its_place_as_the_file_says() {
    if !engine::available("a_head_that_moves_while_it_runs_is_a_run_beside_it_or_in_its_place_as_the_file_says") {
        return;
    }
    let sleeps = ON_PULL_REQUEST.replace("echo hi", "test -e quick || sleep 300");
    let alone = format!("concurrency: {{group: 'pr-${{{{ github.ref }}}}', cancel-in-progress: true}}\n{sleeps}");
    let (beside, instead) = (".github/workflows/beside.yml", ".github/workflows/instead.yml");
    let steps = |text: &str| text.replace("      - run:", "      - uses: actions/checkout@v4\n      - run:");
    let proposed = Proposed::new(&[(beside, &steps(&sleeps)), (instead, &steps(&alone))]).await;
    let owner = proposed.followed.world.owner.clone();
    let first = proposed.topic("topic", "first", &[("a", "1")]);
    let _coordinator = proposed.followed.start();
    let _worker = proposed.followed.pool.worker(&[("LONGSHORE_SLOTS", "4")]).unwrap();
    let root = proposed.open(&owner, &first, &[]).await;
    let runs = proposed.runs(2).await;
    for run in &runs {
        proposed.run_is(run, "running").await;
    }
    let second = proposed.topic("topic", "second", &[("quick", "1")]);
    proposed.update(&owner, &root, &second).await;
    let all = proposed.runs(4).await;
    for run in &all[2..] {
        proposed.run_is(run, "success").await;
    }
    let find = |path: &str| runs.iter().find(|run| run["workflow"] == path).unwrap().clone();
    let ended = proposed.run_is(&find(instead), "cancelled").await;
    assert!(ended["why"].as_str().unwrap().contains("cancelled by run"), "{ended}");
    proposed.run_is(&find(beside), "running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pull_request_is_lost_and_none_runs_twice_whenever_the_coordinator_is_killed() {
    const REQUESTS: usize = 12;
    let proposed = Proposed::new(&[(CI, ON_PULL_REQUEST)]).await;
    let owner = proposed.followed.world.owner.clone();
    let mut coordinator = proposed.followed.start();
    for number in 0..REQUESTS {
        let topic = proposed.topic(&format!("t{number}"), "a thing", &[("a", &number.to_string())]);
        proposed.open(&owner, &topic, &[]).await;
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..400))).await;
        if number % 4 == 2 {
            coordinator.kill().unwrap();
            coordinator = proposed.followed.pool.coordinator().unwrap();
        }
    }
    let runs = proposed.runs(REQUESTS).await;
    let mut numbers: Vec<&str> = runs.iter().filter_map(|run| run["branch"].as_str()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), REQUESTS, "{numbers:?}");
}
