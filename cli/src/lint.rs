//! `longshore lint`: what is wrong in workflow files, and where.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::Context;
use serde_json::json;
use workflow::{
    diagnostic::{self, Colour, Diagnostic},
    github,
};

/// Check workflow files
///
/// Every mistake is shown with its line and column, and what to do about it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workflow files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// One JSON array of messages
    #[arg(long, conflicts_with = "short")]
    json: bool,
    /// One line for each message: file:line:column: error: text
    #[arg(long)]
    short: bool,
}

/// Exit code: 0 where every file can be used, 2 else.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    for path in &args.files {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let (_, diagnostics) = github::parse(&path.display().to_string(), &text);
        if args.short {
            diagnostics.iter().for_each(|message| println!("{message}"));
        } else if !args.json {
            print!("{}", diagnostic::render(&diagnostics, &text, colour()));
        }
        all.extend(diagnostics);
    }
    if args.json {
        println!("{}", serde_json::Value::from_iter(all.iter().map(as_json)));
    }
    Ok(if diagnostic::has_errors(&all) { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// Colours where somebody looks.
pub(crate) fn colour() -> Colour {
    let wanted = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if wanted { Colour::Ansi } else { Colour::Plain }
}

/// A message as `--json` prints it.
pub(crate) fn as_json(message: &Diagnostic) -> serde_json::Value {
    json!({
        "severity": message.severity.as_str(),
        "message": message.message,
        "help": message.help,
        "file": message.file,
        "line": message.span.line,
        "column": message.span.column,
    })
}
