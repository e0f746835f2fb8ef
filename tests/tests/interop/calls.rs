//! A workflow that calls another one at its own commit.

use longshore_tests::harness::client::tag;

use super::{PATH, Stage, needs_engine};

const TOP: &str = "
on: [push, workflow_dispatch]
jobs:
  make:
    uses: ./.github/workflows/make.yml
    with: {count: 3}
    secrets: {key: '${{ secrets.TOKEN }}'}
  tell:
    needs: make
    runs-on: ubuntu-latest
    steps:
      - run: echo \"made ${{ needs.make.outputs.made }}, ${{ needs.make.result }}\"
";

const CALLED: &str = "
on:
  workflow_call:
    inputs: {count: {type: number, required: true}}
    secrets: {key: {required: true}}
    outputs: {made: {value: '${{ jobs.build.outputs.made }}'}}
jobs:
  build:
    runs-on: ubuntu-latest
    outputs: {made: '${{ steps.it.outputs.made }}'}
    steps:
      - id: it
        env: {KEY: '${{ secrets.key }}', OTHER: '${{ secrets.TOKEN }}'}
        run: |
          echo \"a key of ${#KEY}, another of ${#OTHER}\"
          echo \"made=${{ inputs.count }} things\" >> $GITHUB_OUTPUT
";

#[tokio::test(flavor = "multi_thread")]
async fn a_pressed_workflow_calls_another_with_its_inputs_secrets_and_outputs() {
    needs_engine!();
    let stage = Stage::with_files(&[(PATH, TOP), (".github/workflows/make.yml", CALLED)], &[]).await;
    let mut press = stage.press();
    press.secrets.push(("TOKEN".into(), "quiet-please".into()));
    let run = stage.run(press).await;
    run.assert_normal_end("completed");
    let log = run.log().await;
    for line in ["a key of 12, another of 0", "made 3 things, success"] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert!(!log.contains("quiet-please"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_file_that_is_not_there_is_refused_with_its_place() {
    let stage = Stage::with(TOP).await;
    let run = stage.run(stage.press()).await;
    run.assert_well_formed();
    assert_eq!(tag(run.result(), "success"), "false");
    let error = run.error();
    assert!(error.contains("ci.yml:5:11") && error.contains("there is no such file at commit"), "{error}");
}
