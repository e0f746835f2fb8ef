//! The process of a job on its worker: killed, stopped, over its memory, and left behind by its worker.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use longshore_tests::harness::client::{kind, tag};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use nostr::Event;
use serde_json::Value;

use super::{LIMIT, Stage, assert_one_end, lasting};

/// Where these jobs run: no engine is needed.
const ON_HOST: (&str, &str) = ("LONGSHORE_SANDBOX", "host");

/// Two jobs: one says its name and lasts, the other one says its own and ends meanwhile.
const PAIR: &str = "\
on: push
jobs:
  victim:
    runs-on: ubuntu-latest
    steps:
      - run: echo the victim runs; sleep 100
  neighbour:
    runs-on: ubuntu-latest
    steps:
      - run: for i in $(seq 60); do echo the neighbour runs; sleep 0.2; done
";

/// Children of a process that are this program, for jobs.
fn children(process: u32) -> Vec<Pid> {
    let children = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let child: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let is_job = String::from_utf8_lossy(&command).contains("job-process");
        (parent == process && is_job).then(|| Pid::from_raw(child))
    });
    children.collect()
}

/// Processes of jobs: those that the worker's fork server started.
fn job_processes(worker: u32) -> Vec<Pid> {
    children(worker).into_iter().flat_map(|server| children(server.as_raw().cast_unsigned())).collect()
}

/// The process whose job printed a text, once it has.
fn process_that_printed(worker: u32, text: &str) -> Pid {
    wait_for(&format!("a process that printed `{text}`"), || {
        job_processes(worker).into_iter().find(|process| {
            let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
            let spools = files.filter_map(|file| fs::read_link(file.path()).ok());
            let printed =
                |spool: PathBuf| fs::read(spool).is_ok_and(|log| String::from_utf8_lossy(&log).contains(text));
            spools.filter(|path| path.components().any(|part| part.as_os_str() == "spool")).any(printed)
        })
    })
}

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_there(process: Pid) -> bool {
    // A zombie is as good as gone: its parent has only not looked yet.
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Folders that live jobs have; the temporary ones go with their processes.
fn scratch(worker_data: &Path) -> usize {
    fs::read_dir(worker_data.join("scratch")).map_or(0, Iterator::count)
}

impl Stage {
    async fn job(&self, run: &Event, name: &str) -> Value {
        let url = format!("{}/api/runs/{}", self.pool.http, run.id.to_hex());
        let shown: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        let jobs = shown["jobs"].as_array().unwrap();
        jobs.iter().find(|job| job["key"] == name).unwrap_or_else(|| panic!("{shown:#}")).clone()
    }

    fn worker_data(&self) -> PathBuf {
        self.pool.folder.join("worker-data")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_process_is_killed_is_tried_again_twice_and_its_neighbour_goes_on() {
    let stage = Stage::with(PAIR).await;
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[ON_HOST]).unwrap();
    let (run, job) = stage.begin().await;
    for _ in 0..3 {
        let victim = process_that_printed(worker.id(), "the victim runs");
        kill(victim, Signal::SIGKILL).unwrap();
        wait_for("the end of a killed process", || (!is_there(victim)).then_some(()));
    }
    let answers = stage.end(&run, &job, &[&coordinator, &worker]).await;
    assert_one_end(&answers);
    let result = answers.only(kind::RESULT).unwrap();
    assert!(tag(result, "error").contains("the job's process on the worker ended: killed by signal 9"), "{result:?}");
    let victim = stage.job(&run, "victim").await;
    assert_eq!(victim["attempts"].as_array().map(Vec::len), Some(3), "{victim:#}");
    let neighbour = stage.job(&run, "neighbour").await;
    assert_eq!(neighbour["conclusion"], "success", "{neighbour:#}");
    assert_eq!(neighbour["attempts"].as_array().map(Vec::len), Some(1), "{neighbour:#}");
    // What is left belongs to processes that wait for a job.
    wait_for("the end of what the jobs had", || {
        (scratch(&stage.worker_data()) == job_processes(worker.id()).len()).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_on_and_others_begin_when_the_process_that_forks_theirs_is_killed() {
    let stage = Stage::with(PAIR).await;
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[ON_HOST]).unwrap();
    let (run, job) = stage.begin().await;
    let running = process_that_printed(worker.id(), "the neighbour runs");
    let servers = children(worker.id());
    assert_eq!(servers.len(), 1, "{servers:?}");
    kill(servers[0], Signal::SIGKILL).unwrap();
    wait_for("the end of the process", || (!is_there(servers[0])).then_some(()));
    assert!(is_there(running));
    let (second, second_job) = stage.begin().await;
    wait_for("a process for the next job", || (!job_processes(worker.id()).is_empty()).then_some(()));
    for (run, job) in [(run, job), (second, second_job)] {
        while stage.job(&run, "neighbour").await["conclusion"] != "success" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stage.cancel(&job).await;
        assert_one_end(&stage.end(&run, &job, &[&coordinator, &worker]).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_answers_nothing_is_ended_and_other_jobs_run_meanwhile() {
    let stage = Stage::with(PAIR).await;
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[ON_HOST]).unwrap();
    let (run, job) = stage.begin().await;
    let victim = process_that_printed(worker.id(), "the victim runs");
    kill(victim, Signal::SIGSTOP).unwrap();
    let stopped = Instant::now();
    wait_for("the end of a silent process", || (!is_there(victim)).then_some(()));
    assert!(stopped.elapsed() < Duration::from_secs(60), "{:?}", stopped.elapsed());
    let neighbour = stage.job(&run, "neighbour").await;
    assert_eq!(neighbour["conclusion"], "success", "{neighbour:#}");
    let again = process_that_printed(worker.id(), "the victim runs");
    assert_ne!(again, victim);
    let victim = stage.job(&run, "victim").await;
    assert!(victim.to_string().contains("did not answer for 30 s"), "{victim:#}");
    stage.cancel(&job).await;
    let answers = stage.end(&run, &job, &[&coordinator, &worker]).await;
    assert_one_end(&answers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_end_does_not_wait_for_a_process_that_answers_nothing() {
    let stage = Stage::with(&lasting(100)).await;
    let _coordinator = stage.pool.coordinator().unwrap();
    let mut worker = stage.pool.worker(&[ON_HOST]).unwrap();
    stage.begin().await;
    let stopped = process_that_printed(worker.id(), "begun");
    kill(stopped, Signal::SIGSTOP).unwrap();
    worker.signal(Signal::SIGTERM).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    worker.signal(Signal::SIGTERM).unwrap();
    assert_eq!(worker.wait(Duration::from_secs(60)).unwrap(), 0, "{}", worker.text());
    assert!(!is_there(stopped));
    assert_eq!(scratch(&stage.worker_data()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_outlives_a_worker_that_was_killed() {
    let stage = Stage::with(&lasting(100)).await;
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[ON_HOST]).unwrap();
    let (run, job) = stage.begin().await;
    let running = process_that_printed(worker.id(), "begun");
    let all = job_processes(worker.id());
    assert!(all.contains(&running));
    worker.kill().unwrap();
    let killed = Instant::now();
    wait_for("the end of the processes of jobs", || (!all.iter().any(|process| is_there(*process))).then_some(()));
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    let again = stage.pool.worker(&[ON_HOST]).unwrap();
    wait_for("the folders of the next life alone", || {
        (scratch(&stage.worker_data()) == job_processes(again.id()).len()).then_some(())
    });
    stage.cancel(&job).await;
    let answers = stage.end(&run, &job, &[&coordinator, &again]).await;
    assert_one_end(&answers);
}

/// Bytes of memory that the group of a process uses, and the files of its usage and its limit.
fn memory_group(process: Pid) -> Option<(PathBuf, PathBuf)> {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let files = |kind: &str, controller: Option<&str>, usage: &str, limit: &str| {
        let mount = mounts.lines().find_map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            let named = controller.is_none_or(|name| words[3].split(',').any(|option| option == name));
            (words[2] == kind && named).then(|| words[1].to_owned())
        })?;
        let path = groups.lines().find_map(|line| {
            let parts: Vec<_> = line.splitn(3, ':').collect();
            (parts[1] == controller.unwrap_or("")).then(|| parts[2].to_owned())
        })?;
        let folder = PathBuf::from(format!("{mount}{path}"));
        folder.join(limit).is_file().then(|| (folder.join(usage), folder.join(limit)))
    };
    let found = files("cgroup", Some("memory"), "memory.usage_in_bytes", "memory.limit_in_bytes");
    let found = found.or_else(|| files("cgroup2", None, "memory.current", "memory.max"))?;
    found.0.to_string_lossy().contains("longshore-").then_some(found)
}

#[allow(clippy::print_stderr)]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_over_its_memory_is_a_reason_and_the_worker_goes_on() {
    let go = tempfile::NamedTempFile::new().unwrap();
    let path = go.path().to_string_lossy().into_owned();
    let steps =
        "      - run: |\n          echo begun\n          while [ -e GO ]; do sleep 0.1; done\n".replace("GO", &path);
    // Each output is held to the end of the job.
    let outputs: String = (0..40)
        .map(|number| {
            format!(
                "      - id: s{number}\n        run: echo \"big=$(head -c 1000000 /dev/zero | tr '\\0' x)\" >> \"$GITHUB_OUTPUT\"\n"
            )
        })
        .collect();
    let workflow = format!("on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n{steps}{outputs}");
    let stage = Stage::with(&workflow).await;
    let coordinator = stage.pool.coordinator().unwrap();
    let mut worker = stage.pool.worker(&[ON_HOST]).unwrap();
    let (run, job) = stage.begin().await;
    let process = process_that_printed(worker.id(), "begun");
    let Some((usage, limit)) = memory_group(process) else {
        assert!(worker.text().contains("rlimits alone"), "{}", worker.text());
        return eprintln!("skipped: no cgroup can be written here");
    };
    let used: u64 = fs::read_to_string(usage).unwrap().trim().parse().unwrap();
    fs::write(limit, (used + (2 << 20)).to_string()).unwrap();
    drop(go);
    wait_for("the end of a process over its memory", || (!is_there(process)).then_some(()));
    let reason = "it needed more memory than limits.process_memory allows";
    let end = Instant::now() + LIMIT;
    loop {
        let shown = stage.job(&run, "build").await;
        if shown.to_string().contains(reason) {
            break;
        }
        assert!(Instant::now() < end, "{shown:#}\n{}", worker.text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(worker.runs().unwrap());
    let answers = stage.end(&run, &job, &[&coordinator, &worker]).await;
    assert_one_end(&answers);
}
