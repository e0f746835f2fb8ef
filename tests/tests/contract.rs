//! The API's description, held against the server by schemathesis, which makes requests up from it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use std::{path::PathBuf, time::Duration};

use longshore_tests::harness::{pool::Dev, world::World};

const PATH: &str = ".github/workflows/ci.yml";
const WORKFLOW: &str =
    "name: CI\non: workflow_dispatch\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo hi\n";
/// The same requests each time.
const SEED: &str = "20261127";
/// What has to hold of every answer, whatever was asked.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,unsupported_method";

/// Where the set-up script puts it.
fn program() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    cache.join("longshore/contract/bin/schemathesis")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_that_the_description_allows_or_forbids_gets_an_answer_that_it_does_not_have() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(&folder.path().join("data"), &["--sandbox", "host"]).unwrap();
    let world = World::new(&dev.relay, &[(PATH, WORKFLOW)]).await.unwrap();
    let (run, job) = world.send(&world.press(dev.pubkey, PATH)).await.unwrap();
    world.listener.end(&run, &job, Duration::from_secs(120)).await.unwrap();

    // Requests for the run that is there reach what is behind the search for it.
    let known = format!("[parameters]\n\"path.id\" = \"{}\"\n\"query.job\" = \"build\"\n", job.id.to_hex());
    let settings = folder.path().join("schemathesis.toml");
    std::fs::write(&settings, known).unwrap();
    let mut command = tokio::process::Command::new(program());
    command.arg("--config-file").arg(&settings).arg("run").arg(format!("{}/api/openapi.json", dev.http));
    command.args(["--checks", CHECKS, "--seed", SEED, "--max-examples", "20", "--phases", "examples,coverage,fuzzing"]);
    // Streams that stay open have tests of their own.
    command.args(["--exclude-path-regex", "/(changes|logs|answers)$", "--generation-database", "none", "--no-color"]);
    let output = command.current_dir(folder.path()).output().await;
    let output = output.unwrap_or_else(|error| panic!("{error}: `./deploy/setup.sh --tests` installs schemathesis"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Tested: "), "{said}");
}
