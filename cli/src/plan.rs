//! `longshore plan`: the jobs that a workflow file would run.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use workflow::{
    diagnostic::{Colour, render},
    github::outline::{Sketch, outline},
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
    let outline = outline(&plan);
    println!("{} ({}) on {}", outline.name, plan.path, outline.on.join(", "));
    let columns = [Column::text("JOB"), Column::number("STEPS"), Column::number("LEGS"), Column::text("NEEDS")];
    let row = |job: &Sketch| {
        let steps = job.steps.map_or_else(|| "call".into(), |steps| steps.to_string());
        let legs = job.legs.map_or_else(|| "?".into(), |legs| legs.to_string());
        vec![job.id.clone(), steps, legs, job.needs.join(", ")]
    };
    let rows: Vec<_> = outline.jobs.iter().map(row).collect();
    print!("{}", table(&columns, &rows, width()));
    Ok(ExitCode::SUCCESS)
}
