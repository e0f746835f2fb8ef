//! `longshore approve`: lets a run start that is held back, or a job whose environment asks somebody first; or fails it.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{api::QueryArgs, key_file, run_events::RunState};
use crate::terminal::printable::printable;

/// Approve a run or jobs that wait for it, or reject them
///
/// A run waits that a pull request of somebody else than a maintainer started: the repository's maintainers may approve it. A
/// job waits whose environment asks for it: those may approve it whom the operator names, or the maintainers. The request is
/// signed with your key. Without a job and an environment it is about all that you are asked for in this run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run: its id, its number in the pool, or the id of its run (5401) or job (5100) event
    run: String,
    /// Only jobs of this environment
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Only this job, by its name or its id in the workflow
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// Reject instead: the run fails, or the jobs do
    #[arg(long)]
    reject: bool,
    /// What to say about it; it stands in the run for everybody who may read it
    #[arg(long, value_name = "TEXT", default_value = "")]
    comment: String,
    #[command(flatten)]
    query: QueryArgs,
}

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    ensure!(args.query.server.keys()?.is_some(), key_file::NO_KEY);
    let verdict = if args.reject { "rejected" } else { "approved" };
    let api = args.query.server.connect()?;
    let job = match args.job {
        Some(name) => {
            let run: RunState = api.get(&format!("/api/runs/{}", args.run)).await?;
            Some(run.job_named(&name).map_or(name, |job| job.key.clone()))
        }
        None => None,
    };
    let body = json!({
        "job": job, "environment": args.environment, "verdict": verdict, "comment": args.comment,
    });
    let answer = api.post_json(&format!("/api/runs/{}/approve", args.run), &body).await?;
    let answer: Value = answer.json().await?;
    Ok(args.query.print(&answer, |answer| {
        let jobs: Vec<&str> = answer["jobs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let jobs: Vec<&str> = jobs.into_iter().map(|key| if key.is_empty() { "the run" } else { key }).collect();
        println!("{verdict}: {}", printable(&jobs.join(", ")));
    }))
}
