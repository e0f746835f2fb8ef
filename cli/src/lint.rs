//! `longshore lint`: what is wrong in workflow files, with line and column.

mod output;

use std::{collections::HashSet, io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::{Result, ensure};
use workflow::{
    diagnostic::{Colour, Diagnostic, Severity, has_errors},
    dialect::workflow_folders,
};

use crate::{
    terminal::printable::printable,
    workflow_files::{LocalWorkflow, workflows},
};

/// Check workflow files: errors and likely mistakes with line and column, and what to do about them
///
/// An error refuses the file. A warning is about a file that runs and does not do what it seems to say: names that are
/// not there, inputs that an action does not take, labels that no runner has, text of outsiders in scripts.
///
/// Called workflows and actions of the same checkout are read too, and callers held against them: inputs, secrets,
/// outputs, permissions. Nothing is fetched; a warning says so. Of other actions those are known that many use, and those
/// that `exec` fetched at a commit that `uses` or the lock file names.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workflow files, or folders: a checkout, one of workflows, or any that has YAML files
    #[arg(default_value = ".", value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// A label that your workers have besides GitHub's; may be given more than once
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Form {
    /// One line for each finding: FILE:LINE:COLUMN: LEVEL: MESSAGE (HELP)
    #[arg(long)]
    short: bool,
    /// Print JSON: one list of findings
    #[arg(long)]
    json: bool,
    /// Print SARIF 2.1.0, which code hosts and editors read
    #[arg(long)]
    sarif: bool,
    /// Print workflow commands, which a run shows as annotations at their lines
    #[arg(long)]
    github: bool,
}

/// Exit code 0 where no file has an error, else 1.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) async fn run(args: &Args) -> Result<ExitCode> {
    let colour = if std::io::stdout().is_terminal() { Colour::Ansi } else { Colour::Plain };
    let mut all: Vec<Diagnostic> = Vec::new();
    // A file that several call is complained of once.
    let mut said = HashSet::new();
    let files = files(&args.files)?;
    let Form { short, json, sarif, github } = args.form;
    for file in &files {
        let read = LocalWorkflow::lint(file, &args.labels).await?;
        let new: Vec<&Diagnostic> = read.findings.iter().filter(|finding| said.insert(finding.to_string())).collect();
        if short {
            new.iter().for_each(|finding| println!("{}", printable(&output::line(finding))));
        } else if github {
            new.iter().for_each(|finding| println!("{}", output::command(finding)));
        } else if !json && !sarif && !new.is_empty() {
            println!("{}", read.rendered(colour, |finding| new.contains(&finding)));
        }
        all.extend(new.into_iter().cloned());
    }
    if json {
        println!("{:#}", output::json(&all));
    } else if sarif {
        println!("{:#}", output::sarif(&all));
    } else {
        eprintln!("{}", summary(files.len(), &all));
    }
    Ok(if has_errors(&all) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// How many findings there are, in how many files.
fn summary(files: usize, found: &[Diagnostic]) -> String {
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    if found.is_empty() {
        return format!("{}, no findings", counted(files, "workflow"));
    }
    let errors = found.iter().filter(|finding| finding.severity == Severity::Error).count();
    let with: HashSet<&str> = found.iter().map(|finding| finding.file.as_str()).collect();
    let counts = [(errors, "error"), (found.len() - errors, "warning")];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| counted(count, what));
    let counts = counts.collect::<Vec<_>>().join(" and ");
    if files == 1 { counts } else { format!("{counts} in {} of {}", with.len(), counted(files, "workflow")) }
}

/// Those that are named, and those of the folders that are.
fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let below = workflow_folders().into_iter().flat_map(|folder| workflows(&path.join(folder)));
        let mut found: Vec<PathBuf> = below.collect();
        if found.is_empty() {
            found = workflows(path);
        }
        ensure!(
            !found.is_empty(),
            "{}: no workflow files there, nor in its {}",
            path.display(),
            workflow_folders().join(", ")
        );
        // `.` is how nobody writes a file.
        files.extend(found.into_iter().map(|file| file.strip_prefix(".").map(PathBuf::from).unwrap_or(file)));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use workflow::diagnostic::Span;

    use super::*;

    #[test]
    fn findings_are_counted_at_the_end() {
        let finding = |severity, file: &str| Diagnostic {
            severity,
            message: "m".into(),
            help: None,
            file: file.into(),
            span: Span::default(),
        };
        let (error, warning) = (finding(Severity::Error, "a"), finding(Severity::Warning, "b"));
        for (files, found, expected) in [
            (1, vec![], "1 workflow, no findings"),
            (3, vec![], "3 workflows, no findings"),
            (1, vec![error.clone()], "1 error"),
            (4, vec![error, warning.clone(), warning], "1 error and 2 warnings in 2 of 4 workflows"),
        ] {
            assert_eq!(summary(files, &found), expected);
        }
    }
}
