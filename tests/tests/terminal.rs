//! The command line as people meet it: the tree in a terminal, lines elsewhere, help for shells and for `man`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{BufRead as _, BufReader},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use longshore_tests::harness::{
    engine::{self, IMAGE},
    git::Repository,
    pool::Dev,
    process::{binary, free_port},
    world::World,
};
use serde_json::Value;

/// Long enough for a few containers on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

fn longshore(arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.arg(LIMIT.as_secs().to_string()).arg(binary("longshore").unwrap()).args(arguments);
    command.env("DOCKER_HOST", "").env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).output().unwrap()
}

/// Runs it with a terminal of 100 columns and 30 lines; what the terminal was sent.
fn on_a_terminal(arguments: &[&str]) -> (i32, String) {
    let program = binary("longshore").unwrap();
    let words = std::iter::once(program.to_str().unwrap()).chain(arguments.iter().copied());
    let words: Vec<String> = words.map(|word| format!("'{word}'")).collect();
    let line = format!("stty cols 100 rows 30; timeout {} {}", LIMIT.as_secs(), words.join(" "));
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn checkout(folder: &Path) -> String {
    let workflow = "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - {name: Greet, run: 'echo \"hello \
                    \u{1f600}\"; printf \"\\\\033]0;title\\\\007\\\\n\"; echo \"::warning \
                    file=a.rs,line=3::take care\"; echo \"# Summary\" >> $GITHUB_STEP_SUMMARY'}\n      - {name: Break, run: exit 3}\n  after:\n    needs: \
                    build\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo never\n";
    let repository = Repository::create(&folder.join("checkout")).unwrap();
    repository.commit("first", &[(".github/workflows/ci.yml", workflow)]).unwrap();
    repository.path.to_string_lossy().into_owned()
}

/// Without colours and movements of the cursor.
fn plain(text: &str) -> String {
    regex::Regex::new("\u{1b}\\[[0-9;?]*[A-Za-z]").unwrap().replace_all(text, "").replace('\r', "")
}

#[test]
fn exec_shows_a_tree_below_the_log_in_a_terminal_and_plain_lines_elsewhere() {
    if !engine::available("exec_shows_a_tree_below_the_log_in_a_terminal_and_plain_lines_elsewhere") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let checkout = checkout(folder.path());
    let image = format!("ubuntu-latest={IMAGE}");
    let arguments = ["exec", &checkout, "--image", &image];

    let (code, sent) = on_a_terminal(&arguments);
    assert_eq!(code, 1, "{sent}");
    assert!(!sent.contains("\u{1b}]0;"), "output sets no title");
    let shown = plain(&sent);
    // The last drawing stays: the log above, then the tree. Below it stands why it failed.
    let (shown, end) = shown.split_at(shown.rfind("– after").unwrap_or_default() + "– after".len());
    assert!(end.contains("✗ build › Break: exit code 3") && end.contains("failure after "), "{end}");
    let last = |text: &str| shown.rfind(text).unwrap_or_else(|| panic!("no {text:?} in {shown}"));
    assert!(last("build | hello \u{1f600}") < last("✗ build"), "{shown}");
    for (upper, lower) in [("✗ build", "✓ Greet"), ("✓ Greet", "✗ Break"), ("✗ Break", "– after")] {
        assert!(last(upper) < last(lower), "{upper:?}, then {lower:?}: {shown}");
    }

    let output = longshore(&arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("build | hello \u{1f600}") && !text.contains('\u{1b}'), "{text}");
    assert!(!text.contains("✗ build"), "{text}");
    let end = String::from_utf8_lossy(&output.stderr);
    let failure = "✗ build › Break: exit code 3";
    for line in ["✗ build ", "  warning: a.rs:3: take care", "  | # Summary", "– after", failure, "failure after "]
    {
        assert!(end.lines().any(|found| found.starts_with(line)), "{line:?}: {end}");
    }
}

#[test]
fn exec_that_is_told_to_terminate_cancels_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let workflow =
        "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo begun; exec sleep 60\n";
    let repository = Repository::create(&folder.path().join("checkout")).unwrap();
    repository.commit("first", &[(".github/workflows/ci.yml", workflow)]).unwrap();
    let mut command = Command::new(binary("longshore").unwrap());
    command.args(["exec", "--sandbox", "host"]).arg(&repository.path).stdout(Stdio::piped());
    let mut run = command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).spawn().unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("| begun")));
    let kill = format!("kill -TERM {}", run.id());
    assert!(Command::new("bash").args(["-c", &kill]).status().unwrap().success());
    assert_eq!(run.wait().unwrap().code(), Some(130));
}

#[test]
fn exec_hears_those_who_end_it_while_it_waits_for_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::create(&folder.path().join("checkout")).unwrap();
    let workflow = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo\n";
    repository.commit("first", &[(".github/workflows/ci.yml", workflow)]).unwrap();
    let socket = folder.path().join("engine.sock");
    let silent = UnixListener::bind(&socket).unwrap();
    silent.set_nonblocking(true).unwrap();
    let mut command = Command::new(binary("longshore").unwrap());
    command.args(["exec", "--image", "ubuntu-latest=any"]).arg(&repository.path);
    command.env("DOCKER_HOST", format!("unix://{}", socket.display())).env("XDG_CACHE_HOME", folder.path());
    let mut run = command.spawn().unwrap();
    let _connection = loop {
        match (silent.accept(), run.try_wait().unwrap()) {
            (Ok(connection), _) => break connection,
            (Err(_), Some(status)) => panic!("ended with {status} before it asked the engine"),
            (Err(_), None) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    // What is being made outlasts the first of them only.
    let kill = format!("kill -TERM {0}; kill -INT {0}", run.id());
    assert!(Command::new("bash").args(["-c", &kill]).status().unwrap().success());
    assert_eq!(run.wait().unwrap().code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_shows_a_run_until_its_end_and_exits_with_its_conclusion() {
    if !engine::available("watch_shows_a_run_until_its_end_and_exits_with_its_conclusion") {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let dev = Dev::start(&data.path().join("data"), &[]).unwrap();
    let workflow = "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - {name: Good, run: sleep 1}\n      \
                    - {name: Bad, run: exit 1}\n";
    let path = ".github/workflows/ci.yml";
    let world = World::new(&dev.relay, &[(path, workflow)]).await.unwrap();
    let (_, job) = world.send(&world.press(dev.pubkey, path)).await.unwrap();
    let id = job.id.to_hex();
    let arguments = ["watch", &id, "--server", &dev.http];

    let output = longshore(&arguments);
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{lines}{}", String::from_utf8_lossy(&output.stderr));
    for line in ["build: Good: running", "build: Good: success", "build: Bad: failure", "build: failure"] {
        assert!(lines.lines().any(|found| found.starts_with(line)), "{line:?}: {lines}");
    }

    // What is over is shown as it was.
    let (code, sent) = on_a_terminal(&arguments);
    let shown = plain(&sent);
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("✗ build") && shown.contains("✓ Good") && shown.contains("✗ Bad"), "{shown}");

    let states = longshore(&["watch", &id, "--json", "--server", &dev.http]).stdout;
    let states: Vec<Value> =
        String::from_utf8_lossy(&states).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(states.last().unwrap()["conclusion"], "failure");
    let log = longshore(&["logs", "-f", &id, "--json", "--server", &dev.http]).stdout;
    assert!(
        String::from_utf8_lossy(&log)
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).unwrap()["job"] == "build")
    );
}

#[test]
fn shells_and_man_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let text = String::from_utf8(longshore(&["completions", shell]).stdout).unwrap();
        for command in ["exec", "watch", "doctor", "workers"] {
            assert!(text.contains(command), "{shell}: {command}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert!(longshore(&["man", pages.to_str().unwrap()]).status.success());
    let page = std::fs::read_to_string(pages.join("longshore-exec.1")).unwrap();
    assert!(page.contains("\\-\\-json") && page.contains("130 cancelled"), "{page}");
    assert!(std::fs::read_to_string(pages.join("longshore.1")).unwrap().contains("longshore\\-doctor"));
}

#[test]
fn doctor_names_what_is_missing_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = format!("unix://{}/none.sock", folder.path().display());
    let (relay, server) = (format!("ws://127.0.0.1:{}", free_port().unwrap()), free_port().unwrap());
    let server = format!("http://127.0.0.1:{server}");
    let config = folder.path().join("coordinator.toml");
    std::fs::write(&config, "public_ur = \"https://x\"\n").unwrap();
    let mut command = Command::new(binary("longshore").unwrap());
    command.args(["doctor", "--json", "--relay", &relay, "--server", &server, "--config"]).arg(&config);
    let output = command.env("DOCKER_HOST", &nowhere).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |what: &str| {
        let all = findings.as_array().unwrap();
        all.iter().find(|finding| finding["what"].as_str().unwrap().starts_with(what)).unwrap_or(&Value::Null).clone()
    };
    assert_eq!(of("git")["state"], "good");
    assert_eq!(of("configuration")["state"], "wrong");
    assert!(of("configuration")["found"].as_str().unwrap().contains("public_url"), "{findings:#}");
    assert_eq!(of("relay")["state"], "wrong");
    assert!(of("relay")["found"].as_str().unwrap().contains(&relay));
    assert_eq!(of("coordinator")["state"], "note");
    assert!(of("coordinator")["remedy"].as_str().unwrap().contains("longshore dev"));
    assert_eq!(of("clock")["state"], "note");

    let output = Command::new(binary("longshore").unwrap())
        .args(["doctor", "--server", &server])
        .env("DOCKER_HOST", &nowhere)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("WRONG Docker engine") && said.contains("install docker.io"), "{said}");
}
