//! `longshore plan`: the jobs that a workflow file would run.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use workflow::{
    diagnostic::{Colour, render},
    expression::{NoFunctions, Object, Scope},
    github::matrix,
    plan::{Job, Work},
};

use crate::terminal::table::{Column, table, width};

/// Show the jobs that a workflow file would run
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workflow file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the whole plan as JSON
    #[arg(long)]
    json: bool,
}

#[allow(clippy::print_stdout)]
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let text = std::fs::read_to_string(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let (plan, findings) = workflow::github::parse(&args.file.to_string_lossy(), &text);
    let Some(plan) = plan else { bail!("{}", render(&findings, &text, Colour::Plain)) };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&plan).context("the plan has no JSON form")?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} ({}) on {}", plan.name, plan.path, plan.on.keys().cloned().collect::<Vec<_>>().join(", "));
    let columns = [Column::text("JOB"), Column::number("STEPS"), Column::number("LEGS"), Column::text("NEEDS")];
    let row = |(id, job): (&String, &Job)| vec![id.clone(), steps(job), legs(job), job.needs.join(", ")];
    let rows: Vec<_> = plan.jobs.iter().map(row).collect();
    print!("{}", table(&columns, &rows, width()));
    Ok(ExitCode::SUCCESS)
}

fn steps(job: &Job) -> String {
    match &job.work {
        Work::Steps(steps) => steps.len().to_string(),
        Work::Call { .. } => "call".into(),
    }
}

/// The number of legs, where it is known without running anything.
fn legs(job: &Job) -> String {
    let contexts = Object::new();
    let scope = Scope { contexts: &contexts, functions: &NoFunctions, limits: workflow::expression::Limits::default() };
    matrix::expand(&job.strategy, &scope).map_or_else(|_| "?".into(), |legs| legs.len().to_string())
}
