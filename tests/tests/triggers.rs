//! Pushes, schedules and pull requests start workflows: real git servers, relays and coordinators, which are killed and
//! started again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "triggers/outsiders.rs"]
mod outsiders;
#[path = "triggers/pull_requests.rs"]
mod pull_requests;

use std::{
    cell::Cell,
    path::Path,
    time::{Duration, Instant},
};

use longshore_tests::harness::{
    client::sign_at,
    engine,
    pool::Pool,
    process::Process,
    world::{Relay, World},
};
use nostr::{Keys, Timestamp};
use serde_json::Value;

/// Long enough for a busy machine.
const LIMIT: Duration = Duration::from_secs(90);
const CI: &str = ".github/workflows/ci.yml";
const ON_PUSH: &str = "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo hi\n";

/// A repository that a pool follows.
struct Followed {
    world: World,
    pool: Pool,
    /// Of the state that was published last (s).
    at: Cell<u64>,
    _relay: Relay,
    _folder: tempfile::TempDir,
}

impl Followed {
    async fn new(files: &[(&str, &str)]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let relay = Relay::start(folder.path()).unwrap();
        let world = World::new(&relay.url, files).await.unwrap();
        let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url)).unwrap();
        let pool = pool.with("LONGSHORE_TRIGGERS_REPOSITORIES", &world.address());
        let at = Cell::new(Timestamp::now().as_secs());
        Self { world, pool, at, _relay: relay, _folder: folder }
    }

    /// Starts the coordinator, and waits until it knows where the refs are.
    fn start(&self) -> Process {
        let mut coordinator = self.pool.coordinator().unwrap();
        coordinator.line(LIMIT, |line| line.contains("its refs are known")).unwrap();
        coordinator
    }

    /// Commits, on whatever is checked out.
    fn commit(&self, message: &str, files: &[(&str, &str)]) -> String {
        self.world.repository.commit(message, files).unwrap()
    }

    /// The git server has all that was committed.
    fn serve(&self) {
        self.world.repository.publish(&self.world.git.folder, "repo.git").unwrap();
    }

    /// Publishes where the refs are, later than the state before.
    async fn state(&self, by: &Keys, refs: &[(&str, &str)]) {
        self.at.set(self.at.get().max(Timestamp::now().as_secs()) + 1);
        self.state_at(by, refs, self.at.get()).await;
    }

    async fn state_at(&self, by: &Keys, refs: &[(&str, &str)], at: u64) {
        let mut tags = vec![vec!["d".to_owned(), "my-repo".into()]];
        tags.extend(refs.iter().map(|(name, object)| vec![(*name).to_owned(), (*object).to_owned()]));
        tags.push(vec!["HEAD".into(), "ref: refs/heads/main".into()]);
        let event = sign_at(by, 30618, tags, Timestamp::from(at)).unwrap();
        self.world.listener.publish(&event).await.unwrap();
    }

    async fn push(&self, refs: &[(&str, &str)]) {
        self.serve();
        self.state(&self.world.owner, refs).await;
    }

    async fn get(&self, path: &str) -> Value {
        let answer = reqwest::get(format!("{}{path}", self.pool.http)).await.unwrap();
        answer.error_for_status().unwrap().json().await.unwrap()
    }

    /// Branch and commit of each run, the oldest first.
    async fn runs(&self) -> Vec<(String, String)> {
        let mut runs: Vec<Value> = self.get("/api/runs?limit=50").await.as_array().unwrap().clone();
        runs.sort_by_key(|run| run["serial"].as_u64());
        let text = |run: &Value, key: &str| run[key].as_str().unwrap_or_default().to_owned();
        runs.iter().map(|run| (text(run, "branch"), text(run, "commit"))).collect()
    }

    /// Waits until there are so many runs, and none more.
    async fn runs_become(&self, count: usize) -> Vec<(String, String)> {
        let until = Instant::now() + LIMIT;
        loop {
            let runs = self.runs().await;
            if runs.len() >= count && runs.iter().all(|(_, commit)| !commit.is_empty()) {
                tokio::time::sleep(Duration::from_millis(1500)).await;
                let runs = self.runs().await;
                assert_eq!(runs.len(), count, "{runs:?}");
                return runs;
            }
            assert!(Instant::now() < until, "{count} runs were expected: {runs:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn run(branch: &str, commit: &str) -> (String, String) {
    (branch.to_owned(), commit.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_runs_its_workflow_which_sees_what_was_pushed() {
    if !engine::available("a_push_runs_its_workflow_which_sees_what_was_pushed") {
        return;
    }
    let says = "> ${{ github.event_name }} ${{ github.ref }} ${{ github.event.before }} ${{ github.event.after }} \
                ${{ github.event.forced }} ${{ join(github.event.commits.*.message, '+') }}";
    let workflow =
        format!("on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo '{says}'\n");
    let followed = Followed::new(&[(CI, &workflow)]).await;
    let first = followed.world.repository.git(&["rev-parse", "HEAD"]).unwrap();
    let _coordinator = followed.start();
    let _worker = followed.pool.worker(&[]).unwrap();
    followed.commit("second", &[("a", "1")]);
    let third = followed.commit("third", &[("a", "2")]);
    followed.push(&[("refs/heads/main", &third)]).await;
    followed.runs_become(1).await;

    let until = Instant::now() + LIMIT;
    let run = loop {
        let runs = followed.get("/api/runs").await;
        if runs[0]["status"] == "success" {
            break runs[0].clone();
        }
        assert!(Instant::now() < until, "{runs}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((&run["event"], run["number"].as_u64()), (&Value::from("push"), Some(1)));
    assert_eq!(run["actor"].as_str().unwrap(), followed.world.owner.public_key().to_hex());
    let log = format!("{}/api/runs/{}/logs?format=text", followed.pool.http, run["id"].as_str().unwrap());
    let log = reqwest::get(log).await.unwrap().text().await.unwrap();
    let expected = format!("> push refs/heads/main {first} {third} false second+third");
    assert!(log.contains(&expected), "{expected}\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t65_the_first_state_starts_nothing_and_after_a_restart_each_moved_ref_runs_once() {
    let followed = Followed::new(&[(CI, ON_PUSH)]).await;
    let coordinator = followed.start();
    followed.runs_become(0).await;
    coordinator.kill().unwrap();

    let second = followed.commit("second", &[("a", "1")]);
    followed.push(&[("refs/heads/main", &second)]).await;
    let third = followed.commit("third", &[("a", "2")]);
    let skipped = followed.commit("fourth [skip ci]", &[("a", "3")]);
    let refs = [("refs/heads/main", third.as_str()), ("refs/heads/dev", &third), ("refs/heads/quiet", &skipped)];
    followed.push(&refs).await;
    let coordinator = followed.pool.coordinator().unwrap();
    let mut runs = followed.runs_become(2).await;
    runs.sort();
    assert_eq!(runs, [run("dev", &third), run("main", &third)]);
    coordinator.kill().unwrap();
    let _coordinator = followed.pool.coordinator().unwrap();
    followed.runs_become(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t58_a_state_that_precedes_its_objects_waits_for_them_and_a_newer_one_takes_its_place() {
    let followed = Followed::new(&[(CI, ON_PUSH)]).await;
    let mut coordinator = followed.start();
    let second = followed.commit("second", &[("a", "1")]);
    followed.state(&followed.world.owner, &[("refs/heads/main", &second)]).await;
    coordinator.line(LIMIT, |line| line.contains("a push waits for its commit")).unwrap();
    assert_eq!(followed.runs().await, []);
    followed.serve();
    assert_eq!(followed.runs_become(1).await, [run("main", &second)]);

    let never = "0123456789012345678901234567890123456789";
    followed.state(&followed.world.owner, &[("refs/heads/main", never)]).await;
    coordinator.line(LIMIT, |line| line.contains("a push waits for its commit") && line.contains(never)).unwrap();
    let third = followed.commit("third", &[("a", "2")]);
    followed.push(&[("refs/heads/main", &third)]).await;
    assert_eq!(followed.runs_become(2).await, [run("main", &second), run("main", &third)]);
    coordinator.line(LIMIT, |line| line.contains("a newer one came before its commit did")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn forced_pushes_deleted_branches_and_tags_beside_branches_are_what_git_says_they_are() {
    let followed = Followed::new(&[(CI, ON_PUSH)]).await;
    let _coordinator = followed.start();
    let git = |arguments: &[&str]| followed.world.repository.git(arguments).unwrap();
    let second = followed.commit("second", &[("a", "1")]);
    git(&["branch", "topic"]);
    git(&["tag", "v1"]);
    let refs = [("refs/heads/main", second.as_str()), ("refs/heads/topic", &second), ("refs/tags/v1", &second)];
    followed.push(&refs).await;
    let mut runs = followed.runs_become(3).await;
    runs.sort();
    assert_eq!(runs, [run("main", &second), run("topic", &second), run("v1", &second)], "three changes of one commit");

    git(&["branch", "-D", "topic"]);
    git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    let other = followed.commit("other", &[("a", "2")]);
    followed.push(&[("refs/heads/main", &other), ("refs/tags/v1", &second)]).await;
    let runs = followed.runs_become(4).await;
    assert_eq!(runs[3], run("main", &other), "the forced push runs, the deleted branch does not");
    let id = followed.get("/api/runs?limit=1").await[0]["id"].as_str().unwrap().to_owned();
    let forced = followed.get(&format!("/api/runs/{id}")).await;
    assert_eq!(forced["commit"], other.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn t59_t60_states_of_strangers_and_former_maintainers_start_nothing() {
    let followed = Followed::new(&[(CI, ON_PUSH)]).await;
    let (second, stranger) = (Keys::generate(), Keys::generate());
    let now = Timestamp::now();
    followed.world.maintained_by(&[&second], now + 1_u64).await.unwrap();
    let _coordinator = followed.start();
    let of_second = followed.commit("by the second maintainer", &[("a", "1")]);
    followed.serve();
    followed.state(&stranger, &[("refs/heads/main", &of_second)]).await;
    followed.runs_become(0).await;
    followed.state(&second, &[("refs/heads/main", &of_second)]).await;
    assert_eq!(followed.runs_become(1).await, [run("main", &of_second)]);

    // Of two states of one second the one with the lower id counts, whichever came first.
    let (x, y) = (followed.commit("x", &[("a", "2")]), followed.commit("y", &[("a", "3")]));
    followed.serve();
    followed.at.set(followed.at.get() + 1);
    followed.state_at(&second, &[("refs/heads/main", &x)], followed.at.get()).await;
    assert_eq!(followed.runs_become(2).await[1], run("main", &x));
    followed.state_at(&followed.world.owner, &[("refs/heads/main", &y)], followed.at.get()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = followed.runs().await.len();

    followed.world.maintained_by(&[], now + 2_u64).await.unwrap();
    let z = followed.commit("z", &[("a", "4")]);
    followed.serve();
    followed.state(&second, &[("refs/heads/main", &z)]).await;
    followed.runs_become(before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t63_filters_are_the_default_branchs_and_paths_are_held_against_the_real_difference() {
    let filtered = |on: &str| ON_PUSH.replacen("on: push", &format!("on: {{push: {on}}}"), 1);
    let (source, main) = (filtered("{paths: ['src/**']}"), filtered("{branches: [main]}"));
    let paths = ".github/workflows/paths.yml";
    let followed = Followed::new(&[(CI, &main), (paths, &source), ("src/a", "1")]).await;
    let _coordinator = followed.start();
    let git = |arguments: &[&str]| followed.world.repository.git(arguments).unwrap();
    let workflows = |runs: Value| {
        let mut names: Vec<String> =
            runs.as_array().unwrap().iter().map(|run| run["workflow"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    // A branch that widens the filter of a workflow does not run it, and its own new workflow speaks for itself.
    let first = git(&["rev-parse", "HEAD"]);
    git(&["checkout", "--quiet", "-b", "topic"]);
    let own = ".github/workflows/own.yml";
    let topic = followed.commit("widened", &[(CI, ON_PUSH), (own, ON_PUSH)]);
    followed.push(&[("refs/heads/main", &first), ("refs/heads/topic", &topic)]).await;
    followed.runs_become(1).await;
    assert_eq!(workflows(followed.get("/api/runs").await), [own]);

    let changed = followed.commit("source", &[("src/a", "2")]);
    followed.push(&[("refs/heads/main", &first), ("refs/heads/topic", &changed)]).await;
    followed.runs_become(3).await;
    assert_eq!(workflows(followed.get("/api/runs").await), [own, own, paths]);
}

/// The coordinator's database.
fn database(followed: &Followed) -> rusqlite::Connection {
    let config = std::fs::read_to_string(followed.pool.folder.join("coordinator.toml")).unwrap();
    let config: toml::Table = config.parse().unwrap();
    rusqlite::Connection::open(Path::new(config["data"].as_str().unwrap()).join("longshore.db")).unwrap()
}

/// When each schedule is due (ms).
fn scheduled(followed: &Followed) -> Vec<u64> {
    let database = database(followed);
    let mut statement = database.prepare("SELECT due FROM work WHERE id LIKE 'schedule %'").unwrap();
    let rows = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    rows.map(|due| due.unwrap().unsigned_abs()).collect()
}

/// Waits until something is so.
async fn until(what: &str, coordinator: &Process, mut look: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !look() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}\n{}", coordinator.text()));
}

#[tokio::test(flavor = "multi_thread")]
async fn t66_a_schedule_is_begun_from_now_and_an_outage_of_hours_is_one_run() {
    let minutely = ON_PUSH.replacen("on: push", "on: {schedule: [{cron: '*/1 * * * *'}]}", 1);
    let followed = Followed::new(&[(CI, &minutely)]).await;
    let coordinator = followed.start();
    until("a row for the schedule", &coordinator, || scheduled(&followed).len() == 1).await;
    coordinator.kill().unwrap();

    // Three hours pass.
    let earlier = "UPDATE work SET due = due - 10800000, claimed_by = NULL, claimed_until = 0,
                       payload = json_set(payload, '$.scheduled.due', due - 10800000) WHERE id LIKE 'schedule %'";
    assert_eq!(database(&followed).execute(earlier, []).unwrap(), 1);
    let coordinator = followed.pool.coordinator().unwrap();
    followed.runs_become(1).await;
    let runs = followed.get("/api/runs").await;
    assert_eq!((&runs[0]["event"], &runs[0]["branch"]), (&Value::from("schedule"), &Value::from("main")));
    let now = Timestamp::now().as_secs() * 1000;
    let next = scheduled(&followed);
    assert!(next.len() == 1 && next[0] > now + 200_000, "five minutes apart: {next:?}");

    // A line that the default branch no longer has starts nothing.
    let without = followed.commit("no schedule", &[(CI, &ON_PUSH.replacen("on: push", "on: workflow_dispatch", 1))]);
    followed.push(&[("refs/heads/main", &without)]).await;
    until("the row is gone", &coordinator, || scheduled(&followed).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_push_is_lost_and_none_runs_twice_whenever_the_coordinator_is_killed() {
    const PUSHES: usize = 40;
    let followed = Followed::new(&[(CI, ON_PUSH)]).await;
    let mut coordinator = followed.start();
    let main = followed.world.repository.git(&["rev-parse", "HEAD"]).unwrap();
    let mut pushed = vec![("main".to_owned(), main)];
    for number in 0..PUSHES {
        let branch = format!("b{number}");
        followed.world.repository.git(&["checkout", "--quiet", "-b", &branch]).unwrap();
        let commit = followed.commit(&branch, &[("a", &branch)]);
        pushed.push((branch, commit));
        let refs: Vec<(String, &str)> =
            pushed.iter().map(|(branch, commit)| (format!("refs/heads/{branch}"), commit.as_str())).collect();
        followed.push(&refs.iter().map(|(name, commit)| (name.as_str(), *commit)).collect::<Vec<_>>()).await;
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..400))).await;
        if number % 7 == 3 {
            coordinator.kill().unwrap();
            coordinator = followed.pool.coordinator().unwrap();
        }
    }
    let mut runs = followed.runs_become(PUSHES).await;
    let mut expected = pushed.split_off(1);
    runs.sort();
    expected.sort();
    assert_eq!(runs, expected);
}
