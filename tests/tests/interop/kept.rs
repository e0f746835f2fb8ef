//! Caches and artifacts, as jobs of a pool have them.

use std::path::Path;

use longshore_tests::harness::toolkit;
use serde_json::Value;

use super::{PATH, Run, Stage, needs_engine};

#[tokio::test(flavor = "multi_thread")]
async fn githubs_own_packages_reach_the_coordinator_through_the_jobs_tunnel() {
    needs_engine!();
    let program = toolkit::program(Path::new(env!("CARGO_TARGET_TMPDIR")), "kept").await.unwrap();
    let workflow = "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n      - uses: ./act\n";
    let manifest = "runs: {using: node20, main: main.cjs}";
    let files = [(PATH, workflow), ("act/action.yml", manifest), ("act/main.cjs", program.as_str())];
    let stage = Stage::with_files(&files, &[]).await;
    let run = stage.run(stage.press()).await;
    let log = run.log().await;
    assert_eq!(run.answers.statuses(), ["queued", "running", "completed"], "{log}");
    run.assert_normal_end("completed");
    for said in toolkit::SAID {
        assert!(log.contains(&format!("> {said}")), "{said}: {log}");
    }
    assert!(!log.contains("eyJ"), "a token stands in the log: {log}");

    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("new/out");
    let to = into.to_str().unwrap();
    let (code, listed) = stage.artifacts(&run, &["--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((code, listed[0]["name"].as_str(), listed.as_array().unwrap().len()), (0, Some("more"), 1), "{listed}");
    let (code, table) = stage.artifacts(&run, &[]).await;
    assert!(code == 0 && table.lines().nth(1).is_some_and(|line| line.starts_with("more ")), "{table}");
    for (asked, code, said) in [
        (vec!["report", "more", "--into", to], 2, "no artifact report: run"),
        (vec!["more", "--into", to], 0, "more is in"),
        (vec!["more", "--into", to], 2, "is there already: name another folder with --into"),
        (vec!["more", "--into", to, "--force"], 0, "more is in"),
        (vec!["--all", "--into", to], 0, "more is in"),
        (vec!["--into", to], 2, "NAME"),
    ] {
        let (ended, text) = stage.artifacts(&run, &asked).await;
        assert!(ended == code && text.contains(said), "{asked:?}: {ended} {text}");
    }
    let files = [("a b ü.txt", "more"), ("empty.txt", ""), ("more/a b ü.txt", "more"), ("more/empty.txt", "")];
    for (path, text) in files {
        assert_eq!(std::fs::read_to_string(into.join(path)).unwrap(), text, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_20_no_run_has_artifacts_of_another_and_none_is_started_by_anothers_end() {
    needs_engine!();
    let steps = "- uses: actions/download-artifact@v4\n        with: {name: x, run-id: 7, github-token: abc}";
    let takes = format!("on: push\njobs:\n  take:\n    runs-on: ubuntu-latest\n    steps:\n      {steps}\n");
    let chained = "on: {workflow_run: {workflows: [CI], types: [completed]}}\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps: [{run: echo chained}]\n";
    let stage = Stage::with_files(&[(PATH, &takes), (".github/workflows/chained.yml", chained)], &[]).await;
    let run = stage.run(stage.press()).await;
    run.assert_normal_end("failed");
    let log = run.log().await;
    assert!(log.contains("artifacts of other runs cannot be had here"), "{log}");
    // Its end was heard: a chain would have begun by now.
    stage.run(stage.press()).await.assert_normal_end("failed");
    let url = format!("{}/api/runs", stage.dev.http.trim_end_matches('/'));
    let runs: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 2, "{runs:#}");
}

impl Stage {
    /// `longshore artifacts` of a run: its code, and what it prints.
    async fn artifacts(&self, run: &Run, more: &[&str]) -> (i32, String) {
        let (id, server) = (run.run.id.to_hex(), self.dev.http.trim_end_matches('/'));
        let arguments = [&["artifacts", id.as_str(), "--server", server], more].concat();
        let output = self.longshore(&self.world.owner, &arguments, None).await;
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }
}
