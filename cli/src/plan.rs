//! `longshore plan`: the jobs that a workflow file would run.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, ensure};
use workflow::{
    diagnostic::Colour,
    dialect::{call_graph::CallGraph, outline::JobOutline},
    plan::Plan,
};

use crate::{
    terminal::{
        printable::printable,
        table::{Column, table, width},
    },
    workflow_files::LocalWorkflow,
};

/// Show the jobs that a workflow file would run
///
/// Jobs of called workflows of the same checkout stand below their callers. Those of other repositories are not
/// fetched; a warning says so. A file with errors has no plan: they are shown as `longshore lint` does.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workflow file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the whole plan as JSON; `called` holds the plans of called workflows, by what `uses` says
    #[arg(long)]
    json: bool,
}

/// Exit code 1 where the file, or what it calls, has an error.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) async fn run(args: &Args) -> Result<ExitCode> {
    let file = args.file.display();
    ensure!(
        !args.file.is_dir(),
        "{file} is a folder: name one of its workflow files; `longshore lint {file}` reads all"
    );
    let read = LocalWorkflow::read(&args.file).await?;
    let Some(graph) = &read.graph else {
        let colour = if std::io::stderr().is_terminal() { Colour::Ansi } else { Colour::Plain };
        eprint!("{}", read.rendered(colour, |_| true));
        return Ok(ExitCode::FAILURE);
    };
    read.warnings().for_each(|warning| eprintln!("{}", printable(&warning.to_string())));
    if args.json {
        let mut plan = serde_json::to_value(&graph.plan).context("the plan has no JSON form")?;
        if !graph.called.is_empty() {
            let called = serde_json::to_value(&graph.called).context("a called plan has no JSON form")?;
            plan["called"] = called;
        }
        println!("{plan:#}");
        return Ok(ExitCode::SUCCESS);
    }
    let head = graph.plan.dialect.outline(&graph.plan);
    println!("{}", printable(&format!("{} ({}) on {}", head.name, file, head.on.join(", "))));
    let columns = [Column::text("JOB"), Column::number("STEPS"), Column::number("LEGS"), Column::text("NEEDS")];
    let mut rows = Vec::new();
    add_rows(&graph.plan, graph, "", &mut rows);
    print!("{}", table(&columns, &rows, width()));
    Ok(ExitCode::SUCCESS)
}

/// A row for each job, those of a called workflow below their caller. A graph has no circles and a bound for all jobs.
fn add_rows(plan: &Plan, graph: &CallGraph, within: &str, rows: &mut Vec<Vec<String>>) {
    for job in plan.dialect.outline(plan).jobs {
        let JobOutline { id, needs, steps, calls, legs } = job;
        let key = format!("{within}{id}");
        let needs: Vec<String> = needs.iter().map(|need| format!("{within}{need}")).collect();
        let steps = steps.map_or_else(|| "call".into(), |steps| steps.to_string());
        let legs = legs.map_or_else(|| "?".into(), |legs| legs.to_string());
        rows.push(vec![key.clone(), steps, legs, needs.join(", ")]);
        if let Some(called) = calls.and_then(|uses| graph.called.get(&uses)) {
            add_rows(called, graph, &format!("{key}/"), rows);
        }
    }
}
