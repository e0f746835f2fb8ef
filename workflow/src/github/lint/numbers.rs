//! Times and counts that allow nothing to run.

use serde_json::Value as Json;

use crate::github::report::Report;
use crate::yaml::YamlNode;

use super::walk::{jobs, steps};

pub(super) fn check(root: &YamlNode, report: &mut Report<'_>) {
    for (_, job) in jobs(root) {
        for key in ["timeout-minutes", "cancel-timeout-minutes"] {
            above_zero(key, job.get(key), report);
        }
        let parallel = job.get("strategy").and_then(|strategy| strategy.get("max-parallel"));
        above_zero("max-parallel", parallel, report);
        if let Some((node, number)) = number(parallel).filter(|(_, number)| number.fract() != 0.0) {
            report.warning(node.span, format!("`max-parallel` counts jobs, and {number} is no whole number"));
        }
        steps(job).for_each(|step| above_zero("timeout-minutes", step.get("timeout-minutes"), report));
    }
}

fn number(node: Option<&YamlNode>) -> Option<(&YamlNode, f64)> {
    let node = node?;
    match node.to_json() {
        Json::Number(number) => Some((node, number.as_f64()?)),
        _ => None,
    }
}

fn above_zero(key: &str, node: Option<&YamlNode>, report: &mut Report<'_>) {
    if let Some((node, number)) = number(node).filter(|(_, number)| *number <= 0.0) {
        let help = "leave it out for GitHub's default".to_owned();
        report.warning_with(node.span, format!("`{key}` must be more than zero, not {number}"), Some(help));
    }
}
