//! Names of variables that no shell can read, and jobs without anything to do.

use std::collections::HashSet;

use crate::github::report::Report;
use crate::yaml::YamlNode;

use super::walk::{jobs, listed, steps};

pub(super) fn check(root: &YamlNode, report: &mut Report<'_>) {
    variables(root.get("env"), report);
    for (id, job) in jobs(root) {
        variables(job.get("env"), report);
        variables(job.get("container").and_then(|container| container.get("env")), report);
        for (_, service) in job.get("services").map(YamlNode::entries).unwrap_or_default() {
            variables(service.get("env"), report);
        }
        for step in steps(job) {
            variables(step.get("env"), report);
            if let Some(run) = step.get("run").filter(|run| run.text().is_some_and(|text| text.trim().is_empty())) {
                report.warning(run.span, "the script is empty: the step does nothing");
            }
        }
        repeated_needs(job, report);
        let is_call = job.get("uses").is_some() || job.get("with").is_some() || job.get("secrets").is_some();
        let nothing = job.get("steps").is_none_or(|steps| steps.items().is_empty());
        if !job.entries().is_empty() && !is_call && nothing {
            let name = id.text().unwrap_or_default();
            report.warning(id.span, format!("the job `{name}` has no steps: it does nothing"));
        }
    }
}

fn repeated_needs(job: &YamlNode, report: &mut Report<'_>) {
    let mut seen = HashSet::new();
    for need in listed(job.get("needs")) {
        let Some(text) = need.text().filter(|text| !text.is_empty()) else { continue };
        if !seen.insert(text.to_lowercase()) {
            report.warning(need.span, format!("`needs` names the job `{text}` twice"));
        }
    }
}

/// What `export` and `$NAME` can't name.
fn variables(env: Option<&YamlNode>, report: &mut Report<'_>) {
    for (name, _) in env.map(YamlNode::entries).unwrap_or_default() {
        let Some(text) = name.text().filter(|text| !text.contains("${{")) else { continue };
        if let Some(sign) = text.chars().find(|sign| matches!(sign, '=' | '&') || sign.is_whitespace()) {
            let sign = if sign.is_whitespace() { "a space".to_owned() } else { format!("`{sign}`") };
            let message = format!("`{text}` can't be the name of a variable: it has {sign} in it");
            let help = "letters, digits and `_` make names that every shell can read".to_owned();
            report.warning_with(name.span, message, Some(help));
        }
    }
}
