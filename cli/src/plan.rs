//! `longshore plan`: the jobs a workflow would run.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use serde_json::json;
use workflow::{
    diagnostic,
    github::{self, press},
    plan::{Job, Plan, Work},
};

/// Show the jobs of a workflow file
///
/// Text that depends on a run (`${{ }}`) stands as it was written.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workflow file
    file: PathBuf,
    /// The whole plan as JSON
    #[arg(long)]
    json: bool,
}

/// Exit code: 0 with a plan, 2 where the file can't be used.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(&args.file).with_context(|| args.file.display().to_string())?;
    let (plan, diagnostics) = github::parse(&args.file.display().to_string(), &text);
    let Some(plan) = plan else {
        if args.json {
            println!("{}", json!({ "errors": diagnostics.iter().map(crate::lint::as_json).collect::<Vec<_>>() }));
        } else {
            print!("{}", diagnostic::render(&diagnostics, &text, crate::lint::colour()));
        }
        return Ok(ExitCode::from(2));
    };
    if args.json {
        println!("{}", serde_json::to_string(&plan).context("the plan can't be shown as JSON")?);
    } else {
        table(&plan);
    }
    Ok(ExitCode::SUCCESS)
}

fn table(plan: &Plan) {
    let events: Vec<&str> = plan.on.keys().map(String::as_str).collect();
    println!("{}  (on: {}; a press is {})", plan.name, events.join(", "), press::event_for(plan, None).event);
    let rows: Vec<[String; 5]> = plan.jobs.iter().map(|(id, job)| row(id, job)).collect();
    let heads = ["JOB", "NEEDS", "RUNS ON", "MATRIX", "STEPS"].map(str::to_owned);
    let width = |column: usize| {
        let cells = rows.iter().chain([&heads]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths = [0, 1, 2, 3].map(width);
    for [job, needs, runs_on, matrix, steps] in [&heads].into_iter().chain(&rows) {
        let [a, b, c, d] = widths;
        println!("{job:a$}  {needs:b$}  {runs_on:c$}  {matrix:d$}  {steps}");
    }
}

fn row(id: &str, job: &Job) -> [String; 5] {
    let text = |tree: &serde_json::Value| tree.as_str().map_or_else(|| tree.to_string(), str::to_owned);
    let matrix = match &job.strategy.matrix {
        None => "-".to_owned(),
        Some(serde_json::Value::Object(matrix)) => matrix.keys().cloned().collect::<Vec<_>>().join(", "),
        Some(other) => text(other),
    };
    let steps = match &job.work {
        Work::Steps(steps) => steps.len().to_string(),
        Work::Call { uses, .. } => format!("calls {uses}"),
    };
    let needs = if job.needs.is_empty() { "-".to_owned() } else { job.needs.join(", ") };
    [id.to_owned(), needs, text(&job.runs_on), matrix, steps]
}
