//! One workflow that uses at once what GitHub's jobs are made of; all of it lies in its own repository.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use longshore_tests::harness::{
    engine,
    exec::{Exec, Outcome},
    git::Repository,
};

const WORKFLOW: &str = r#"
name: Whole
on: push
jobs:
  list:
    runs-on: ubuntu-latest
    outputs: {parts: '${{ steps.find.outputs.parts }}'}
    steps:
      - uses: actions/checkout@v4
      - id: find
        run: echo "parts=$(jq -Rnc '[inputs]' < parts.txt)" >> "$GITHUB_OUTPUT"
  build:
    needs: list
    strategy:
      matrix: {part: '${{ fromJSON(needs.list.outputs.parts) }}'}
    runs-on: ubuntu-latest
    services:
      web:
        image: longshore/ubuntu:dev
        entrypoint: node -e
        command: >-
          "require('http').createServer((_, answer) => answer.end('served\n')).listen(8080);
          setTimeout(() => require('fs').writeFileSync('/tmp/healthy', ''), 500)"
        options: --health-cmd "test -e /tmp/healthy" --health-interval=1s --health-retries 60
        ports: ['9000:8080']
    steps:
      - uses: actions/checkout@v4
      - id: outer
        uses: ./actions/outer
        with: {part: '${{ matrix.part }}'}
      - run: echo "> ${{ matrix.part }} $(curl -sS http://localhost:9000) before=${{ steps.outer.outputs.before }}"
  release:
    needs: build
    uses: ./.github/workflows/release.yml
    with: {version: '1.2'}
  tell:
    needs: release
    runs-on: ubuntu-latest
    steps:
      - run: echo "> ${{ needs.release.outputs.name }}"
"#;

const RELEASE: &str = r#"
on:
  workflow_call:
    inputs: {version: {type: string, required: true}}
    outputs: {name: {value: '${{ jobs.name.outputs.name }}'}}
jobs:
  name:
    runs-on: ubuntu-latest
    outputs: {name: '${{ steps.make.outputs.name }}'}
    steps:
      - id: make
        run: echo "name=hello-${{ inputs.version }}" >> "$GITHUB_OUTPUT"
"#;

const OUTER: &str = r"
inputs: {part: {required: true}}
outputs: {before: {value: '${{ steps.keep.outputs.before }}'}}
runs:
  using: composite
  steps:
    - id: keep
      uses: ./actions/keep
      with: {key: 'part-${{ inputs.part }}'}
";

const KEEP: &str = "inputs: {key: {required: true}}\nruns: {using: node20, main: main.js, post: post.js}\n";

/// Speaks the second protocol of caches, as GitHub's toolkit does.
const CACHE: &str = r"
exports.call = async (name, message) => {
  const url = `${process.env.ACTIONS_RESULTS_URL}twirp/github.actions.results.api.v1.CacheService/${name}`;
  const headers = {'content-type': 'application/json', authorization: `Bearer ${process.env.ACTIONS_RUNTIME_TOKEN}`};
  const answer = await fetch(url, {method: 'POST', headers, body: JSON.stringify(message)});
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${await answer.text()}`);
  return answer.json();
};
exports.version = 'a'.repeat(64);
";

const MAIN: &str = r"
const {call, version} = require('./cache.js');
const fs = require('fs');
(async () => {
  const key = process.env.INPUT_KEY;
  const found = await call('GetCacheEntryDownloadURL', {key, restore_keys: [], version});
  const before = found.ok ? await (await fetch(found.signed_download_url)).text() : 'nothing';
  fs.appendFileSync(process.env.GITHUB_OUTPUT, `before=${before}\n`);
  fs.appendFileSync(process.env.GITHUB_STATE, `hit=${found.ok}\n`);
})();
";

const POST: &str = r"
const {call, version} = require('./cache.js');
(async () => {
  if (process.env.STATE_hit === 'true') return console.log('> kept already');
  const key = process.env.INPUT_KEY;
  const made = await call('CreateCacheEntry', {key, version});
  const body = `kept ${key}`;
  const put = await fetch(made.signed_upload_url, {method: 'PUT', headers: {'x-ms-blob-type': 'BlockBlob'}, body});
  if (!put.ok) throw new Error(`upload: ${put.status}`);
  await call('FinalizeCacheEntryUpload', {key, version, size_bytes: String(body.length)});
  console.log(`> saved ${key}`);
})();
";

async fn run(folder: &Path) -> Outcome {
    let exec = Exec::of(&folder.join("checkout"), &folder.join("cache")).unwrap();
    exec.with(&["-W", ".github/workflows/ci.yml"]).run().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_composite_action_a_post_step_with_a_cache_a_dynamic_matrix_a_service_and_a_called_workflow_work_together() {
    if !engine::available(
        "a_composite_action_a_post_step_with_a_cache_a_dynamic_matrix_a_service_and_a_called_workflow_work_together",
    ) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let checkout = Repository::create(&folder.path().join("checkout")).unwrap();
    let files = [
        (".github/workflows/ci.yml", WORKFLOW),
        (".github/workflows/release.yml", RELEASE),
        ("parts.txt", "one\ntwo\n"),
        ("actions/outer/action.yml", OUTER),
        ("actions/keep/action.yml", KEEP),
        ("actions/keep/cache.js", CACHE),
        ("actions/keep/main.js", MAIN),
        ("actions/keep/post.js", POST),
    ];
    checkout.commit("first", &files).unwrap();
    let first = run(folder.path()).await;
    assert_eq!(first["conclusion"], "success", "{first}");
    let lines =
        ["hello-1.2", "one served before=nothing", "saved part-one", "saved part-two", "two served before=nothing"];
    assert_eq!(first.all_marked(), lines, "{first}");
    let names: Vec<_> = first["jobs"].as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["list", "build (one)", "build (two)", "release / name", "tell"]);

    let second = run(folder.path()).await;
    let lines = [
        "hello-1.2",
        "kept already",
        "kept already",
        "one served before=kept part-one",
        "two served before=kept part-two",
    ];
    assert_eq!(second.all_marked(), lines, "{second}");
}
