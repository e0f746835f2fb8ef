//! `longshore lint`: what is wrong in workflow files, with line and column.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use workflow::diagnostic::{Colour, Diagnostic, has_errors, render};

/// Check workflow files: errors with line and column, and what to do about them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workflow files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// One line for each finding: FILE:LINE:COLUMN: LEVEL: MESSAGE
    #[arg(long)]
    short: bool,
    /// Print JSON: one list of findings
    #[arg(long, conflicts_with = "short")]
    json: bool,
}

/// Exit code 0 where no file has an error, else 1.
#[allow(clippy::print_stdout)]
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let colour = if std::io::stdout().is_terminal() { Colour::Ansi } else { Colour::Plain };
    let mut failed = false;
    let mut all = Vec::new();
    for file in &args.files {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let (_, findings) = workflow::github::parse(&file.to_string_lossy(), &text);
        failed |= has_errors(&findings);
        if args.json {
            all.extend(findings.iter().map(json_of));
        } else if args.short {
            findings.iter().for_each(|finding| println!("{finding}"));
        } else if !findings.is_empty() {
            println!("{}", render(&findings, &text, colour));
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all).context("the findings have no JSON form")?);
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
