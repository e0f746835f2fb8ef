//! Conditions that say the same whatever happens.

use crate::expression::{self, EvaluationLimits, NoHostFunctions, Object, Scope};
use crate::github::report::Report;
use crate::yaml::YamlNode;

use super::walk::{jobs, steps};

pub(super) fn check(root: &YamlNode, report: &mut Report<'_>) {
    for (_, job) in jobs(root) {
        let snapshot = job.get("snapshot");
        let of_steps = steps(job).filter_map(|step| step.get("if"));
        for condition in job.get("if").into_iter().chain(snapshot.and_then(|node| node.get("if"))).chain(of_steps) {
            self::condition(condition, report);
        }
    }
}

/// GitHub docs, "Evaluate expressions in workflows and actions": text around `${{ }}` makes text of the whole, and text
/// that is not empty is true.
fn condition(node: &YamlNode, report: &mut Report<'_>) {
    let Some(text) = node.text().filter(|text| !text.trim().is_empty()) else { return };
    let expressions = expression::expressions(text);
    if text.contains("${{") {
        let alone = text.starts_with("${{") && text.ends_with("}}") && expressions.len() == 1;
        if !alone && !expressions.is_empty() {
            let help = if text.trim() == text {
                "put the whole condition between one `${{` and `}}`, or write it without them"
            } else {
                "leave `${{` and `}}` out: the line break after them is text that counts"
            };
            let message = "this condition always holds: there is text beside `${{ }}`";
            return report.warning_with(node.span, message, Some(help.to_owned()));
        }
    }
    if let Some(value) = constant(text) {
        let message = format!("this condition is always {value}");
        let help = if value { "leave it out" } else { "leave out what never runs, or make it a comment" };
        report.warning_with(node.span, message, Some(help.to_owned()));
    }
}

/// The value of a condition that names no context and no function of the run.
fn constant(text: &str) -> Option<bool> {
    let inner = text.trim();
    let inner = inner.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}")).unwrap_or(inner);
    let parsed = expression::parse(inner).ok()?;
    let contexts = Object::new();
    let scope = Scope { contexts: &contexts, functions: &NoHostFunctions, limits: EvaluationLimits::default() };
    if !parsed.contexts().is_empty() {
        return None;
    }
    Some(parsed.evaluate(&scope).ok()?.truthy())
}
