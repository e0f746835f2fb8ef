//! Actions of other repositories, and what `actions/checkout` brings, from a git server of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use longshore_tests::harness::{
    engine,
    exec::{Exec, Outcome},
    git::{Repository, Server},
};

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

    /// A repository on the server, as `owner/name`.
    fn offer(&self, name: &str, files: &[(&str, &str)]) -> (Repository, String) {
        let repository = Repository::create(&self.folder.path().join("work").join(name)).unwrap();
        let commit = repository.commit("first", files).unwrap();
        repository.git(&["tag", "v1"]).unwrap();
        repository.publish(&self.server.folder, name).unwrap();
        (repository, commit)
    }

    /// Runs steps in a checkout of these files; gives what is said of the run.
    async fn run(&self, steps: &str, files: &[(&str, &str)], arguments: &[&str]) -> Outcome {
        let checkout = Repository::create(&tempfile::tempdir_in(self.folder.path()).unwrap().keep()).unwrap();
        let workflow = format!("on: push\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n{}", indented(steps));
        let mut all = vec![(".github/workflows/ci.yml", workflow.as_str())];
        all.extend(files);
        checkout.commit("first", &all).unwrap();
        self.exec(&checkout.path, arguments).await
    }

    async fn exec(&self, checkout: &Path, arguments: &[&str]) -> Outcome {
        let exec = Exec::of(checkout, &self.folder.path().join("cache")).unwrap();
        let exec = exec.with(&["--workspace", "empty", "--action-base", &self.server.url]);
        exec.with(arguments).run().await.unwrap()
    }
}

fn indented(steps: &str) -> String {
    steps.lines().map(|line| format!("      {line}\n")).collect()
}

/// A JavaScript action with programs before and after, each of which tells what it sees.
fn tool(name: &str) -> Vec<(String, String)> {
    let said = "process.env";
    let manifest = format!(
        "inputs: {{label: {{default: '${{{{ job.status }}}}'}}}}\nruns: {{using: node24, pre: pre.js, main: main.js, post: post.js}}\n# {name}"
    );
    let program = |stage: &str, more: &str| {
        format!("console.log(`> {name} {stage} ${{{said}.INPUT_LABEL}} ${{{said}.STATE_kept || '-'}}`);{more}")
    };
    let keep = "require('fs').appendFileSync(process.env.GITHUB_STATE, 'kept=from pre\\n')";
    vec![
        ("action.yml".into(), manifest),
        ("pre.js".into(), program("pre", keep)),
        ("main.js".into(), program("main", "")),
        ("post.js".into(), program("post", "")),
    ]
}

fn borrowed(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_of_other_repositories_run_before_in_and_after_their_steps() {
    if !engine::available("actions_of_other_repositories_run_before_in_and_after_their_steps") {
        return;
    }
    let world = World::new().await;
    let (_, tool_commit) = world.offer("acme/tool", &borrowed(&tool("tool")));
    let inner = "inputs: {who: {}}
outputs: {told: {value: '${{ steps.s.outputs.t }}'}}
runs:
  using: composite
  steps:
    - uses: acme/tool@v1
      with: {label: 'inner ${{ inputs.who }}'}
    - {id: s, shell: bash, run: 'echo \"t=$GITHUB_ACTION_REPOSITORY@$GITHUB_ACTION_REF\" >> $GITHUB_OUTPUT'}
    - {shell: bash, run: 'cat \"$GITHUB_ACTION_PATH/words\"; echo \"> ${{ github.action_path }}\"'}
";
    world.offer("acme/kit", &[("deep/er/action.yml", inner), ("deep/er/words", "> words\n")]);
    let steps = "
- run: echo '> first'; ls -a
- uses: acme/tool@v1
- id: kit
  uses: acme/kit/deep/er@v1
  with: {who: me}
- run: echo '> ${{ steps.kit.outputs.told }}'; exit 3
- if: false
  uses: acme/tool@main
  with: {label: never}";
    let result = world.run(steps, &[], &[]).await;
    let lines = [
        "tool pre success -",
        "tool pre inner me -",
        "tool pre never -",
        "first",
        "tool main success from pre",
        "tool main inner me from pre",
        "words",
        "/longshore/_actions/acme/kit/v1/deep/er",
        "acme/kit@v1",
        // The first post is of the step that was skipped: its `pre` ran. Inputs are evaluated again.
        "tool post never from pre",
        "tool post inner me from pre",
        "tool post failure from pre",
    ];
    // What ran first is registered first: pre programs come in the order of their steps, post programs backwards.
    assert_eq!(result.marked("test"), lines, "{}", result.log("test"));
    assert_eq!(result["conclusion"], "failure");
    assert_eq!(result["jobs"][0]["actions"]["acme/tool@v1"], tool_commit.as_str());
    assert_eq!(result["jobs"][0]["actions"].as_object().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_64_a_tag_that_moved_fails_the_run_before_its_first_step() {
    if !engine::available("attack_64_a_tag_that_moved_fails_the_run_before_its_first_step") {
        return;
    }
    let world = World::new().await;
    let (repository, first) = world.offer("acme/tool", &borrowed(&tool("good")));
    let steps = "- run: echo '> ran'\n- uses: acme/tool@v1";
    let locked = format!("acme/tool@v1 {first}\n");
    let lock = [(".github/actions.lock", locked.as_str())];
    let result = world.run(steps, &lock, &[]).await;
    assert_eq!(result["conclusion"], "success", "{}", result.log("test"));

    let second = repository.commit("evil", &borrowed(&tool("evil"))).unwrap();
    repository.git(&["tag", "--force", "v1"]).unwrap();
    repository.publish(&world.server.folder, "acme/tool").unwrap();
    let result = world.run(steps, &lock, &[]).await;
    assert_eq!(result["conclusion"], "failure");
    assert_eq!(result.marked("test"), [""; 0], "nothing of it ran, nor anything else");
    for part in ["acme/tool@v1 moved", &first, &second] {
        assert!(result.log("test").contains(part), "{part}: {}", result.log("test"));
    }
    let result = world.run(steps, &[(".github/actions.lock", "# nothing yet\n")], &[]).await;
    assert!(result.log("test").contains(&format!("add the line `acme/tool@v1 {second}`")), "{}", result.log("test"));
    // A full commit id needs no lock: it is one.
    let pinned = format!("- uses: acme/tool@{first}");
    let result = world.run(&pinned, &[(".github/actions.lock", "# nothing yet\n")], &[]).await;
    assert_eq!(result["conclusion"], "success", "{}", result.log("test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_65_a_name_means_one_place_and_the_log_says_which() {
    if !engine::available("attack_65_a_name_means_one_place_and_the_log_says_which") {
        return;
    }
    let world = World::new().await;
    let script = |text: &str| format!("runs: {{using: composite, steps: [{{shell: bash, run: 'echo \"> {text}\"'}}]}}");
    world.offer("acme/tool", &[("action.yml", &script("first"))]);
    world.offer("open/acme/tool", &[("action.yml", &script("squatter"))]);
    world.offer("open/acme/only", &[("action.yml", &script("second"))]);
    let open = format!("{}/open", world.server.url);
    let bases = ["--action-base", &open];

    let result = world.run("- uses: acme/tool@v1\n- uses: acme/only@v1", &[], &bases).await;
    assert_eq!(result.marked("test"), ["first", "second"], "{}", result.log("test"));
    let told = [
        format!("{}/acme/tool has acme/tool", world.server.url),
        format!("{}/acme/only does not exist; {open}/acme/only has acme/only", world.server.url),
    ];
    for told in told {
        assert!(result.log("test").contains(&told), "{told}: {}", result.log("test"));
    }
    // A server that does not answer is not passed over.
    let dead = ["--action-base", "http://127.0.0.1:9", "--action-base", &open];
    let checkout = Repository::create(&world.folder.path().join("dead")).unwrap();
    let workflow = "on: push\njobs: {test: {runs-on: ubuntu-latest, steps: [{uses: acme/tool@v1}]}}";
    checkout.commit("first", &[(".github/workflows/ci.yml", workflow)]).unwrap();
    let other = World {
        folder: tempfile::tempdir().unwrap(),
        server: Server::start(&world.folder.path().join("none")).await.unwrap(),
    };
    drop(other.server);
    let exec = Exec::of(&checkout.path, other.folder.path()).unwrap().with(&dead);
    let result = exec.run().await.unwrap();
    assert_eq!(result["conclusion"], "failure");
    assert!(
        !result.log("test").contains("squatter") && result.log("test").contains("http://127.0.0.1:9/acme/tool:"),
        "{}",
        result.log("test")
    );
    // A configured mirror comes before every base.
    let mirror = format!("acme/tool={open}/acme/only");
    let result = world.run("- uses: acme/tool@v1", &[], &["--action-mirror", &mirror]).await;
    assert_eq!(result.marked("test"), ["second"], "{}", result.log("test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_12_an_action_outside_of_its_repository_is_refused() {
    if !engine::available("attack_12_an_action_outside_of_its_repository_is_refused") {
        return;
    }
    let world = World::new().await;
    world.offer("acme/out", &[("action.yml", "runs: {using: node20, main: ../../../../../bin/sh}")]);
    for (uses, part) in [
        ("./../../etc", "must lie in the workspace"),
        ("acme/out/../../x@v1", "write owner/repo"),
        ("acme/out@v1", "lies outside of the action"),
        ("acme/none@v1", "there is no repository acme/none"),
        ("acme/out@v9", "no branch, tag or commit"),
    ] {
        let result = world.run(&format!("- uses: {uses}"), &[], &[]).await;
        assert_eq!(result["conclusion"], "failure", "{uses}");
        assert!(result.log("test").contains(part), "{uses}: {}", result.log("test"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checkout_brings_other_repositories_submodules_parts_and_tags() {
    if !engine::available("checkout_brings_other_repositories_submodules_parts_and_tags") {
        return;
    }
    let world = World::new().await;
    world.offer("acme/leaf", &[("leaf.txt", "> leaf\n")]);
    let branch = |folder: &str, files: &[(&str, &str)], module: &str| {
        let repository = Repository::create(&world.folder.path().join("work").join(folder)).unwrap();
        repository.commit("first", files).unwrap();
        let url = world.server.clone_url(module);
        repository.git(&["-c", "protocol.http.allow=always", "submodule", "add", "--quiet", &url, "deps/one"]).unwrap();
        repository
            .git(&[
                "config",
                "-f",
                ".gitmodules",
                "submodule.deps/one.url",
                &format!("../{}", module.split('/').next_back().unwrap()),
            ])
            .unwrap();
        repository.commit("second", &[]).unwrap();
        repository.git(&["tag", "-a", "-m", "one", "v1"]).unwrap();
        repository.publish(&world.server.folder, folder).unwrap();
    };
    branch("acme/trunk", &[("trunk.txt", "> trunk\n"), ("docs/a", "> docs\n")], "acme/leaf");
    branch("acme/tree", &[("tree.txt", "> tree\n")], "acme/trunk");
    let steps = "
- id: tree
  uses: actions/checkout@v4
  with: {repository: acme/tree, path: tree, submodules: recursive, fetch-depth: 0}
- run: |
    cat tree/tree.txt tree/deps/one/trunk.txt tree/deps/one/deps/one/leaf.txt
    cd tree; git log --format='> %s'; git tag --format='> %(refname)'; git status --porcelain
    git submodule status --recursive | sed 's/^ [0-9a-f]*/>/; s/ (.*//'
    echo '> ${{ steps.tree.outputs.ref }}' $([ '${{ steps.tree.outputs.commit }}' = $(git rev-parse HEAD) ] && echo same)
- uses: actions/checkout@v5
  with: {repository: acme/trunk, ref: v1, path: part, sparse-checkout: docs, sparse-checkout-cone-mode: false}
- run: find part -type f -not -path '*/.git/*' | sed 's/^/> /'
- uses: actions/checkout@v4
  with: {repository: acme/trunk, path: deep, submodules: true, fetch-tags: true}
- run: cd deep; git describe --tags | sed 's/^/> /'; git remote get-url origin | sed 's/^/> /'; cat deps/one/leaf.txt
- uses: actions/checkout@v4
  with: {repository: acme/trunk, path: ../out}
- if: always()
  uses: actions/checkout@v4
  with: {repository: acme/trunk, lfs: true}";
    let result = world.run(steps, &[], &[]).await;
    let lines = [
        "tree",
        "trunk",
        "leaf",
        "second",
        "first",
        "refs/tags/v1",
        "deps/one",
        "deps/one/deps/one",
        "refs/heads/main same",
        "part/docs/a",
        "v1",
        "http://ci.localhost:4480/acme/trunk",
        "leaf",
    ];
    assert_eq!(result.marked("test"), lines, "{}", result.log("test"));
    for part in ["`path` must stay in the workspace", "`lfs: true` is not supported"] {
        assert!(result.log("test").contains(part), "{part}: {}", result.log("test"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_47_a_crafted_repository_neither_reads_our_files_nor_runs_code() {
    if !engine::available("attack_47_a_crafted_repository_neither_reads_our_files_nor_runs_code") {
        return;
    }
    let world = World::new().await;
    let canary = world.folder.path().join("canary");
    let (_, leaf) = world.offer("acme/leaf", &[("post-checkout", &format!("#!/bin/sh\ntouch {}\n", canary.display()))]);
    let private = Repository::create(&world.folder.path().join("private")).unwrap();
    let secret = private.commit("first", &[("secret", "of this machine")]).unwrap();
    let craft = |name: &str, modules: &str, commit: &str, path: &str, link: Option<(&str, &str)>| {
        let repository = Repository::create(&world.folder.path().join("work").join(name)).unwrap();
        repository
            .commit("first", &[(".gitmodules", modules), (".gitattributes", "* filter=evil\n"), ("file", "text")])
            .unwrap();
        repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]).unwrap();
        if let Some((name, target)) = link {
            std::os::unix::fs::symlink(target, repository.path.join(name)).unwrap();
            repository.git(&["add", name]).unwrap();
        }
        repository.git(&["commit", "--quiet", "--message", "crafted"]).unwrap();
        repository.publish(&world.server.folder, name).unwrap();
    };
    let entry = |path: &str, url: &str| format!("[submodule \"x\"]\n\tpath = {path}\n\turl = {url}\n");
    let file = format!("file://{}", private.path.display());
    let leaf_url = world.server.clone_url("acme/leaf");
    craft("a/file", &entry("x", &file), &secret, "x", None);
    craft("a/plain", &entry("x", &private.path.to_string_lossy()), &secret, "x", None);
    craft("a/program", &entry("x", "ext::touch /tmp/x"), &leaf, "x", None);
    craft("a/link", &entry("a/hooks", &leaf_url), &leaf, "a/hooks", Some(("A", ".git")));
    craft("a/option", &entry("x", "--upload-pack=touch"), &leaf, "x", None);
    craft("a/name", "[submodule \"../../hooks\"]\n\tpath = x\n\turl = https://example.org/x\n", &leaf, "x", None);
    for (name, part) in [
        ("a/file", "only http, https and relative URLs"),
        ("a/plain", "only http, https and relative URLs"),
        ("a/program", "only http, https and relative URLs"),
        ("a/option", "only http, https and relative URLs"),
        ("a/name", "is not taken"),
    ] {
        let steps = format!(
            "- uses: actions/checkout@v4\n  with: {{repository: {name}, submodules: recursive}}\n- if: always()\n  run: find . -name secret | sed 's/^/> /'"
        );
        let result = world.run(&steps, &[], &[]).await;
        assert_eq!(result["conclusion"], "failure", "{name}: {}", result.log("test"));
        assert!(result.log("test").contains(part), "{name}: {}", result.log("test"));
        assert_eq!(result.marked("test"), [""; 0], "{name}");
    }
    // A file that looks like a hook, and a filter that nobody configured, are only files.
    let steps = "- uses: actions/checkout@v4\n  with: {repository: a/link, submodules: true}\n- run: cat file | sed 's/^/> /'; ls .git/hooks 2>/dev/null | sed 's/^/> /'";
    let result = world.run(steps, &[], &[]).await;
    assert_eq!(result.marked("test"), ["text"], "{}", result.log("test"));
    assert!(!canary.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_exec_a_job_asks_for_its_repository_and_its_run_with_containers_and_without() {
    if !engine::available("in_exec_a_job_asks_for_its_repository_and_its_run_with_containers_and_without") {
        return;
    }
    let world = World::new().await;
    let ask = r#"
const api = `${process.env.GITHUB_API_URL}/repos/${process.env.GITHUB_REPOSITORY}`;
const get = async path => (await fetch(api + path)).json();
(async () => {
  const run = `/actions/runs/${process.env.GITHUB_RUN_ID}`;
  const {jobs} = await get(`${run}/jobs`);
  console.log('>', (await get('/commits')).length, (await get(run)).status, jobs.map(job => job.name + ':' + job.status).join());
})();
"#;
    let steps = "
- uses: actions/checkout@v4
- run: |
    echo \"> shallow $(git rev-list --count HEAD)\"
    git fetch --quiet --unshallow origin
    echo \"> whole $(git rev-list --count HEAD) $(git ls-remote \"$GITHUB_SERVER_URL/$GITHUB_REPOSITORY\" | wc -l)\"
    node ask.js";
    let workflow = format!("on: push\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n{}", indented(steps));
    let checkout = Repository::create(&world.folder.path().join("own")).unwrap();
    checkout.commit("first", &[("ask.js", ask)]).unwrap();
    checkout.commit("second", &[(".github/workflows/ci.yml", &workflow)]).unwrap();
    for sandbox in ["docker", "host"] {
        let result = world.exec(&checkout.path, &["--sandbox", sandbox]).await;
        let lines = ["shallow 1", "whole 2 2", "2 in_progress test:in_progress"];
        assert_eq!(result.marked("test"), lines, "{sandbox}: {}", result.log("test"));
    }
}
