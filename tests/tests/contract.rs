//! The API's description, held against the server by schemathesis, which makes requests up from it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

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

/// Names in the first column of the table of metrics.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../docs/operations.md");
    let names = page.lines().filter_map(|line| line.strip_prefix("| `longshore_")?.split('`').next());
    names.map(|name| format!("longshore_{name}")).collect()
}

/// Names as Prometheus stores them: a counter's samples end in `_total`.
fn served(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_a_running_pool_are_those_of_the_table_and_count_its_runs() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(&folder.path().join("data"), &["--sandbox", "host"]).unwrap();
    let world = World::new(&dev.relay, &[(PATH, WORKFLOW)]).await.unwrap();
    let (run, job) = world.send(&world.press(dev.pubkey, PATH)).await.unwrap();
    world.listener.end(&run, &job, Duration::from_secs(120)).await.unwrap();

    let answer = reqwest::get(format!("{}/metrics", dev.http)).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = answer.text().await.unwrap();
    assert_eq!(served(&text), documented(), "docs/operations.md lists what `/metrics` has");
    for sample in [
        "longshore_runs_ended_total{conclusion=\"success\"} 1",
        "longshore_jobs_ended_total{conclusion=\"success\"} 1",
        "longshore_run_phase_seconds_count{phase=\"finished\"} 1",
        "longshore_workers 1",
        "longshore_queue_jobs{reason=\"busy\"} 0",
    ] {
        assert!(text.lines().any(|line| line == sample), "{sample}\n{text}");
    }
    let ready = reqwest::get(format!("{}/readyz", dev.http)).await.unwrap();
    assert_eq!((ready.status().as_u16(), ready.text().await.unwrap().as_str()), (200, "ready\n"));
}
