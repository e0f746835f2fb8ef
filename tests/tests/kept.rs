//! Caches and artifacts, as jobs of `longshore exec` have them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use longshore_tests::harness::{
    engine,
    exec::{Exec, Outcome},
    git::Repository,
    toolkit,
};

/// Runs a workflow of these files.
async fn exec(folder: &Path, workflow: &str, files: &[(&str, &str)]) -> Outcome {
    let checkout = Repository::create(&folder.join("checkout")).unwrap();
    let mut all = vec![(".github/workflows/ci.yml", workflow)];
    all.extend(files);
    checkout.commit("first", &all).unwrap();
    again(folder).await
}

/// Runs it once more.
async fn again(folder: &Path) -> Outcome {
    Exec::of(&folder.join("checkout"), &folder.join("cache")).unwrap().run().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn githubs_own_packages_for_caches_and_artifacts_work_unpatched() {
    if !engine::available("githubs_own_packages_for_caches_and_artifacts_work_unpatched") {
        return;
    }
    let program = toolkit::program(Path::new(env!("CARGO_TARGET_TMPDIR")), "kept").await.unwrap();
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
    assert_eq!(result["conclusion"], "success", "{result}");
    let said = result.marked("test");
    assert_eq!(said, toolkit::SAID.iter().copied().chain(["a step of run is told nothing"]).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_actions_keep_caches_between_runs_and_artifacts_between_jobs() {
    if !engine::available("the_built_in_actions_keep_caches_between_runs_and_artifacts_between_jobs") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let workflow = r#"on: push
jobs:
  one:
    runs-on: ubuntu-latest
    steps:
      - id: cache
        uses: actions/cache@v4
        with:
          path: |
            deps
            ~/.tool
          key: deps-${{ hashFiles('lock') }}
          restore-keys: deps-
      - run: |
          echo "> cache-hit=${{ steps.cache.outputs.cache-hit }}" $(cat deps/link ~/.tool/b 2>/dev/null)
          mkdir -p deps ~/.tool out/sub; echo A > deps/a; echo B > ~/.tool/b; ln -sf a deps/link
          echo report > out/r.txt; echo deep > out/sub/d.txt; echo no > out/.hidden; mkfifo out/pipe
          ln -s /etc/hostname out/link; ln -s /nowhere out/broken; ln -s / out/all
      - {id: up, uses: actions/upload-artifact@v4, with: {name: report, path: out}}
      - run: test "${{ steps.up.outputs.artifact-digest }}" -a "${{ steps.up.outputs.artifact-id }}"
      - {uses: actions/upload-artifact@v4, with: {name: none, path: 'nothing/**'}}
      - {uses: actions/upload-artifact@v4, with: {name: single, path: out/r.txt}}
      - {uses: actions/upload-artifact@v4, with: {name: single, path: out/sub/d.txt, overwrite: true}}
      - {id: twice, uses: actions/upload-artifact@v4, continue-on-error: true, with: {name: single, path: out/r.txt}}
      - run: echo "> twice=${{ steps.twice.outcome }}"
      - {id: bad, uses: actions/upload-artifact@v4, continue-on-error: true, with: {name: ../up, path: out/r.txt}}
      - run: echo "> bad=${{ steps.bad.outcome }}"
  two:
    needs: one
    runs-on: ubuntu-latest
    steps:
      - {id: down, uses: actions/download-artifact@v4, with: {name: report, path: got}}
      - run: echo "> $(cd got; find . -type f -o -type l | sort | xargs) ${{ steps.down.outputs.download-path }}"
      - {uses: actions/download-artifact@v4, with: {path: all, pattern: 's*'}}
      - run: echo "> $(cd all; find . -type f | xargs) $(cat all/single/d.txt)"
      - id: lookup
        uses: actions/cache/restore@v4
        with: {path: deps, key: deps-, lookup-only: true}
      - run: echo "> other paths ${{ steps.lookup.outputs.cache-hit }}"
      - {uses: actions/cache/restore@v4, with: {path: deps, key: none, fail-on-cache-miss: true}}
"#;
    let first = exec(folder.path(), workflow, &[("lock", "1")]).await;
    assert_eq!(first.marked("one"), ["cache-hit=", "twice=failure", "bad=failure"], "{first}");
    assert_eq!(
        first.marked("two"),
        ["./link ./r.txt ./sub/d.txt /workspace/got", "./single/d.txt deep", "other paths "],
        "links are read as files, pipes and hidden files left out: {first}"
    );
    let log = first.log("two");
    assert!(log.contains("fail-on-cache-miss is set"), "{log}");
    let second = again(folder.path()).await;
    assert_eq!(second.marked("one")[0], "cache-hit=true A B", "{second}");
    // Another lock file: the newest of what fits is restored, and the new one is saved.
    std::fs::write(folder.path().join("checkout/lock"), "2").unwrap();
    let checkout = folder.path().join("checkout");
    let git = "git -c user.name=n -c user.email=e@example.org commit -qam two";
    assert!(std::process::Command::new("sh").args(["-c", git]).current_dir(checkout).status().unwrap().success());
    let third = again(folder.path()).await;
    assert_eq!(third.marked("one")[0], "cache-hit=false A B", "{third}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_jobs_uploaded_is_unpacked_into_a_folder_whatever_became_of_the_run() {
    if !engine::available("what_jobs_uploaded_is_unpacked_into_a_folder_whatever_became_of_the_run") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let workflow = "on: push
jobs:
  one:
    runs-on: ubuntu-latest
    steps:
      - run: mkdir -p out/sub; echo report > out/r.txt; echo deep > out/sub/d.txt
      - {uses: actions/upload-artifact@v4, with: {name: report, path: out}}
  two:
    runs-on: ubuntu-latest
    steps:
      - run: echo alone > single.txt
      - {uses: actions/upload-artifact@v4, with: {name: single, path: single.txt}}
      - run: exit 1
";
    let checkout = Repository::create(&folder.path().join("checkout")).unwrap();
    checkout.commit("first", &[(".github/workflows/ci.yml", workflow)]).unwrap();
    let out = folder.path().join("new/out");
    let exec = Exec::of(&checkout.path, &folder.path().join("cache")).unwrap();
    let result = exec.with(&["--artifacts", out.to_str().unwrap()]).run().await.unwrap();
    assert_eq!(result["conclusion"], "failure", "{result}");
    let files = [("report/r.txt", "report\n"), ("report/sub/d.txt", "deep\n"), ("single/single.txt", "alone\n")];
    for (path, text) in files {
        let found = std::fs::read_to_string(out.join(path));
        assert!(found.as_ref().is_ok_and(|found| found == text), "{path}: {found:?} {result}");
    }
}
