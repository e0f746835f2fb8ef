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
    says(&["exec", &checkout, "--image", "ubuntu-latest=localhost/no-such:image"], &[], &["localhost/no-such:image"]);
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
}

#[test]
fn a_mistake_in_yaml_has_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let checkout = checkout(folder.path(), &FINE.replace("runs-on", "run-on"));
    let file = format!("{checkout}/.github/workflows/ci.yml");
    says(&["lint", "--short", &file], &[], &["ci.yml:4:5", "runs-on"]);
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
}
