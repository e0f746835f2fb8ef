//! The folder `commands`: files that steps write, command lines they print, and what is masked.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use indexmap::IndexMap;
use serde::{Deserialize, de::DeserializeOwned};
use worker::{
    github::{
        commands,
        files::{self, CommandFile},
    },
    log::mask::Masker,
};

use super::{CaseResult, Outcome, Selection};

#[derive(Deserialize)]
struct File {
    id: String,
    kind: FileKind,
    content: String,
    expect: FileExpect,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileKind {
    Env,
    Output,
    State,
}

#[derive(Deserialize)]
struct FileExpect {
    set: Option<IndexMap<String, String>>,
    error: Option<String>,
    #[serde(default)]
    refused: Vec<String>,
}

#[derive(Deserialize)]
struct Line {
    id: String,
    line: String,
    commands: Vec<String>,
    expect: Option<LineExpect>,
}

#[derive(Deserialize)]
struct LineExpect {
    command: String,
    properties: IndexMap<String, String>,
    data: String,
}

#[derive(Deserialize)]
struct Masking {
    id: String,
    secrets: Vec<String>,
    text: String,
    expect: String,
}

/// Runs the selected cases. A table that can't be read is one failed case.
#[must_use]
pub fn run(root: &Path, selection: &Selection) -> Vec<CaseResult> {
    let folder = root.join("commands");
    let mut results = Vec::new();
    table(&folder, "file-commands", selection, &mut results, |case: &File| (&case.id, file(case)));
    table(&folder, "command-lines", selection, &mut results, |case: &Line| (&case.id, line(case)));
    table(&folder, "masking", selection, &mut results, |case: &Masking| (&case.id, masking(case)));
    results
}

fn table<C: DeserializeOwned>(
    folder: &Path,
    name: &str,
    selection: &Selection,
    results: &mut Vec<CaseResult>,
    judge: impl Fn(&C) -> (&String, Outcome),
) {
    let path = folder.join(name).with_extension("json");
    if !path.exists() {
        return;
    }
    match read::<C>(&path) {
        Ok(cases) => results.extend(cases.iter().filter_map(|case| {
            let (id, outcome) = judge(case);
            let id = format!("commands/{name}/{id}");
            selection.takes(&id).then_some(CaseResult { id, outcome })
        })),
        Err(error) => {
            results.push(CaseResult { id: format!("commands/{name}"), outcome: Outcome::Failed(format!("{error:#}")) });
        }
    }
}

fn read<C: DeserializeOwned>(path: &Path) -> Result<Vec<C>> {
    let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no table of cases", path.display()))
}

fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Outcome {
    if found == expected { Outcome::Passed } else { Outcome::Failed(format!("{found:?}, expected {expected:?}")) }
}

fn file(case: &File) -> Outcome {
    let kind = match case.kind {
        FileKind::Env => CommandFile::Env,
        FileKind::Output => CommandFile::Output,
        FileKind::State => CommandFile::State,
    };
    match (files::parse(kind, &case.content), &case.expect.error) {
        (Err(error), Some(part)) if error.to_string().contains(part.as_str()) => Outcome::Passed,
        (Err(error), _) => Outcome::Failed(error.to_string()),
        (Ok(values), Some(part)) => Outcome::Failed(format!("{:?}, expected the error {part}", values.set)),
        (Ok(values), None) => {
            let expected = (case.expect.set.clone().unwrap_or_default(), case.expect.refused.clone());
            same(&(values.set, values.refused), &expected)
        }
    }
}

fn line(case: &Line) -> Outcome {
    let found = commands::parse(&case.line, &case.commands);
    let expected = case.expect.as_ref().map(|expect| commands::WorkflowCommand {
        name: expect.command.clone(),
        properties: expect.properties.clone(),
        data: expect.data.clone(),
    });
    same(&found, &expected)
}

fn masking(case: &Masking) -> Outcome {
    let masker = Masker::default();
    masker.add_all(case.secrets.iter().map(String::as_str));
    same(&masker.text(&case.text), &case.expect)
}
