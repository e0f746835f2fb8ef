//! Called workflows, of the checkout and of another repository, from a git server of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use longshore_tests::harness::{
    engine,
    exec::{Exec, Outcome},
    git::{Repository, Server},
};
use serde_json::json;

const TOP: &str = r#"
run-name: Ship ${{ github.ref_name }}
on: push
jobs:
  make:
    strategy:
      matrix:
        what: [ship]
    uses: ./.github/workflows/make.yml
    with:
      what: ${{ matrix.what }}
      count: 2
    secrets:
      key: ${{ secrets.DEPLOY }}
  elsewhere:
    needs: make
    uses: tools/flows/.github/workflows/outer.yml@v1
    with:
      text: ${{ needs.make.outputs.made }}
  tell:
    needs: [make, elsewhere]
    runs-on: ubuntu-latest
    steps:
      - run: echo "made=${{ needs.make.outputs.made }} said=${{ needs.elsewhere.outputs.said }} ${{ needs.elsewhere.result }}"
"#;

const MAKE: &str = r#"
on:
  workflow_call:
    inputs:
      what: {type: string, required: true}
      count: {type: number, default: 1}
      loud: {type: boolean}
    secrets:
      key: {required: true}
    outputs:
      made: {value: "${{ jobs.build.outputs.made }}"}
env:
  HERE: called
jobs:
  build:
    runs-on: ubuntu-latest
    outputs:
      made: ${{ steps.it.outputs.made }}
      key: ${{ steps.it.outputs.key }}
    steps:
      - id: it
        env: {KEY: "${{ secrets.key }}"}
        run: |
          echo "key of ${#KEY} letters, other '${{ secrets.OTHER }}', $HERE, ${{ inputs.loud }}, ${{ github.event_name }}"
          echo "made=${{ inputs.count }} ${{ inputs.what }}s" >> $GITHUB_OUTPUT
          echo "key=$KEY" >> $GITHUB_OUTPUT
  check:
    needs: build
    runs-on: ubuntu-latest
    steps:
      - run: echo "leaked '${{ needs.build.outputs.key }}'"
"#;

const OUTER: &str = r#"
on:
  workflow_call:
    inputs: {text: {type: string}}
    outputs: {said: {value: "${{ jobs.inner.outputs.said }}"}}
jobs:
  inner:
    name: Inside
    uses: ./.github/workflows/inner.yml
    with: {text: "[${{ inputs.text }}]"}
"#;

const INNER: &str = r#"
on:
  workflow_call:
    inputs: {text: {type: string}}
    outputs: {said: {value: "${{ jobs.say.outputs.said }}"}}
jobs:
  say:
    runs-on: ubuntu-latest
    outputs: {said: "${{ steps.s.outputs.said }}"}
    steps:
      - id: s
        run: |
          echo "said=<${{ inputs.text }}>" >> $GITHUB_OUTPUT
          echo "I am ${{ job.workflow_ref }} of ${{ job.workflow_repository }}, ${{ job.workflow_sha }}"
"#;

struct World {
    folder: tempfile::TempDir,
    server: Server,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("srv")).await.unwrap();
        Self { folder, server }
    }

    fn repository(&self, name: &str, files: &[(&str, &str)]) -> (Repository, String) {
        let repository = Repository::create(&self.folder.path().join("work").join(name)).unwrap();
        let commit = repository.commit("first", files).unwrap();
        (repository, commit)
    }

    async fn exec(&self, checkout: &Path) -> Outcome {
        let exec = Exec::of(checkout, &self.folder.path().join("cache")).unwrap();
        let exec = exec.with(&["-W", ".github/workflows/ci.yml", "--action-base", &self.server.url]);
        exec.secrets(&[("DEPLOY", "hush-hush-1"), ("OTHER", "hush-hush-22")]).run().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_call_workflows_of_their_own_and_of_other_repositories() {
    if !engine::available("workflows_call_workflows_of_their_own_and_of_other_repositories") {
        return;
    }
    let world = World::new().await;
    let flows = [(".github/workflows/outer.yml", OUTER), (".github/workflows/inner.yml", INNER)];
    let (tools, commit) = world.repository("tools/flows", &flows);
    tools.git(&["tag", "v1"]).unwrap();
    tools.publish(&world.server.folder, "tools/flows").unwrap();
    let (own, _) = world.repository("own", &[(".github/workflows/ci.yml", TOP), (".github/workflows/make.yml", MAKE)]);
    let result = world.exec(&own.path).await;

    assert_eq!(result["conclusion"], "success", "{result}");
    assert_eq!(result["title"], "Ship main");
    assert_eq!(result["workflows"], json!({"tools/flows@v1": commit}));
    let names: Vec<&str> = result["jobs"].as_array().unwrap().iter().filter_map(|job| job["name"].as_str()).collect();
    assert_eq!(names, ["make (ship) / build", "make (ship) / check", "elsewhere / Inside / say", "tell"]);
    assert_eq!(result.job("elsewhere/inner/say")["id"], "elsewhere/inner/say");
    // What its caller hands on, and no more, in its own file's environment, of the run's event.
    assert!(result.log("make/0/build").contains("key of 11 letters, other '', called, false, push"), "{result}");
    assert!(result.log("make/0/check").contains("leaked ''"));
    assert!(result.log("make/0/build").contains("job output key is left out"));
    assert!(result.log("tell").contains("made=2 ships said=<[2 ships]> success"));
    let identity = format!("I am tools/flows/.github/workflows/inner.yml@v1 of tools/flows, {commit}");
    assert!(result.log("elsewhere/inner/say").contains(&identity), "{result}");
    assert!(!result.to_string().contains("hush-hush"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_does_not_fit_is_refused_with_its_place_before_anything_runs() {
    let world = World::new().await;
    let top = "on: push\njobs:\n  a:\n    uses: ./.github/workflows/make.yml\n    with: {what: x, size: 3}\n";
    let (own, _) = world.repository("own", &[(".github/workflows/ci.yml", top), (".github/workflows/make.yml", MAKE)]);
    let result = world.exec(&own.path).await;
    assert_eq!(result["conclusion"], "invalid");
    let message = result["message"].as_str().unwrap();
    for expected in ["declares no input `size`", "ci.yml:5:21", "needs the secret `key`"] {
        assert!(message.contains(expected), "{expected}: {message}");
    }
    let (gone, _) = world.repository(
        "gone",
        &[(".github/workflows/ci.yml", "on: push\njobs: {a: {uses: tools/none/.github/workflows/x.yml@v1}}")],
    );
    let message = world.exec(&gone.path).await["message"].as_str().unwrap().to_owned();
    assert!(message.contains("there is no repository tools/none"), "{message}");
}
