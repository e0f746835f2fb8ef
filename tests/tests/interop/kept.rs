//! Caches and artifacts, as jobs of a pool have them.

use std::path::Path;

use longshore_tests::harness::toolkit;

use super::{PATH, Stage, needs_engine};

#[tokio::test(flavor = "multi_thread")]
async fn githubs_own_packages_reach_the_coordinator_through_the_jobs_tunnel() {
    needs_engine!();
    let program = toolkit::program(Path::new(env!("CARGO_TARGET_TMPDIR"))).await.unwrap();
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
}
