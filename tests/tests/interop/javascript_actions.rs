//! JavaScript actions made of GitHub's own packages (`tests/toolkit`, exact versions in its lock file): `@actions/core`,
//! `github` with octokit, `exec`, `glob`, `io`, `tool-cache`, `cache` and `artifact`. A git server has them, a pool runs them.

use std::path::Path;

use longshore_tests::harness::{
    git::{Repository, Server},
    toolkit,
};
use serde_json::Value;

use super::{PATH, Stage, needs_engine};

const WORKFLOW: &str = r#"
name: CI
on: push
jobs:
  commits:
    runs-on: ubuntu-latest
    steps:
      - {id: it, uses: acme/actions/commits@v1}
      - run: echo "> output ${{ steps.it.outputs.commits }}"
  history:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - {id: it, uses: $/actions/history}
      - run: echo "> output ${{ steps.it.outputs.tag }}"
  tools:
    runs-on: ubuntu-latest
    permissions: {id-token: write}
    steps:
      - id: it
        uses: acme/actions/tools@v1
        with: {name: a name, loud: 'true', lines: "one\ntwo"}
      - env: {TEXT: '${{ steps.it.outputs.text }}', OBJECT: '${{ fromJSON(steps.it.outputs.object).list[1] }}'}
        run: |
          hello 'a step' | sed 's/^/> /'
          echo "> outputs $(echo "$TEXT" | wc -l) $OBJECT $(echo "$FROM_ACTION" | tail -1)"
          echo "> hash ${{ steps.it.outputs.hash == hashFiles('made/**/*.txt') }}"
  kept:
    runs-on: ubuntu-latest
    steps:
      - {uses: acme/actions/all@v1}
"#;

/// What each job says, line by line.
const SAID: [(&str, &[&str]); 3] = [
    (
        "commits",
        &[
            "repository true main",
            "commits fourth+third | second+first",
            "counted 4",
            "compared ahead 3 3 second+third+fourth",
            "files notes/a.txt modified +three, notes/b.txt added +new",
            "compared by pages second+third+fourth",
            "as a diff true true",
            "tags v1.0,v1.1",
            "tag tag v1.0 The first release first true",
            "tree .github:tree,.github/workflows:tree,.github/workflows/ci.yml:blob,actions:tree,\
             actions/history:tree,actions/history/action.yml:blob,dist:tree,dist/history.js:blob,notes:tree,\
             notes/a.txt:blob false",
            "content \"one\\ntwo\\nthree\\n\" true",
            "id of main true",
            "jobs 4 true in_progress",
            "missing 404 Not Found",
            "not here 501 true",
            "nor 501",
            "check in_progress completed failure 1",
            "output 3",
        ],
    ),
    (
        "history",
        &[
            "begins with 1 ",
            "deepened 2",
            "whole 4 v1.0,v1.1",
            "described v1.1",
            "heard 4",
            "push true true",
            "output v1.1",
        ],
    ),
    (
        "tools",
        &[
            "before a name",
            "inputs a name true one+two",
            "state before false true",
            "files made/b.txt,made/deep/a.txt false true",
            "which git ",
            "kept true 1.2.3 true",
            "says hello from a tool",
            "the secret is ***",
            "identity audience",
            "hello from a step",
            "outputs 2 2 second",
            "hash true",
            "after before in main 2",
        ],
    ),
];

async fn program(name: &str) -> String {
    toolkit::program(Path::new(env!("CARGO_TARGET_TMPDIR")), name).await.unwrap()
}

fn manifest(more: &str) -> String {
    format!("name: an action\ndescription: of GitHub's own packages\n{more}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_made_of_githubs_own_packages_run_to_their_end_in_a_pool() {
    needs_engine!();
    let (commits, history, tools, kept) =
        (program("commits").await, program("history").await, program("tools").await, program("kept").await);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("git")).await.unwrap();
    let actions = Repository::create(&folder.path().join("actions")).unwrap();
    let token = "inputs: {token: {description: reads the API, default: '${{ github.token }}'}}\n";
    let of_commits = manifest(&format!("{token}runs: {{using: node24, main: ../dist/commits.js}}"));
    let of_tools = manifest(
        "inputs: {name: {description: n}, loud: {description: l}, lines: {description: l}}\n\
         runs: {using: node20, pre: ../dist/before.js, main: ../dist/tools.js, post: ../dist/after.js}",
    );
    let of_kept = manifest("runs: {using: node20, main: ../dist/kept.js}");
    let files = [
        ("commits/action.yml", of_commits.as_str()),
        ("tools/action.yml", &of_tools),
        ("kept/action.yml", &of_kept),
        ("all/action.yml", &manifest("runs: {using: composite, steps: [{uses: $/kept}]}")),
        ("dist/commits.js", &commits),
        ("dist/before.js", &tools),
        ("dist/tools.js", &tools),
        ("dist/after.js", &tools),
        ("dist/kept.js", &kept),
    ];
    actions.commit("first", &files).unwrap();
    actions.git(&["tag", "v1"]).unwrap();
    actions.publish(&server.folder, "acme/actions").unwrap();

    let own = [
        (PATH, WORKFLOW),
        ("actions/history/action.yml", &manifest("runs: {using: node20, main: ../../dist/history.js}")),
        ("dist/history.js", &history),
        ("notes/a.txt", "one\n"),
    ];
    let bases = format!("actions.bases=[\"{}\"]", server.url);
    let stage = Stage::with_files(&own, &["--set", &bases]).await;
    let repository = &stage.world.repository;
    repository.git(&["tag", "-a", "-m", "The first release", "v1.0"]).unwrap();
    repository.commit("second", &[("notes/a.txt", "one\ntwo\n")]).unwrap();
    repository.commit("third", &[("notes/b.txt", "new\n")]).unwrap();
    repository.git(&["tag", "-a", "-m", "The second", "v1.1"]).unwrap();
    let main = repository.commit("fourth", &[("notes/a.txt", "one\ntwo\nthree\n")]).unwrap();
    repository.publish(&stage.world.git.folder, "repo.git").unwrap();
    let [v1_0, v1_1] = ["v1.0", "v1.1"].map(|tag| repository.git(&["rev-parse", tag]).unwrap());
    let refs = [("refs/heads/main", main.as_str()), ("refs/tags/v1.0", &v1_0), ("refs/tags/v1.1", &v1_1)];
    stage.world.state(&refs).await.unwrap();
    let mut press = stage.press();
    press.commit = main;
    let run = stage.run(press).await;
    let log = run.log().await;
    assert_eq!(run.answers.statuses(), ["queued", "running", "completed"], "{log}");
    for (job, lines) in SAID {
        let mark = format!("/{job}] | ");
        let said = log.lines().filter_map(|line| line.split_once(&mark));
        let said: Vec<&str> = said.filter_map(|(_, said)| said.strip_prefix("> ")).collect();
        assert_eq!(said, lines, "{job}: {log}");
    }
    for said in toolkit::SAID {
        assert!(log.contains(&format!("/kept] | > {said}")), "{said}: {log}");
    }
    assert!(!log.contains("made-42"), "a value that an action made secret stands in the log: {log}");

    let id = run.run.id.to_hex();
    let url = format!("{}/api/runs/{id}", stage.dev.http.trim_end_matches('/'));
    let found: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
    let jobs = found["jobs"].as_array().unwrap_or_else(|| panic!("{found:#}"));
    let job = |name: &str| jobs.iter().find(|job| job["name"] == name).unwrap();
    let annotations = |name: &str| -> Vec<String> {
        let all = job(name)["annotations"].as_array().unwrap();
        all.iter()
            .map(|one| format!("{} {}", one["level"].as_str().unwrap(), one["message"].as_str().unwrap()))
            .collect()
    };
    let summary = job("tools")["summary"].as_str().unwrap();
    assert!(summary.contains("<h1>Sizes</h1>") && summary.contains("***") && !summary.contains("made-42"), "{summary}");
    assert_eq!(annotations("tools"), ["notice a notice of the action", "warning a warning of the action"]);
    assert_eq!(annotations("commits"), ["warning found here", "error The check lint ended as failure: 1 found"]);
    assert_eq!(job("commits")["summary"], "### 1 found\n\n**one** problem\n\n");
}
