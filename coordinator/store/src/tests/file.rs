//! What holds for a SQLite file: its indexes, its versions, and what is left of it after a kill.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use super::*;

/// The name has characters that an address would escape.
const FILE: &str = "a b?#%.sqlite";

async fn open() -> (Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join(FILE)).await.unwrap();
    (store, folder)
}

#[tokio::test]
async fn a_store_whose_writer_ended_says_so_and_takes_nothing() {
    let (store, _folder) = open().await;
    let bug = store.transaction::<_, ()>(&[], |_| Box::pin(async { panic!("a bug") }));
    assert!(matches!(bug.await, Err(StoreError::Stopped)));
    assert!(matches!(store.commit(Vec::new()).await, Err(StoreError::Stopped)));
    let problem = store.problem().await.unwrap().unwrap();
    assert!(problem.to_string().contains("restart the coordinator"), "{problem}");
}

#[tokio::test]
async fn what_is_written_is_copied_from_the_log_into_the_file_beside_the_writer() {
    let (store, folder) = open().await;
    let run = async |statement: &'static str| {
        let written =
            store.transaction(&[], move |connection| Box::pin(async move { connection.run(statement).await }));
        written.await.unwrap();
    };
    run("CREATE TABLE filler (content BLOB)").await;
    for _ in 0..20 {
        run("INSERT INTO filler VALUES (zeroblob(1048576))").await;
    }
    let size = || std::fs::metadata(folder.path().join(FILE)).unwrap().len();
    let copied = async {
        while size() < 16 * 1024 * 1024 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), copied).await.unwrap();
}

#[tokio::test]
async fn every_list_is_a_walk_along_an_index() {
    let (store, _folder) = &open().await;
    let filter = |change: fn(&mut Filter)| {
        let mut filter = Filter { reader: Reader::Operator, ..Filter::default() };
        change(&mut filter);
        filter
    };
    let cases = [
        ("serial", filter(|_| {})),
        ("runs_repository", filter(|filter| filter.repository = Some("a".into()))),
        ("runs_workflow", filter(|filter| filter.workflow = Some("a".into()))),
        ("runs_branch", filter(|filter| filter.branch = Some("a".into()))),
        ("runs_status", filter(|filter| filter.status = vec![Status::Success])),
        ("runs_actor", filter(|filter| filter.actor = Some("a".into()))),
        ("runs_event", filter(|filter| filter.event = Some("a".into()))),
    ];
    for (index, filter) in cases {
        for before in [None, Some(1000)] {
            let plan = store.explain(&filter, Page { before, limit: 50 }).await.unwrap();
            let expected = if index == "serial" { "USING INDEX sqlite_autoindex_runs" } else { index };
            assert!(plan.contains(expected) && !plan.contains("TEMP B-TREE"), "{index} before {before:?}: {plan}");
        }
    }
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_not_touched() {
    let (store, folder) = open().await;
    store
        .transaction(&[], |connection| {
            let newer = crate::sql::query("INSERT INTO schema_version (version) VALUES (99)");
            Box::pin(newer.execute(connection))
        })
        .await
        .unwrap();
    drop(store);
    let error = Store::open(&folder.path().join(FILE)).await.unwrap_err().to_string();
    assert!(error.contains("schema 99") && error.contains("newer version"), "{error}");
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let error = Store::open(Path::new("/nonexistent/place/store.sqlite")).await.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/place/store.sqlite") && error.contains("folder"), "{error}");
}

/// A file system of its own, which ends with it.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), folder.path(), Some("tmpfs"), flags, Some("size=4m")).unwrap();
        Self(folder)
    }

    /// Takes every byte that is left.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.0.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn a_disk_that_was_full_is_written_again_and_nothing_that_failed_is_there() {
    // Only root may mount.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let disk = SmallDisk::mount();
    let store = Store::open(&disk.0.path().join(FILE)).await.unwrap().with_min_free(disk.0.path(), 1 << 20);
    assert_eq!(store.problem().await.unwrap(), None);
    let filler = disk.fill();
    let (mut stored, mut failed) = (Vec::new(), Vec::new());
    for round in 0..20 {
        // Several wait at once: they are one group, and SQLite rolls back all of it.
        let ids: Vec<_> = (0..8).map(|number| format!("{round}-{number}")).collect();
        let large = |id: &String| vec![Change::Queue(QueuedJob { owner: "o".repeat(20_000), ..queued(id, 1) })];
        let results = futures::future::join_all(ids.iter().map(|id| store.commit(large(id)))).await;
        for (id, result) in ids.into_iter().zip(results) {
            if result.is_ok() { stored.push(id) } else { failed.push(id) }
        }
    }
    assert!(!failed.is_empty(), "the disk was never full");
    let problem = store.problem().await.unwrap();
    assert!(matches!(&problem, Some(StoreProblem::Failing { error, .. }) if error.contains("full")), "{problem:?}");
    assert!(matches!(store.low_space(), Some(StoreProblem::LowSpace { .. })));

    std::fs::remove_file(filler).unwrap();
    assert_eq!(store.problem().await.unwrap(), None);
    store.commit(vec![Change::Queue(queued("after", 2))]).await.unwrap();
    let mut jobs: Vec<_> = store.queued().await.unwrap().into_iter().map(|queued| queued.job.to_string()).collect();
    jobs.sort();
    stored.push("after".into());
    stored.sort();
    assert_eq!(jobs, stored, "what was told to have failed is not there, and everything else is");
}

const CHILD: &str = "LONGSHORE_TEST_STORE";

/// Commits without end and says on stdout what was acknowledged.
async fn commit_until_killed(path: &Path) {
    let store = Store::open(path).await.unwrap();
    let writer = async |writer: usize| {
        for count in 0.. {
            let id = format!("{writer}-{count}");
            let pair = vec![Change::Seen { id: id.clone(), at: 1 }, Change::Queue(queued(&id, 1))];
            store.commit(pair).await.unwrap();
            writeln!(std::io::stdout(), "stored {id}").unwrap();
        }
    };
    futures::future::join_all((0..8).map(writer)).await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_and_no_half_of_a_batch_does() {
    if let Some(path) = std::env::var_os(CHILD) {
        return commit_until_killed(Path::new(&path)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::file::what_was_acknowledged_survives_kill_9_and_no_half_of_a_batch_does"])
        .args(["--nocapture", "--test-threads=1"])
        .env(CHILD, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let stored = |line: String| line.strip_prefix("stored ").map(str::to_owned);
    let mut acknowledged: Vec<String> = lines.by_ref().filter_map(stored).take(200).collect();
    assert_eq!(acknowledged.len(), 200, "the child ended early");
    child.kill().unwrap();
    child.wait().unwrap();
    // A last line may have been cut by the kill; whole ones were acknowledged.
    acknowledged.extend(lines.filter_map(stored));
    acknowledged.pop();

    let store = Store::open(&path).await.unwrap();
    let jobs: std::collections::HashSet<_> =
        store.queued().await.unwrap().into_iter().map(|queued| queued.job.to_string()).collect();
    for id in &acknowledged {
        assert!(store.seen(id).await.unwrap() && jobs.contains(id), "{id} was acknowledged and is lost");
    }
    for id in &jobs {
        assert!(store.seen(id).await.unwrap(), "half of the batch {id} was written");
    }
    store.commit(vec![Change::Seen { id: "after".into(), at: 2 }]).await.unwrap();
}
