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
        Command::new("bash").args(["-c", &script]).output().unwrap()
    };
    let submitted = longshore(&format!("submit -W {PATH}"));
    let said = String::from_utf8_lossy(&submitted.stdout).into_owned();
    assert!(submitted.status.success(), "{said}{}", String::from_utf8_lossy(&submitted.stderr));
    assert!(said.contains("run 1: http://"), "{said}");
    // Keys are in the data folder, which may be in the work tree.
    assert_eq!(repository.git(&["status", "--porcelain"]).unwrap(), "");

    let second = repository.commit("second", &[(PATH, &workflow("two"))]).unwrap();
    let until = Instant::now() + LIMIT;
    loop {
        let again = longshore(&format!("submit -W {PATH}"));
        assert!(again.status.success(), "{again:?}\n{}", dev.process.text());
        let runs: serde_json::Value = serde_json::from_slice(&longshore("runs --json").stdout).unwrap();
        let newest = &runs[0];
        if newest["commit"] == second.as_str() {
            break;
        }
        assert!(Instant::now() < until, "the second commit was never built: {newest}");
    }
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
