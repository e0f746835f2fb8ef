//! What goes, when, and what stays, on a real store with real files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use domain::run::{FinalizedLog, RunEnd, RunPhase, RunState, testing::TestRun};
use futures::future::BoxFuture;
use source::EventQuery;
use store::{Change, ClaimLimit, ClaimRequest, LaneOrder, RunChange};
use workflow::plan::Conclusion;

use super::*;

const NOW: Millis = 1_000_000;

struct Nobody;

impl EventQuery for Nobody {
    fn find<'a>(&'a self, _: &'a [String], _: nostr::Filter) -> BoxFuture<'a, Vec<nostr::Event>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn write_relays<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

/// Repositories of this owner are served, and of nobody else.
const OWNER: &str = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

fn served() -> config::Config {
    let policy = config::Policy { pubkeys: vec![OWNER.to_owned()], ..config::Policy::default() };
    config::Config { policy, ..config::Config::default() }
}

struct World {
    folder: tempfile::TempDir,
    store: Store,
    retention: Retention,
}

impl World {
    async fn new(limits: config::Retention) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).await.unwrap();
        let blobs = Blobs::open_alone(&folder.path().join("blobs"), store.clone()).unwrap();
        let clock: fn() -> Millis = || NOW;
        let actions_api =
            ActionsApi::new(store.clone(), blobs.clone(), &[0; 32], config::CacheAndArtifactLimits::default(), clock);
        let sources =
            RepositoryMirrors::new(folder.path().join("mirrors"), config::Source::default(), Arc::new(Nobody));
        let retention = Config {
            store: store.clone(),
            logs: Logs::new(folder.path().join("logs")),
            blobs,
            actions_api,
            sources: Arc::new(sources),
            policy: Policy::new(&served()).unwrap(),
            limits,
            keep: 1000,
            clock,
        };
        Self { folder, store, retention: retention.build() }
    }

    /// Does every part that is due, as the loop of work does.
    async fn turn(&self, now: Millis) -> usize {
        let limits = vec![ClaimLimit { kind: WorkKind::Retain, limit: 9, lanes: LaneOrder::Independent }];
        let request = ClaimRequest { limits, claim: format!("c/{now}"), now, until: now + 1 };
        let rows = self.store.claim_work(request).await.unwrap();
        let due = rows.len();
        for row in rows {
            let Outcome::Store(batch) = self.retention.handle(vec![row]).await.unwrap() else {
                panic!("it stores nothing")
            };
            self.store.commit(batch).await.unwrap();
        }
        due
    }

    /// A log that was written so many hours ago.
    fn log(&self, run: &str, hours: u64) -> PathBuf {
        let folder = self.folder.path().join("logs").join(run).join("build");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("1"), "0123456789").unwrap();
        set_age(&folder.join("1"), hours);
        folder
    }

    async fn run(&self, id: &str, serial: u64, repository: &str, ends: bool) {
        let mut state = RunState { id: id.into(), serial, version: 0, ..TestRun::with(Vec::new()).state };
        Arc::make_mut(&mut state.request).id = id.into();
        Arc::make_mut(&mut state.request).repository.address = repository.into();
        state.phase = RunPhase::Active;
        state.expires_at = 10 * NOW;
        if ends {
            let end = RunEnd { conclusion: Conclusion::Success, reason: None, exit_code: 0, at: 1 };
            state.phase = RunPhase::Done { end, log: FinalizedLog::default() };
        }
        self.store.commit(vec![Change::Run(RunChange::whole(state))]).await.unwrap();
    }

    /// A mirror that was used so many hours ago.
    async fn mirror(&self, repository: &str, hours: u64) -> PathBuf {
        let path = self.retention.0.sources.folder(repository).await.unwrap();
        std::fs::write(path.join("description"), "x".repeat(10_000)).unwrap();
        set_age(&path.join("HEAD"), hours);
        path
    }
}

fn set_age(path: &Path, hours: u64) {
    let at = SystemTime::now() - Duration::from_secs(3600 * hours);
    std::fs::File::open(path).unwrap().set_modified(at).unwrap();
}

#[tokio::test]
async fn every_part_is_due_at_the_start_and_again_after_a_pause() {
    let world = World::new(config::Retention::default()).await;
    assert_eq!(world.turn(NOW).await, 4);
    assert_eq!(world.turn(NOW + PAUSE - 1).await, 0);
    assert_eq!(world.turn(NOW + PAUSE).await, 4);
}

#[tokio::test]
async fn nothing_is_left_of_a_run_whose_time_is_over() {
    let world = World::new(config::Retention::default()).await;
    let log = world.log("r", 0);
    let id = |id: &str, at| Change::Seen { id: id.into(), at };
    world.store.commit(vec![id("old", 10), id("new", NOW)]).await.unwrap();
    let run = ExpiredRun { id: "r".into(), repository: "30617:o:r".into(), commit: "c".into() };
    world.retention.remove(&run).await.unwrap();
    assert!(!log.exists());
    world.turn(NOW).await;
    assert!(!world.store.seen("old").await.unwrap() && world.store.seen("new").await.unwrap());
}

#[tokio::test]
async fn logs_beyond_their_limit_go_the_oldest_first_and_those_of_unfinished_runs_stay() {
    let world = World::new(config::Retention { log_bytes: 25, ..config::Retention::default() }).await;
    world.run("running", 1, "30617:o:r", false).await;
    world.run("older", 2, "30617:o:r", true).await;
    world.run("newer", 3, "30617:o:r", true).await;
    let logs = [world.log("running", 9), world.log("older", 3), world.log("newer", 2)];
    world.turn(NOW).await;
    assert_eq!(logs.map(|log| log.exists()), [true, false, true]);
    assert!(world.store.run(&"older".into()).await.unwrap().is_some(), "the run itself stays");
}

#[tokio::test]
async fn complete_texts_that_were_published_count_as_logs_and_the_shortened_ones_stay() {
    let world = World::new(config::Retention { log_bytes: 3 << 20, ..config::Retention::default() }).await;
    for (serial, run, ends) in [(1, "running", false), (2, "older", true), (3, "newer", true)] {
        world.run(run, serial, "30617:o:r", ends).await;
        for (bytes, letter) in [(2 << 20, run), (1000, "short")] {
            let deposit = blobs::Deposit {
                kind: "text/plain".into(),
                owner: run.into(),
                public: true,
                now: serial,
                expires_at: 10 * NOW,
                allowed: None,
                limit: u64::MAX,
            };
            world.retention.0.blobs.put_bytes(letter.repeat(bytes / letter.len() + 1).into(), deposit).await.unwrap();
        }
    }
    world.turn(NOW).await;
    for (run, kept) in [("running", 2), ("older", 1), ("newer", 1)] {
        assert_eq!(world.store.blobs_of(run, 9).await.unwrap().len(), kept, "{run}");
    }
}

#[tokio::test]
async fn mirrors_beyond_their_limit_go_the_one_that_was_unused_longest_first_and_those_in_use_stay() {
    let world = World::new(config::Retention { mirror_bytes: 45_000, ..config::Retention::default() }).await;
    world.run("running", 1, "needed", false).await;
    let mirrors = [
        world.mirror("needed", 9).await,
        world.mirror("oldest", 8).await,
        world.mirror("older", 7).await,
        world.mirror("newer", 6).await,
        world.mirror("read now", 0).await,
    ];
    world.turn(NOW).await;
    let there = mirrors.map(|mirror| mirror.exists());
    assert!(there[0] && !there[1] && there[4], "{there:?}");
}

#[tokio::test]
async fn stored_values_go_a_day_after_nobody_may_run_for_their_repository_any_more() {
    let world = World::new(config::Retention::default()).await;
    let others = format!("30617:{}:name", "ab".repeat(32));
    let own = format!("30617:{OWNER}:name");
    for repository in [&own, &others] {
        let order = store::RepositoryValue {
            repository: repository.clone(),
            environment: String::new(),
            kind: store::ValueKind::Variable,
            name: "A".into(),
            ordered_at: 1,
            event: "e".into(),
            author: "ab".repeat(32),
            content: Some(store::ValueContent::Plain("x".into())),
        };
        world.store.order_value(order).await.unwrap();
    }
    let left = async || world.store.repositories_with_values().await.unwrap().into_keys().collect::<Vec<_>>();
    for now in [NOW, NOW + DAY_MS - 1] {
        world.retention.forget_values(now).await.unwrap();
        assert_eq!(left().await.len(), 2, "a mistake can be mended");
    }
    world.retention.forget_values(NOW + DAY_MS).await.unwrap();
    assert_eq!(left().await, [own]);
}
