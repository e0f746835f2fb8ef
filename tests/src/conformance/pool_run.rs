//! Cases of the corpus that need a pool: a run that is run again.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use super::github_run::{Case, Expect, check};
use crate::harness::{
    pool::Dev,
    process::{binary, printed_event},
    world::World,
};

/// Longer than any run of a case may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a case, and again what is said to be run again. What was not as expected.
pub(super) fn judge(tree: &Path, case: &Case, which: &str, again: &Expect) -> Result<Vec<String>> {
    tokio::runtime::Runtime::new()?.block_on(run_twice(tree, case, which, again))
}

async fn run_twice(tree: &Path, case: &Case, which: &str, again: &Expect) -> Result<Vec<String>> {
    let data = tempfile::tempdir()?;
    let dev = Dev::start(&data.path().join("data"), &[])?;
    let world = World::new(&dev.relay, &[]).await?;
    let copied = std::process::Command::new("cp").arg("-a").arg(tree.join(".")).arg(&world.repository.path).status()?;
    ensure!(copied.success(), "cannot copy {}", tree.display());
    let commit = world.push("head", &[]).await?;
    let mut press = world.press(dev.pubkey, &case.workflow);
    press.commit = commit;
    press.trigger.clone_from(&case.event);
    press.secrets = case.secrets.clone().into_iter().collect();
    press.env = case.vars.clone().into_iter().collect();
    let (run, job) = world.send(&press).await?;
    world.listener.end(&run, &job, LIMIT).await?;
    let server = dev.http.trim_end_matches('/');
    let first = run.id.to_hex();
    let mut wrong = check(&case.expect, &result(server, &first).await?);
    let scope: &[&str] = match which {
        "all" => &[],
        "failed" => &["--failed"],
        other => bail!("what is run again, {other}, is not known"),
    };
    let mut command = Command::new(binary("longshore")?);
    command.args(["rerun", &first, "--json", "--server", server]).args(scope);
    command.env("LONGSHORE_NSEC", world.owner.secret_key().to_secret_hex()).env("LONGSHORE_RELAY", &dev.relay);
    command.envs(&case.secrets).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.context("the second run did not end")??;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let second = printed_event(&said, 5401);
    let second = second.with_context(|| format!("the second run did not begin: {said}"))?;
    wrong.extend(check(again, &result(server, &second).await?).into_iter().map(|wrong| format!("again: {wrong}")));
    Ok(wrong)
}

/// A run as `longshore exec --json` would print it.
async fn result(server: &str, run: &str) -> Result<Value> {
    let shown: Value = reqwest::get(format!("{server}/api/runs/{run}")).await?.error_for_status()?.json().await?;
    let mut command = Command::new(binary("longshore")?);
    command.args(["logs", run, "--json", "--server", server]).kill_on_drop(true);
    let printed = command.output().await?.stdout;
    let chunks: Vec<Value> =
        String::from_utf8_lossy(&printed).lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let log = |key: &Value| -> String {
        let lines = chunks.iter().filter(|chunk| chunk["job"] == *key).flat_map(|chunk| chunk["lines"].as_array());
        lines.flatten().filter_map(|line| line["text"].as_str()).map(|text| format!("{}\n", text.trim_end())).collect()
    };
    let jobs = shown["jobs"].as_array().into_iter().flatten().map(|job| {
        let mut job = job.clone();
        job["log"] = log(&job["key"]).into();
        job["id"] = job["key"].clone();
        job
    });
    Ok(json!({"conclusion": shown["conclusion"], "jobs": jobs.collect::<Vec<_>>()}))
}
