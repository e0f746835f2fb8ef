//! Labels that no runner has, and sets of labels that none has together: such jobs wait until they are given up.
//!
//! Source: GitHub docs, "Choosing the runner for a job", "GitHub-hosted runners reference" and "Using self-hosted
//! runners in a workflow".

use crate::dialect::surroundings::Surroundings;
use crate::github::report::Report;
use crate::spelling::suggestion;
use crate::yaml::{YamlNode, YamlValue};

use super::walk::{jobs, listed};

/// Images that GitHub hosts.
const HOSTED: [&str; 27] = [
    "ubuntu-latest",
    "ubuntu-26.04",
    "ubuntu-24.04",
    "ubuntu-22.04",
    "ubuntu-slim",
    "ubuntu-26.04-arm",
    "ubuntu-24.04-arm",
    "ubuntu-22.04-arm",
    "windows-latest",
    "windows-2025",
    "windows-2025-vs2026",
    "windows-2022",
    "windows-11-arm",
    "macos-latest",
    "macos-latest-large",
    "macos-latest-xlarge",
    "macos-26",
    "macos-26-intel",
    "macos-26-large",
    "macos-26-xlarge",
    "macos-15",
    "macos-15-intel",
    "macos-15-large",
    "macos-15-xlarge",
    "macos-14",
    "macos-14-large",
    "macos-14-xlarge",
];

/// Labels that every runner of one's own has by itself.
const OWN: [&str; 7] = ["self-hosted", "linux", "windows", "macos", "x64", "arm", "arm64"];

pub(super) fn check(root: &YamlNode, around: &dyn Surroundings, report: &mut Report<'_>) {
    for (_, job) in jobs(root) {
        let Some(runs_on) = job.get("runs-on") else { continue };
        // Who names a group knows its runners.
        if runs_on.get("group").is_some() {
            continue;
        }
        let labels = runs_on.get("labels").unwrap_or(runs_on);
        if matches!(&labels.value, YamlValue::Sequence(items) if items.is_empty()) {
            report.warning(labels.span, "`runs-on` names no label");
        }
        let sets: Vec<Vec<&YamlNode>> = listed(Some(labels)).iter().map(|label| alternatives(label, job)).collect();
        let of_own = sets
            .iter()
            .flatten()
            .any(|label| label.text().is_some_and(|text| text.eq_ignore_ascii_case("self-hosted")));
        for label in sets.iter().flatten() {
            let Some(text) = label.text().filter(|text| !text.is_empty() && !text.contains("${{")) else { continue };
            if !is_known(text, around) && !of_own {
                unknown(label, text, around, report);
            }
        }
        conflicts(&sets, report);
    }
}

/// The labels that one entry of `runs-on` may be: those of the matrix where it names one of its keys.
fn alternatives<'n>(label: &'n YamlNode, job: &'n YamlNode) -> Vec<&'n YamlNode> {
    let Some(key) = label.text().and_then(matrix_key) else { return vec![label] };
    let Some(matrix) = job.get("strategy").and_then(|strategy| strategy.get("matrix")) else { return Vec::new() };
    let find = |cell: &'n YamlNode| {
        cell.entries().iter().find(|(name, _)| name.text().is_some_and(|name| name.eq_ignore_ascii_case(key)))
    };
    let vector = find(matrix).map(|(_, values)| values.items()).unwrap_or_default();
    let included = matrix.get("include").map(YamlNode::items).unwrap_or_default();
    let values = vector.iter().chain(included.iter().filter_map(|cell| Some(&find(cell)?.1)));
    values.flat_map(|value| listed(Some(value))).collect()
}

/// `NAME` of `${{ matrix.NAME }}`.
fn matrix_key(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("${{")?.strip_suffix("}}")?.trim();
    let (context, key) = inner.split_once('.')?;
    let plain = key.chars().all(|sign| sign.is_alphanumeric() || sign == '-' || sign == '_');
    (context.eq_ignore_ascii_case("matrix") && plain).then_some(key)
}

fn is_known(label: &str, around: &dyn Surroundings) -> bool {
    let is = |known: &str| known.eq_ignore_ascii_case(label);
    HOSTED.into_iter().chain(OWN).any(is) || around.worker_labels().iter().any(|known| is(known))
}

fn unknown(node: &YamlNode, label: &str, around: &dyn Surroundings, report: &mut Report<'_>) {
    if let Some(system) = image_of(label) {
        let help = format!("`{system}-latest` is always there");
        return report.warning_with(node.span, format!("GitHub has no runner `{label}` any more"), Some(help));
    }
    let known = HOSTED.into_iter().chain(OWN).chain(around.worker_labels().iter().map(String::as_str));
    let help = suggestion(label, known).unwrap_or_else(|| {
        "a job waits until a worker has it: name the labels of yours with `--label`, or put `self-hosted` beside it"
            .to_owned()
    });
    report.warning_with(node.span, format!("no runner is known to have the label `{label}`"), Some(help));
}

/// The system of a label that is made as those of images are: `ubuntu-20.04`, `windows-2019`, `macos-12`.
fn image_of(label: &str) -> Option<&'static str> {
    let label = label.to_lowercase();
    ["ubuntu", "windows", "macos"].into_iter().find(|system| {
        let version = label.strip_prefix(system).and_then(|rest| rest.strip_prefix('-'));
        version.is_some_and(|version| version.starts_with(|sign: char| sign.is_ascii_digit()))
    })
}

/// The operating system that a label stands for; `None`: it is not one that GitHub gives.
pub(super) fn system(label: &str) -> Option<&'static str> {
    if image_of(label).is_none() && !HOSTED.into_iter().chain(OWN).any(|known| known.eq_ignore_ascii_case(label)) {
        return None;
    }
    let label = label.to_lowercase();
    let named = [("linux", "linux"), ("ubuntu", "linux"), ("windows", "windows"), ("macos", "macos")];
    named.into_iter().find(|(begin, _)| label.starts_with(begin)).map(|(_, system)| system)
}

/// The version of the image, where a label names one.
fn version(label: &str) -> Option<String> {
    let label = label.to_lowercase();
    let version = label.split('-').nth(1).filter(|version| !matches!(*version, "latest" | "slim"))?;
    HOSTED.contains(&label.as_str()).then(|| version.to_owned())
}

/// Whether no runner has both.
fn exclude_each_other(one: &str, other: &str) -> bool {
    let differ = |pair: (Option<String>, Option<String>)| matches!(pair, (Some(one), Some(other)) if one != other);
    let system = |label| system(label).map(str::to_owned);
    differ((system(one), system(other))) || differ((version(one), version(other)))
}

fn conflicts(sets: &[Vec<&YamlNode>], report: &mut Report<'_>) {
    for (at, set) in sets.iter().enumerate() {
        for label in set {
            let Some(text) = label.text() else { continue };
            let apart = |other: &&&YamlNode| other.text().is_some_and(|other| exclude_each_other(text, other));
            // The one that is written out is right, those of a matrix are not.
            let others = sets.iter().enumerate().filter(|(other, set)| match set.len() {
                1 if sets.get(at).is_some_and(|own| own.len() > 1) => *other != at,
                1 => *other < at,
                _ => false,
            });
            if let Some(other) = others.flat_map(|(_, set)| set).find(apart) {
                let (other_text, line) = (other.text().unwrap_or_default(), other.span.line);
                let message = format!("no runner has `{text}` and `{other_text}` (line {line}) at once");
                let help = "a job runs where all labels are found: for a job on each, use a matrix".to_owned();
                report.warning_with(label.span, message, Some(help));
            }
        }
    }
}
