//! A pool of one's own in one command: `longshore dev` with a repository of this machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use longshore_tests::harness::{git::Repository, pool::Dev, process::binary};

/// Long enough for a container on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const PATH: &str = ".github/workflows/ci.yml";

fn workflow(says: &str) -> String {
    format!("on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo {says}\n")
}

#[test]
fn what_dev_prints_is_all_that_is_needed_to_run_a_repository_of_this_machine_as_it_is_committed_to() {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::create(&folder.path().join("my project")).unwrap();
    repository.commit("first", &[(PATH, &workflow("one"))]).unwrap();
    let data = repository.path.join(".longshore");
    let environments = "environments=[{name = \"production\", repository = \"*\"}]";
    let mut dev =
        Dev::start(&data, &["--repository", repository.path.to_str().unwrap(), "--set", environments]).unwrap();

    dev.process.line(LIMIT, |line| line.contains("longshore submit -W .github/workflows/ci.yml")).unwrap();
    let text = dev.process.text();
    let exports: Vec<&str> = text.lines().filter(|line| line.trim().starts_with("export ")).collect();
    let exports = exports.join("\n");
    let longshore = |arguments: &str| -> Output {
        let program = binary("longshore").unwrap();
        let script = format!("{exports}\nexec timeout {} '{}' {arguments}", LIMIT.as_secs(), program.display());
        Command::new("bash").args(["-c", &script]).current_dir(&repository.path).output().unwrap()
    };
    let submitted = longshore(&format!("submit -W {PATH}"));
    let said = String::from_utf8_lossy(&submitted.stdout).into_owned();
    assert!(submitted.status.success(), "{said}{}", String::from_utf8_lossy(&submitted.stderr));
    assert!(text.contains(&format!("dev: dashboard: {}", dev.http.trim_end_matches('/'))), "{text}");
    let environment = String::from_utf8(longshore("dev --print-env").stdout).unwrap();
    let lines: Vec<&str> = environment.lines().collect();
    assert_eq!(lines, exports.lines().map(str::trim).collect::<Vec<_>>(), "what eval takes is what is printed");
    assert!(said.contains("  run 1: http://"), "{said}");
    let short = |commit: &str| commit.chars().take(7).collect::<String>();
    let first = format!(" #1 · main · {} first\n", short(&repository.git(&["rev-parse", "HEAD"]).unwrap()));
    assert!(said.lines().next().is_some_and(|line| format!("{line}\n").ends_with(&first)), "{said}");
    assert!(said.lines().last().is_some_and(|line| line.starts_with("✓ success after ")), "{said}");
    let hex = |word: &str| word.len() > 30 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(!said.split_whitespace().any(hex), "{said}");
    // Keys are in the data folder, which may be in the work tree.
    assert_eq!(repository.git(&["status", "--porcelain"]).unwrap(), "");

    // What was committed a moment ago is what runs, each time.
    for number in 2..5 {
        let says = number.to_string();
        let commit = repository.commit(&format!("commit {says}"), &[(PATH, &workflow(&says))]).unwrap();
        let again = longshore(&format!("submit -W {PATH}"));
        assert!(again.status.success(), "{again:?}\n{}", dev.process.text());
        assert_eq!(String::from_utf8_lossy(&again.stderr), "", "it is pushed, and nothing is left out");
        let said = String::from_utf8_lossy(&again.stdout).into_owned();
        let title = format!(" · main · {} commit {says}", short(&commit));
        assert!(said.lines().next().is_some_and(|line| line.ends_with(&title)), "{title:?}: {said}");
        // The same workflow may have been started by the push.
        let run = said.lines().find_map(|line| line.strip_prefix("  run ")?.split(':').next()).unwrap();
        let run: serde_json::Value = serde_json::from_slice(&longshore(&format!("show {run} --json")).stdout).unwrap();
        assert_eq!((&run["commit"], &run["trigger"]), (&commit.as_str().into(), &"manual".into()), "{run:#}");
    }

    std::fs::write(repository.path.join("new"), "x").unwrap();
    let began = Instant::now();
    for (arguments, code, expected) in [
        ("--detach", 0, "warning: 1 uncommitted file is not part of the run"),
        (
            "--branch nope",
            2,
            "--branch nope: the repository has no such branch or tag; it has main: push it, or name another",
        ),
        ("--commit deadbeef", 2, "--commit deadbeef: this checkout has no such commit"),
    ] {
        let output = longshore(&format!("submit -W {PATH} {arguments}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    assert!(began.elapsed() < Duration::from_secs(60), "nobody waits for what is not there");
    let runs: serde_json::Value = serde_json::from_slice(&longshore("runs --json").stdout).unwrap();
    let is_refused = |run: &serde_json::Value| run["branch"] == "nope" || run["commit"] == "deadbeef";
    assert!(!runs.as_array().unwrap().iter().any(is_refused), "what is refused becomes no run: {runs:#}");
}

#[test]
fn a_repository_that_cannot_be_run_is_named_before_the_engine_is_asked_for_anything() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    Repository::create(&empty).unwrap();
    let plain = folder.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    for (directory, expected) in [
        (empty, "there is no commit yet: commit, then try again"),
        (plain, "name a git repository"),
        (folder.path().join("none"), "there is no such folder"),
    ] {
        let data = folder.path().join("data");
        let output = Command::new("timeout")
            .args(["60", binary("longshore").unwrap().to_str().unwrap(), "dev", "--data", data.to_str().unwrap()])
            .args(["--repository", directory.to_str().unwrap()])
            .env("DOCKER_HOST", "unix:///nowhere/docker.sock")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected) && said.contains(directory.to_str().unwrap()), "{said}");
    }
}
