//! `longshore exec`: what it runs of a checkout, and what stands at its end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use longshore_tests::harness::{engine, exec::Exec, git::Repository, process::binary};

const WORKFLOW: &str = "on: push
jobs:
  show:
    runs-on: ubuntu-latest
    steps:
      - run: cat words
";

fn longshore(arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "120"]).arg(binary("longshore").unwrap()).args(arguments);
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

/// Runs a checkout without an engine.
fn exec(repository: &Repository, more: &[&str]) -> Output {
    let path = repository.path.to_string_lossy();
    longshore(&[&["exec", &path, "--sandbox", "host"], more].concat()).output().unwrap()
}

fn printed(output: &Output) -> String {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

fn checkout(folder: &Path, files: &[(&str, &str)]) -> Repository {
    let repository = Repository::create(&folder.join("checkout")).unwrap();
    repository.commit("first line", files).unwrap();
    repository
}

#[test]
fn exec_runs_what_lies_in_the_working_tree_and_the_commit_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let files = [(".github/workflows/ci.yml", WORKFLOW), ("words", "committed\n"), (".gitignore", "ignored\n")];
    let repository = checkout(folder.path(), &files);
    let commit = repository.git(&["rev-parse", "--short=7", "HEAD"]).unwrap();
    let clean = printed(&exec(&repository, &[]));
    assert!(
        clean.contains("show | committed") && clean.contains(&format!("· main · {commit} first line\n")),
        "{clean}"
    );

    std::fs::write(repository.path.join("words"), "typed\n").unwrap();
    std::fs::write(repository.path.join("new"), "untracked\n").unwrap();
    std::fs::write(repository.path.join("ignored"), "ignored\n").unwrap();
    let listing = WORKFLOW.replace("cat words", "cat words new && ! test -e ignored && git log -1 --format=%s");
    std::fs::write(repository.path.join(".github/workflows/ci.yml"), &listing).unwrap();
    let typed = printed(&exec(&repository, &["--plain"]));
    for line in ["show | typed", "show | untracked", "+ 3 uncommitted files\n"] {
        assert!(typed.contains(line), "{line:?}: {typed}");
    }
    let committed = printed(&exec(&repository, &["--committed"]));
    assert!(committed.contains("show | committed") && !committed.contains("untracked"), "{committed}");
    assert!(committed.contains("uncommitted changes are not part of the run (--committed)"), "{committed}");
    assert_eq!(repository.git(&["log", "--all", "--format=%s"]).unwrap(), "first line", "nothing was committed");

    // A commit that no branch is at runs itself; a ref at another commit runs that one.
    let files = [(".github/workflows/ci.yml", WORKFLOW), ("words", "second\n")];
    repository.commit("second line", &files).unwrap();
    repository.git(&["checkout", "--quiet", "--detach", "HEAD~1"]).unwrap();
    assert!(printed(&exec(&repository, &[])).contains("show | committed"));
    let named = printed(&exec(&repository, &["--ref", "main"]));
    assert!(named.contains("show | second") && named.contains("second line\n"), "{named}");
}

#[test]
fn exec_runs_a_repository_that_has_no_commit_yet() {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::create(folder.path()).unwrap();
    std::fs::create_dir_all(folder.path().join(".github/workflows")).unwrap();
    std::fs::write(folder.path().join(".github/workflows/ci.yml"), WORKFLOW).unwrap();
    std::fs::write(folder.path().join("words"), "first words\n").unwrap();
    let said = printed(&exec(&repository, &[]));
    assert!(said.contains("show | first words") && said.contains("success after"), "{said}");
    assert!(printed(&exec(&repository, &["--committed"])).contains("no commit yet: commit, or leave --committed out"));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_job_the_working_tree_is_a_commit_on_top_of_the_checked_out_one_and_origin_has_it() {
    if !engine::available("in_a_job_the_working_tree_is_a_commit_on_top_of_the_checked_out_one_and_origin_has_it") {
        return;
    }
    let workflow = "on: push
jobs:
  a:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
        with: {fetch-depth: 0}
      - run: |
          echo \"> $(cat words), $(git status --porcelain | wc -l) changed\"
          test \"$(git rev-parse HEAD)\" = \"$GITHUB_SHA\" && echo '> HEAD is github.sha'
          git fetch --quiet origin main && echo \"> $(git diff --name-only HEAD FETCH_HEAD | wc -l) differ from origin\"
          git log --format='> %s' | sed 's/on [0-9a-f]* /on it: /'
          git diff --name-only HEAD^ | sed 's/^/> changed: /'
      - uses: $/tools/say
";
    let action =
        "name: say\ndescription: says\nruns: {using: composite, steps: [{run: echo '> committed', shell: bash}]}\n";
    let folder = tempfile::tempdir().unwrap();
    let files = [(".github/workflows/ci.yml", workflow), ("words", "committed\n"), ("tools/say/action.yml", action)];
    let repository = checkout(folder.path(), &files);
    std::fs::write(repository.path.join("words"), "typed\n").unwrap();
    std::fs::write(repository.path.join("tools/say/action.yml"), action.replace("committed", "typed")).unwrap();
    let ran = Exec::of(&repository.path, &folder.path().join("cache")).unwrap().run().await.unwrap();
    let expected = [
        "typed, 0 changed",
        "HEAD is github.sha",
        "0 differ from origin",
        "Uncommitted changes on it: first line",
        "first line",
        "changed: tools/say/action.yml",
        "changed: words",
        "typed",
    ];
    assert_eq!(ran.marked("a"), expected, "{ran}");
}

const MATRIX: &str = "on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps: [{run: echo built}]
  test:
    needs: build
    runs-on: ubuntu-latest
    strategy: {matrix: {os: [linux, mac], node: [18, 20]}}
    steps:
      - {name: Prepare, run: 'seq 30'}
      - {name: Run tests, run: 'echo \"testing ${{ matrix.os }}\"; echo \"::error file=a.rs,line=3::broken\"; exit ${{ matrix.node }}'}
";

#[test]
fn legs_are_chosen_by_name_and_by_value_and_the_end_says_which_step_failed_and_what_it_printed() {
    let folder = tempfile::tempdir().unwrap();
    let repository = checkout(folder.path(), &[(".github/workflows/ci.yml", MATRIX)]);
    let one = exec(&repository, &["--job", "test (mac, 20)"]);
    assert_eq!(one.status.code(), Some(1));
    let (log, end) = (String::from_utf8_lossy(&one.stdout), String::from_utf8_lossy(&one.stderr));
    for line in [
        "build | built\n",
        "test (mac, 20) | ▸ Run tests\n",
        "test (mac, 20) | testing mac\n",
        "test (mac, 20) | Error: broken\n",
        "test (mac, 20) | ✗ Run tests ",
    ] {
        assert!(log.contains(line), "{line:?}: {log}");
    }
    assert!(!log.contains("linux"), "{log}");
    let failure = "\n✗ test (mac, 20) › Run tests: exit code 20\n";
    let at = end.find(failure).unwrap_or_else(|| panic!("no {failure:?}: {end}"));
    assert!(end[at..].contains("    testing mac\n    Error: broken\n") && !end[at..].contains("    30\n"), "{end}");
    assert!(end.contains("✗ test (mac, 20) ") && end.contains("  error: a.rs:3: broken\n"), "{end}");
    let last = end.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with("failure after ") && last.ends_with(": 1 of 2 jobs failed"), "{end}");

    let some = exec(&repository, &["--matrix", "os=linux", "--matrix", "node=18", "--json"]);
    let some: serde_json::Value = serde_json::from_slice(&some.stdout).unwrap();
    let names: Vec<_> = some["jobs"].as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["build", "test (linux, 18)"]);
    assert!(some["duration_ms"].as_u64() >= some["jobs"][1]["duration_ms"].as_u64(), "{some:#}");

    for (arguments, remedy) in [
        (["--matrix", "os=bsd"], "no leg has this value; os is linux, mac"),
        (["--matrix", "arch=arm"], "no matrix has the key; there is os, node"),
        (["--job", "tset"], "it has build, test, test (linux, 18), test (linux, 20), test (mac, 18), test (mac, 20)"),
    ] {
        let refused = exec(&repository, &arguments);
        assert_eq!(refused.status.code(), Some(2));
        assert!(printed(&refused).contains(remedy), "{remedy:?}: {}", printed(&refused));
    }
}

/// `exec --watch`, and its lines as they come.
struct Watching(Child, mpsc::Receiver<String>);

impl Watching {
    fn start(repository: &Repository) -> Self {
        let path = repository.path.to_string_lossy();
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 2>&1"]).arg(binary("longshore").unwrap());
        command
            .args(["exec", "--sandbox", "host", "--watch", &path])
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self(child, receiver)
    }

    /// Reads up to a line that contains this.
    fn until(&self, text: &str) -> String {
        let mut read = String::new();
        while let Ok(line) = self.1.recv_timeout(Duration::from_secs(60)) {
            read.push_str(&line);
            read.push('\n');
            if line.contains(text) {
                return read;
            }
        }
        panic!("no {text:?}: {read}");
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn watch_runs_again_what_changed_gives_up_what_is_outdated_and_ends_with_its_job() {
    let folder = tempfile::tempdir().unwrap();
    let workflow = WORKFLOW.replace("cat words", ". ./words");
    let files = [(".github/workflows/ci.yml", workflow.as_str()), ("words", "echo one\n"), (".gitignore", "*.log\n")];
    let repository = checkout(folder.path(), &files);
    let write = |name: &str, text: &str| std::fs::write(repository.path.join(name), text).unwrap();
    let mut watching = Watching::start(&repository);
    watching.until("show | one");
    watching.until("waiting for files to change");

    // An ignored file is nothing to run for; a job that is outdated is not waited for.
    write("a.log", "x");
    write("words", "echo two; sleep 300\n");
    watching.until("show | two");
    write("words", "echo three; exit 3\n");
    let again = watching.until("show | three");
    assert!(again.contains("files changed: cancelling this run"), "{again}");
    watching.until("show › . ./words: exit code 3");
    watching.until("waiting for files to change");

    // What is no workflow just now may be one in a moment.
    write(".github/workflows/ci.yml", "on: push\njobs: {");
    watching.until("waiting for files to change");
    write(".github/workflows/ci.yml", &WORKFLOW.replace("cat words", "echo begun; sleep 300"));
    watching.until("show | begun");
    let interrupted = Command::new("kill").args(["-INT", &watching.0.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    assert_eq!(watching.0.wait().unwrap().code(), Some(130));
}
