//! The files that a process leaves values in for its job: where they lie, and what their texts mean.

use workflow::plan::Annotation;

use super::files::{self, CommandFile, CommandFileError};
use crate::dialect::{step_dialect::StepFile, step_values::StepValues};

/// Variables and what the files behind them are called.
const FILES: [(&str, &str); 5] = [
    ("GITHUB_ENV", "set_env"),
    ("GITHUB_OUTPUT", "set_output"),
    ("GITHUB_STATE", "save_state"),
    ("GITHUB_PATH", "add_path"),
    (SUMMARY, "step_summary"),
];
const SUMMARY: &str = "GITHUB_STEP_SUMMARY";

/// The command files of one process.
pub(super) fn of_process(temp: &str, number: &str) -> Vec<StepFile> {
    let file = |(variable, kind)| StepFile {
        variable,
        path: command_file(temp, kind, number),
        is_summary: variable == SUMMARY,
    };
    FILES.into_iter().map(file).collect()
}

/// Where a command file of a process lies.
pub(super) fn command_file(temp: &str, kind: &str, number: &str) -> String {
    format!("{temp}/_runner_file_commands/{kind}_{number}")
}

/// Reads a file after its process.
pub(super) fn read(file: &StepFile, text: &str) -> Result<StepValues, CommandFileError> {
    let mut values = StepValues::default();
    match file.variable {
        "GITHUB_ENV" => {
            let found = files::parse(CommandFile::Env, text)?;
            values.env = found.set;
            values.annotations = found.refused.iter().map(|name| refusal(name)).collect();
        }
        "GITHUB_OUTPUT" => values.outputs = files::parse(CommandFile::Output, text)?.set,
        "GITHUB_STATE" => values.state = files::parse(CommandFile::State, text)?.set,
        "GITHUB_PATH" => values.paths = files::paths(text),
        _ => text.clone_into(&mut values.summary),
    }
    Ok(values)
}

fn refusal(name: &str) -> Annotation {
    let message = format!("{name} cannot be set by GITHUB_ENV: it would run code in every later step");
    Annotation { level: "error".into(), message, ..Annotation::default() }
}
