//! Wrong input: each mistake is answered with its cause and what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{path::Path, process::Command};

use longshore_tests::harness::{
    engine,
    git::Repository,
    process::{binary, free_port},
};

/// Runs the binary; gives the exit code and everything it said.
fn longshore(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new("timeout");
    command.arg("60").arg(binary("longshore").unwrap()).args(arguments).envs(environment.iter().copied());
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

fn says(arguments: &[&str], environment: &[(&str, &str)], expected: &[&str]) {
    let (code, said) = longshore(arguments, environment);
    assert!(code != 0 && code != 124, "{arguments:?} ended with {code}: {said}");
    for text in expected {
        assert!(said.contains(text), "{arguments:?} does not say {text:?}: {said}");
    }
}

fn checkout(folder: &Path, workflow: &str) -> String {
    let repository = Repository::create(&folder.join("checkout")).unwrap();
    repository.commit("first", &[(".github/workflows/ci.yml", workflow)]).unwrap();
    repository.path.to_string_lossy().into_owned()
}

const FINE: &str = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo\n";

#[test]
fn without_an_engine_the_remedy_is_to_install_or_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let checkout = checkout(folder.path(), FINE);
    let nowhere = format!("unix://{}/none.sock", folder.path().display());
    says(&["exec", &checkout], &[("DOCKER_HOST", &nowhere)], &["no Docker engine answers", "install docker.io"]);
}

#[test]
fn an_image_that_cannot_be_had_is_named() {
    if !engine::available("an_image_that_cannot_be_had_is_named") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let checkout = checkout(folder.path(), FINE);
    let exec = ["exec", &checkout, "--json", "--image", "ubuntu-latest=localhost/no-such:image"];
    says(&exec, &[], &["image localhost/no-such:image: it is local, but not on this engine", "\"attempts\": 1"]);
}

#[test]
fn a_label_without_an_image_tells_which_flag_gives_it_one() {
    if !engine::available("a_label_without_an_image_tells_which_flag_gives_it_one") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let checkout = checkout(folder.path(), &FINE.replace("ubuntu-latest", "macos-14"));
    says(&["exec", &checkout], &[], &["macos-14", "--image macos-14=IMAGE"]);
}

#[test]
fn a_workflow_that_is_not_there_is_answered_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let checkout = checkout(folder.path(), FINE);
    let missing = ["exec", &checkout, "-W", ".github/workflows/missing.yml"];
    says(&missing, &[], &["missing.yml", ".github/workflows/ci.yml"]);
    std::fs::write(Path::new(&checkout).join("README.md"), "# toy\n").unwrap();
    says(&["exec", &checkout, "-W", "README.md"], &[], &["README.md", ".yml or .yaml", ".github/workflows/ci.yml"]);
}

#[test]
fn a_checkout_an_event_and_a_label_that_do_not_exist_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let checkout = checkout(folder.path(), FINE);
    says(&["exec", "nope"], &[], &["nope: there is no such folder"]);
    says(&["exec", &checkout, "--event", "pull_reqest"], &[], &["pull_reqest: unknown event", "pull_request"]);
    says(&["exec", &checkout, "--image", "ubuntu-latest"], &[], &["LABEL=IMAGE", "there is no = in it"]);
    let host = ["exec", &checkout, "--sandbox", "host", "--ref", "nope"];
    assert!(longshore(&host, &[]).1.contains("--ref nope: the checkout has no refs/heads/nope"));
}

#[test]
fn flags_are_checked_before_the_engine_is_asked_for_anything() {
    let folder = tempfile::tempdir().unwrap();
    let checkout = checkout(folder.path(), FINE);
    let nowhere = format!("unix://{}/none.sock", folder.path().display());
    let secrets = ["exec", &checkout, "--secrets-file", "nope"];
    says(&secrets, &[("DOCKER_HOST", &nowhere)], &["cannot read nope"]);
}

#[test]
fn dev_names_a_port_that_is_taken_and_its_flag_before_the_engine_is_asked_for_anything() {
    let folder = tempfile::tempdir().unwrap();
    let (data, nowhere) = (folder.path().join("data"), format!("unix://{}/none.sock", folder.path().display()));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for flag in ["--relay-port", "--http-port"] {
        let dev = ["dev", "--data", data.to_str().unwrap(), flag, &port];
        says(&dev, &[("DOCKER_HOST", &nowhere)], &[&format!("127.0.0.1:{port}; name another port with {flag}")]);
    }
}

#[test]
fn an_expression_without_contexts_tells_how_to_give_some() {
    says(&["eval", "github.ref"], &[], &["Unrecognized named-value", "--context"]);
}

#[test]
fn an_unknown_function_is_named_though_the_expression_never_comes_to_it() {
    for expression in ["false && nope()", "true || nope()", "case(true, 1, nope())", "${{ true || nope() }}x"] {
        says(&["eval", expression], &[], &["Unrecognized function: 'nope'"]);
    }
}

#[test]
fn a_folder_is_linted_by_its_workflow_files() {
    let folder = tempfile::tempdir().unwrap();
    let checkout = checkout(folder.path(), &FINE.replace("runs-on", "run-on"));
    for path in [checkout.clone(), format!("{checkout}/.github/workflows")] {
        says(&["lint", "--short", &path], &[], &["/.github/workflows/ci.yml:4:5: error"]);
    }
    let ci = format!("{checkout}/.github/workflows/ci.yml");
    std::fs::write(&ci, FINE).unwrap();
    assert_eq!(longshore(&["lint", &checkout], &[]), (0, "1 workflow, no findings\n".into()));
    assert_eq!(longshore(&["lint", "--json", &checkout], &[]), (0, "[]\n".into()));
    says(&["plan", &checkout], &[], &["is a folder", "longshore lint"]);
    let empty = folder.path().to_string_lossy();
    says(&["lint", &empty], &[], &["no workflow files", ".github/workflows"]);
}

#[test]
fn lint_reads_where_it_stands_or_any_folder_and_counts_what_it_found() {
    let folder = tempfile::tempdir().unwrap();
    let checkout = checkout(folder.path(), &FINE.replace("run: echo", "run: echo ${{ github.evnt }}"));
    let lint = |at: &Path, arguments: &[&str]| {
        let output =
            Command::new(binary("longshore").unwrap()).arg("lint").args(arguments).current_dir(at).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let expected =
        ".github/workflows/ci.yml:6:30: warning: `github` has no `evnt` (did you mean `event`?)\n1 warning\n";
    assert_eq!(lint(Path::new(&checkout), &["--short"]), (Some(0), expected.into()));
    let loose = folder.path().join("loose");
    std::fs::create_dir(&loose).unwrap();
    std::fs::write(loose.join("a.yml"), FINE.replace("runs-on", "run-on")).unwrap();
    std::fs::write(loose.join("b.yaml"), FINE.replace("ubuntu-latest", "gpu")).unwrap();
    let (code, said) = lint(&loose, &[]);
    assert_eq!(code, Some(1));
    for text in ["^^^^^^\n", "did you mean `runs-on`?", "label `gpu`", "1 error and 1 warning in 2 of 2 workflows"] {
        assert!(said.contains(text), "{text:?}: {said}");
    }
    assert_eq!(lint(&loose, &["--short", "--label", "gpu", "b.yaml"]), (Some(0), "1 workflow, no findings\n".into()));
    let (_, sarif) = lint(&loose, &["--sarif"]);
    let sarif: serde_json::Value = serde_json::from_str(&sarif).unwrap();
    let levels: Vec<_> = (0..2).map(|at| sarif["runs"][0]["results"][at]["level"].clone()).collect();
    assert_eq!(levels, ["error", "warning"]);
    let (_, commands) = lint(&loose, &["--github"]);
    assert!(commands.starts_with("::error file=a.yml,line=4,col=5::unknown key `run-on`: did you mean"), "{commands}");
}

#[test]
fn a_reader_that_leaves_ends_the_command_without_a_word() {
    let program = binary("longshore").unwrap();
    for arguments in ["eval 1", "completions bash"] {
        let line = format!("{{ sleep 1; '{}' {arguments}; }} | true", program.display());
        let output = Command::new("bash").args(["-c", &line]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.is_empty(), "{arguments}: {said}");
    }
}

#[test]
fn a_mistake_in_yaml_has_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let checkout = checkout(folder.path(), &FINE.replace("runs-on", "run-on"));
    let file = format!("{checkout}/.github/workflows/ci.yml");
    says(&["lint", "--short", &file], &[], &["ci.yml:4:5", "runs-on"]);
}

const CALLED: &str = "on:
  workflow_call:
    inputs: {level: {type: string, required: true}}
    secrets: {key: {required: true}}
jobs:
  build:
    runs-on: ubuntu-latest
    permissions: {contents: write}
    steps:
      - run: echo
  test:
    needs: build
    uses: ./.github/workflows/inner.yml
";

/// A checkout without a commit, `ci.yml` in it with these jobs; `called.yml` calls `inner.yml`.
fn calling(folder: &Path, jobs: &str) -> String {
    let workflows = folder.join(".github/workflows");
    std::fs::create_dir_all(&workflows).unwrap();
    let inner = FINE.replace("on: push", "on: workflow_call");
    for (name, text) in
        [("ci.yml", format!("on: push\njobs:\n{jobs}").as_str()), ("called.yml", CALLED), ("inner.yml", &inner)]
    {
        std::fs::write(workflows.join(name), text).unwrap();
    }
    workflows.join("ci.yml").to_string_lossy().into_owned()
}

#[test]
fn what_a_caller_and_the_workflow_it_calls_do_not_agree_on_has_line_and_column() {
    const USES: &str = "    uses: ./.github/workflows/called.yml\n";
    let both = "    secrets: inherit\n    with: {level: a}\n";
    for (keys, place, expected) in [
        ("    secrets: inherit\n".to_owned(), "ci.yml:4:11", "needs the input `level`"),
        (both.replace("level: a", "level: a, more: b"), "ci.yml:6:22", "declares no input `more`"),
        ("    with: {level: a}\n".to_owned(), "ci.yml:4:11", "needs the secret `key`"),
        (format!("{both}    permissions: {{contents: read}}\n"), "ci.yml:4:11", "asks for contents: write"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = calling(folder.path(), &format!("  a:\n{USES}{keys}"));
        for command in [vec!["lint", "--short", &file], vec!["lint", &file], vec!["plan", &file]] {
            let (code, said) = longshore(&command, &[]);
            assert_eq!(code, 1, "{command:?}: {said}");
            assert!(said.contains(place) && said.contains(expected), "{command:?}: {said}");
        }
    }
}

#[test]
fn a_mistake_in_a_called_workflow_is_shown_in_its_own_file_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = "  a:\n    uses: ./.github/workflows/inner.yml\n  b:\n    uses: ./.github/workflows/inner.yml\n";
    let file = calling(folder.path(), jobs);
    let inner = file.replace("ci.yml", "inner.yml");
    std::fs::write(&inner, FINE.replace("on: push", "on: workflow_call").replace("runs-on", "run-on")).unwrap();
    let expected = format!("{inner}:4:5: error: unknown key `run-on`");
    for arguments in [vec![&file], vec![&inner, &file]] {
        let files = arguments.iter().map(|file| file.as_str());
        let (code, said) = longshore(&["lint", "--short"].into_iter().chain(files).collect::<Vec<_>>(), &[]);
        assert_eq!((code, said.matches(&expected).count()), (1, 1), "{said}");
    }
    says(&["lint", &file], &[], &["inner.yml:4:5", "    run-on: ubuntu-latest"]);
    std::fs::remove_file(&inner).unwrap();
    says(&["lint", "--short", &file], &[], &["ci.yml:4:11: error", "inner.yml", "there is no such file in"]);
}

#[test]
fn a_workflow_of_another_repository_is_named_as_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let file = calling(folder.path(), "  a:\n    uses: o/r/.github/workflows/x.yml@v1\n    with: {any: 1}\n");
    for command in ["lint", "plan"] {
        let (code, said) = longshore(&[command, &file], &[]);
        assert_eq!(code, 0, "{said}");
        for text in ["ci.yml:4:11", "`o/r/.github/workflows/x.yml@v1` is not followed", "another repository"] {
            assert!(said.contains(text), "{command} does not say {text:?}: {said}");
        }
    }
}

#[test]
fn a_plan_shows_called_jobs_below_their_callers() {
    let folder = tempfile::tempdir().unwrap();
    let call = "  a:\n    uses: ./.github/workflows/called.yml\n    with: {level: a}\n    secrets: inherit\n";
    let jobs =
        format!("{call}    permissions: write-all\n  z:\n    needs: a\n    runs-on: x\n    steps: [{{run: a}}]\n");
    let file = calling(folder.path(), &jobs);
    let (code, said) = longshore(&["plan", &file], &[]);
    assert_eq!(code, 0, "{said}");
    let rows: Vec<Vec<&str>> = said.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
    let expected: [&[&str]; 5] = [
        &["a", "call", "1"],
        &["a/build", "1", "1"],
        &["a/test", "call", "1", "a/build"],
        &["a/test/a", "1", "1"],
        &["z", "1", "1", "a"],
    ];
    assert_eq!(rows, expected, "{said}");
    let (_, said) = longshore(&["plan", "--json", &file], &[]);
    let plan: serde_json::Value = serde_json::from_str(&said).unwrap();
    let called: Vec<&String> = plan["called"].as_object().unwrap().keys().collect();
    assert_eq!(called, [".github/workflows/called.yml", ".github/workflows/inner.yml"]);
}

#[test]
fn an_unknown_key_of_the_configuration_is_answered_with_the_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("coordinator.toml");
    std::fs::write(&file, "name = \"x\"\npublic_ur = \"https://x\"\n").unwrap();
    let file = file.to_string_lossy();
    says(&["coordinator", "--config", &file], &[], &["coordinator.toml:2", "public_ur", "public_url"]);
}

#[test]
fn a_bad_key_names_its_file_and_what_makes_a_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("pool");
    let folder = keys.to_string_lossy().into_owned();
    let (code, said) = longshore(&["keygen", &folder], &[]);
    assert_eq!(code, 0, "{said}");
    std::fs::write(keys.join("nostr.key"), "not a key").unwrap();
    let config = format!("{folder}/coordinator.toml");
    says(&["coordinator", "--config", &config], &[], &["nostr.key", "longshore keygen"]);
}

#[test]
fn a_relay_that_does_not_answer_is_named() {
    let relay = format!("ws://127.0.0.1:{}", free_port().unwrap());
    let id = "0".repeat(64);
    says(&["verify", &id, "--relay", &relay], &[], &["no relay answers", &relay]);
}

#[test]
fn a_coordinator_that_does_not_answer_is_named() {
    let server = format!("http://127.0.0.1:{}", free_port().unwrap());
    says(&["runs", "--server", &server], &[], &["no coordinator answers", &server, "--server"]);
    says(&["runs", "--server", "localhost:99"], &[], &["localhost:99", "write it as http://HOST:PORT"]);
    says(&["verify", "8", "--server", &server], &[], &["no coordinator answers", &server]);
    says(&["verify", "eight", "--server", &server], &[], &["eight", "neither a run's number nor an event id"]);
}

#[test]
fn what_no_pool_could_run_is_not_asked_of_one() {
    let pool = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";
    let repository = format!("30617:{pool}:demo");
    let submit = |more: &[&'static str], to: &'static str, words: &[&str]| {
        let asked = ["submit", "--repository", &repository, "--to", to];
        says(&[asked.as_slice(), more].concat(), &[], words);
    };
    submit(&["-W", ".github/workflows/ci.yml"], "abc", &["--to", "abc", "not a public key"]);
    submit(&["-W", "nope.yml"], pool, &["--workflow", "nope.yml", ".github/workflows"]);
    submit(&["-W", ".github/workflows/ci.yml", "--commit", "1234"], pool, &["--commit", "1234", "hex digits"]);
    submit(&["-W", ".github/workflows/ci.yml", "--trigger", "psh"], pool, &["--trigger", "psh", "pull_request"]);
}
