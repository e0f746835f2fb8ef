//! The `manifest.json` of a folder.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{CaseResult, Outcome, Selection};

#[derive(Debug, Deserialize)]
struct Manifest {
    cases: Vec<serde_json::Value>,
}

/// Judges the selected cases of a folder. A folder that is not there has none; a manifest or a case that can't be read
/// is a failed case.
pub(super) fn judge<C: DeserializeOwned>(
    folder: &Path,
    selection: &Selection,
    takes: impl Fn(&C) -> bool,
    judge: impl Fn(&Path, &C) -> Result<()>,
) -> Vec<CaseResult> {
    if !folder.is_dir() {
        return Vec::new();
    }
    let failed = |id: String, error: &anyhow::Error| CaseResult { id, outcome: Outcome::Failed(format!("{error:#}")) };
    let manifest = match read(folder) {
        Ok(manifest) => manifest,
        Err(error) => return vec![failed(folder.display().to_string(), &error)],
    };
    let mut results = Vec::new();
    for case in manifest.cases {
        let id = case.get("id").and_then(serde_json::Value::as_str).unwrap_or("?").to_owned();
        if !selection.takes(&id) {
            continue;
        }
        match serde_json::from_value::<C>(case).context("the manifest's entry has another form") {
            Ok(case) if !takes(&case) => {}
            Ok(case) => results.push(match judge(folder, &case) {
                Ok(()) => CaseResult { id, outcome: Outcome::Passed },
                Err(error) => failed(id, &error),
            }),
            Err(error) => results.push(failed(id, &error)),
        }
    }
    results
}

fn read(folder: &Path) -> Result<Manifest> {
    let path = folder.join("manifest.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no manifest", path.display()))
}
