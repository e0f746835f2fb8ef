//! Caches and artifacts, as jobs of `longshore exec` have them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use longshore_tests::harness::{engine, git::Repository, process::binary, toolkit};
use serde_json::Value;

/// Runs a workflow of these files; gives what `exec --json` says of the run.
async fn exec(folder: &Path, workflow: &str, files: &[(&str, &str)]) -> Value {
    let checkout = Repository::create(&folder.join("checkout")).unwrap();
    let mut all = vec![(".github/workflows/ci.yml", workflow)];
    all.extend(files);
    checkout.commit("first", &all).unwrap();
    again(folder).await
}

/// Runs it once more.
async fn again(folder: &Path) -> Value {
    let mut command = tokio::process::Command::new("timeout");
    command.arg("300").arg(binary("longshore").unwrap()).arg("exec").arg(folder.join("checkout")).arg("--json");
    command.args(["--image", &format!("ubuntu-latest={}", engine::IMAGE)]);
    let output = command.arg("--cache").arg(folder.join("cache")).output().await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    })
}

/// Lines of the log that begin with a mark which the steps of a test print.
fn marked(result: &Value, job: usize) -> Vec<String> {
    let log = result["jobs"][job]["log"].as_str().unwrap_or_default();
    log.lines().filter_map(|line| line.strip_prefix("> ")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn githubs_own_packages_for_caches_and_artifacts_work_unpatched() {
    if !engine::available("githubs_own_packages_for_caches_and_artifacts_work_unpatched") {
        return;
    }
    let program = toolkit::program(Path::new(env!("CARGO_TARGET_TMPDIR"))).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let workflow = "on: push
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: ./act
      - run: env | grep '^ACTIONS_' || echo '> a step of run is told nothing'
";
    let manifest = "runs: {using: node20, main: main.cjs}";
    let result = exec(folder.path(), workflow, &[("act/action.yml", manifest), ("act/main.cjs", &program)]).await;
    assert_eq!(result["conclusion"], "success", "{result:#}");
    let said = marked(&result, 0);
    assert_eq!(said, toolkit::SAID.iter().copied().chain(["a step of run is told nothing"]).collect::<Vec<_>>());
}
