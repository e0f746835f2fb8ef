//! The folder `validity`: files that must be taken and files that must be refused.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use workflow::github;

use super::{CaseResult, Selection, manifest};

#[derive(Debug, Deserialize)]
struct Case {
    dialect: String,
    #[serde(default)]
    file: String,
    valid: bool,
    why: Option<String>,
}

/// Runs the GitHub files.
#[must_use]
pub fn github(root: &Path, selection: &Selection) -> Vec<CaseResult> {
    manifest::judge(&root.join("validity"), selection, |case: &Case| case.dialect == "github", judge)
}

fn judge(folder: &Path, case: &Case) -> Result<()> {
    let text = fs::read_to_string(folder.join(&case.file)).with_context(|| format!("{} can't be read", case.file))?;
    let (plan, diagnostics) = github::parse(&case.file, &text);
    match (plan, case.valid) {
        (Some(_), false) => bail!("taken, must be refused: {}", case.why.as_deref().unwrap_or_default()),
        (None, true) => bail!("refused: {}", diagnostics.first().map(ToString::to_string).unwrap_or_default()),
        _ => Ok(()),
    }
}
