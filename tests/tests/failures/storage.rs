//! The coordinator's storage: full for a while, and its owner killed while a job uploads to it.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use longshore_tests::harness::process::Process;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

use super::{LIMIT, Stage, assert_one_end, needs_engine};

/// Uploads what takes a while to send, and says what became of it.
const UPLOADS: &str = "\
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - run: head -c 400000000 /dev/urandom > big
      - uses: actions/upload-artifact@v4
        with: {name: big, path: big, compression-level: 0}
";

/// Speaks before the disk is full, while it is, and after.
const SPEAKS: &str = "\
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - run: for number in $(seq 1 40); do echo \"line $number of 40\"; sleep 0.5; done
";

/// A small file system of its own.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("size=48m")).unwrap();
        Self(at.to_owned())
    }

    /// Takes every byte that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for size in [1 << 16, 1 << 12, 1 << 6, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

impl Stage {
    async fn get(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("{}{path}", self.pool.http)).await.unwrap().error_for_status().unwrap()
    }
}

async fn until(what: &str, processes: &[&Process], mut found: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !found() {
        let logs = || processes.iter().map(|process| process.text()).collect::<Vec<_>>().join("\n----\n");
        assert!(Instant::now() < end, "{what}\n{}", logs());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_nothing_is_lost_once_there_is_space_again() {
    if !needs_engine() {
        return;
    }
    let mut stage = Stage::with(SPEAKS).await;
    let small = Small::mount(&stage.folder.path().join("small"));
    stage.pool = stage.pool.with("LONGSHORE_DATA", &small.0.join("data").to_string_lossy());
    // The request that comes while the disk is full is to wait for room, and not to be refused for the lack of it.
    stage.pool = stage.pool.with("LONGSHORE_STORE_MIN_FREE", "0").with("LONGSHORE_SOURCE_MIN_FREE", "0");
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[]).unwrap();
    let (run, job) = stage.begin().await;
    let filler = small.fill();
    // A request that comes now must not be lost either.
    let (second, second_job) = stage.world.send(&stage.world.press(stage.pool.pubkey, super::PATH)).await.unwrap();
    let is_named = || {
        let text = coordinator.text();
        text.contains("No space left on device") || text.contains("disk is full")
    };
    until("the coordinator does not say that its disk is full", &[&coordinator, &worker], is_named).await;
    std::fs::remove_file(filler).unwrap();
    let answers = stage.end(&run, &job, &[&coordinator, &worker]).await;
    assert_one_end(&answers);
    assert_eq!(answers.statuses().last().unwrap(), "completed");
    let log = stage.get(&format!("/api/runs/{}/logs?format=text", run.id.to_hex())).await.text().await.unwrap();
    for number in 1..=40 {
        assert!(log.contains(&format!("line {number} of 40")), "{number}: {log}");
    }
    let answers = stage.end(&second, &second_job, &[&coordinator, &worker]).await;
    assert_one_end(&answers);
    assert_eq!(answers.statuses().last().unwrap(), "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_killed_in_an_upload_shows_no_half_of_it_and_keeps_none() {
    if !needs_engine() {
        return;
    }
    let stage = Stage::with(UPLOADS).await;
    let blobs = stage.pool.folder.join("data/blobs");
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[]).unwrap();
    let (run, job) = stage.begin().await;
    let arriving = || !files(&blobs.join("incoming")).is_empty() || !files(&blobs.join("staged")).is_empty();
    until("nothing is uploaded", &[&coordinator, &worker], arriving).await;
    coordinator.kill().unwrap();
    let coordinator = stage.pool.coordinator().unwrap();
    let answers = stage.end(&run, &job, &[&coordinator, &worker]).await;
    assert_one_end(&answers);
    let id = run.id.to_hex();
    let shown: Vec<Value> = stage.get(&format!("/api/runs/{id}/artifacts")).await.json().await.unwrap();
    if answers.statuses().last().unwrap() == "completed" {
        let whole = stage.get(&format!("/api/runs/{id}/artifacts/big")).await.bytes().await.unwrap();
        assert!(whole.len() >= 400_000_000, "{} bytes: {shown:?}", whole.len());
    } else {
        assert!(shown.is_empty(), "{shown:?}");
        let log = stage.get(&format!("/api/runs/{id}/logs?format=text")).await.text().await.unwrap();
        assert!(log.contains("##[error]"), "the step says why: {log}");
    }
    assert_eq!(files(&blobs.join("incoming")), Vec::<PathBuf>::new());
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
