//! `longshore lint`: what is wrong in workflow files, with line and column.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use workflow::diagnostic::{Colour, has_errors, render};

/// Check workflow files: errors with line and column, and what to do about them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workflow files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// One line for each finding: FILE:LINE:COLUMN: LEVEL: MESSAGE
    #[arg(long)]
    short: bool,
}

/// Exit code 0 where no file has an error, else 1.
#[allow(clippy::print_stdout)]
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let colour = if std::io::stdout().is_terminal() { Colour::Ansi } else { Colour::Plain };
    let mut failed = false;
    for file in &args.files {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let (_, findings) = workflow::github::parse(&file.to_string_lossy(), &text);
        failed |= has_errors(&findings);
        if args.short {
            findings.iter().for_each(|finding| println!("{finding}"));
        } else if !findings.is_empty() {
            println!("{}", render(&findings, &text, colour));
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
