//! `longshore lint`: what is wrong in workflow files, with line and column.

use std::{collections::HashSet, io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use workflow::{
    diagnostic::{Colour, Diagnostic, has_errors},
    dialect::workflow_folders,
};

use crate::{
    terminal::printable::printable,
    workflow_files::{LocalWorkflow, workflows},
};

/// Check workflow files: errors with line and column, and what to do about them
///
/// Called workflows of the same checkout are read too, and callers held against them: inputs, secrets, permissions.
/// Those of other repositories are not fetched; a warning says so.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workflow files, or folders: a checkout, or one of workflows
    #[arg(required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// One line for each finding: FILE:LINE:COLUMN: LEVEL: MESSAGE
    #[arg(long)]
    short: bool,
    /// Print JSON: one list of findings
    #[arg(long, conflicts_with = "short")]
    json: bool,
}

/// Exit code 0 where no file has an error, else 1.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) async fn run(args: &Args) -> Result<ExitCode> {
    let colour = if std::io::stdout().is_terminal() { Colour::Ansi } else { Colour::Plain };
    let mut failed = false;
    let mut all = Vec::new();
    // A file that several call is complained of once.
    let mut said = HashSet::new();
    let files = files(&args.files)?;
    for file in &files {
        let read = LocalWorkflow::read(file).await?;
        failed |= has_errors(&read.findings);
        let new: Vec<&Diagnostic> = read.findings.iter().filter(|finding| said.insert(finding.to_string())).collect();
        if args.json {
            all.extend(new.into_iter().map(json_of));
        } else if args.short {
            new.iter().for_each(|finding| println!("{}", printable(&finding.to_string())));
        } else if !new.is_empty() {
            println!("{}", read.rendered(colour, |finding| new.contains(&finding)));
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all).context("the findings have no JSON form")?);
    } else if said.is_empty() {
        let workflows = if files.len() == 1 { "workflow" } else { "workflows" };
        eprintln!("{} {workflows}, no findings", files.len());
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Those that are named, and those of the folders that are.
fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let found: Vec<PathBuf> = if workflow_folders().iter().any(|folder| path.ends_with(folder)) {
            workflows(path)
        } else {
            workflow_folders().into_iter().flat_map(|folder| workflows(&path.join(folder))).collect()
        };
        ensure!(
            !found.is_empty(),
            "{}: no workflow files there, nor in its {}",
            path.display(),
            workflow_folders().join(", ")
        );
        files.extend(found);
    }
    Ok(files)
}

fn json_of(finding: &Diagnostic) -> Value {
    json!({
        "file": finding.file,
        "line": finding.span.line,
        "column": finding.span.column,
        "severity": finding.severity.as_str(),
        "message": finding.message,
        "help": finding.help,
    })
}
