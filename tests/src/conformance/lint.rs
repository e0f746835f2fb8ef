//! The folder `lint`: workflows with mistakes, the lines that another linter names in them, and workflows without any.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::Deserialize;

use super::{CaseResult, Outcome, Selection};
use crate::harness::process::binary;

#[derive(Debug, Deserialize)]
struct Finding {
    file: PathBuf,
    line: usize,
    severity: String,
    message: String,
}

/// Files without a mistake: an error is a failure, a warning is none.
#[must_use]
pub fn good_files(root: &Path, selection: &Selection) -> Vec<CaseResult> {
    let mut results = Vec::new();
    for file in yaml(&root.join("lint/ok")) {
        let id = format!("lint/ok/{}", stem(&file));
        if selection.takes(&id) {
            let outcome = match good(&file) {
                Ok(()) => Outcome::Passed,
                Err(error) => Outcome::Failed(format!("{error:#}")),
            };
            results.push(CaseResult { id, outcome });
        }
    }
    results
}

fn good(file: &Path) -> Result<()> {
    match linted(file)?.iter().find(|finding| finding.severity == "error") {
        Some(finding) => bail!("refused: {}: {}", finding.line, finding.message),
        None => Ok(()),
    }
}

/// How many of the lines with mistakes have a finding; those that have none, and those that only we name, come first.
#[must_use]
pub fn lines(root: &Path, selection: &Selection) -> String {
    let (mut found, mut all, mut ours, mut report) = (0, 0, 0, String::new());
    for file in ["err", "examples"].iter().flat_map(|folder| yaml(&root.join("lint").join(folder))) {
        let id = format!("lint/{}", stem(&file));
        let wanted = expected(&file.with_extension("out"));
        if wanted.is_empty() || !selection.takes(&id) {
            continue;
        }
        let own: BTreeMap<usize, String> =
            linted(&file).unwrap_or_default().into_iter().map(|finding| (finding.line, finding.message)).collect();
        all += wanted.len();
        found += wanted.iter().filter(|line| own.contains_key(line)).count();
        for line in wanted.iter().filter(|line| !own.contains_key(line)) {
            report.push_str(&format!("lint-missing {id}:{line}\n"));
        }
        for (line, message) in own.iter().filter(|(line, _)| !wanted.contains(line)) {
            ours += 1;
            report.push_str(&format!("lint-only-ours {id}:{line}: {message}\n"));
        }
    }
    let refused = good_files(root, selection).iter().filter(|case| case.outcome != Outcome::Passed).count();
    format!("{report}lint: {found} of {all} lines found, {ours} lines only ours, {refused} good files refused")
}

/// Lines of the findings in an `.out`, without those of programs that it asks about scripts.
fn expected(file: &Path) -> BTreeSet<usize> {
    static FINDING: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^/?\^?test\\?\.yaml:(\d+):\d+: ").ok());
    static OF_SCRIPTS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\[(shellcheck|pyflakes)\\?\]").ok());
    let text = fs::read_to_string(file).unwrap_or_default();
    let of_scripts = |line: &&str| OF_SCRIPTS.as_ref().is_some_and(|pattern| pattern.is_match(line));
    let number = |line: &str| FINDING.as_ref()?.captures(line)?.get(1)?.as_str().parse().ok();
    text.lines().filter(|line| !of_scripts(line)).filter_map(number).collect()
}

fn linted(file: &Path) -> Result<Vec<Finding>> {
    let output = Command::new(binary("longshore")?).args(["lint", "--json"]).arg(file).output()?;
    let found: Vec<Finding> = serde_json::from_slice(&output.stdout).context("`lint --json` printed no list")?;
    Ok(found.into_iter().filter(|finding| finding.file == file).collect())
}

fn yaml(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    files
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
