//! The steps of one job: their ids, their actions, and what waits for which.

use std::collections::{HashMap, HashSet};

use super::{identifier, is_remote, listed};
use crate::{
    github::{report::Report, workflow_ref::self_reference},
    yaml::{YamlNode, YamlValue},
};

/// Reports what contradicts itself in the steps of a job.
pub(super) fn check(steps: &[YamlNode], report: &mut Report<'_>) {
    let all: HashSet<&str> = steps.iter().flat_map(members).filter_map(id).collect();
    let mut ids: HashMap<String, usize> = HashMap::new();
    // By id, whether it runs in the background.
    let mut before: HashMap<&str, bool> = HashMap::new();
    for entry in steps {
        targets(entry, &before, &all, report);
        let group = entry.get("parallel");
        for step in members(entry) {
            if let Some((node, text)) = step.get("id").and_then(|node| Some((node, node.text()?))) {
                identifier(text, node.span, report);
                if let Some(line) = ids.insert(text.to_lowercase(), node.span.line) {
                    let help = format!("the first one is in line {line}; case makes no difference");
                    report.error_with_help(node.span, format!("another step of this job has the id `{text}`"), help);
                }
            }
            if let Some(uses) = step.get("uses") {
                action(uses, report);
            }
            if let Some(first) = step.entries().iter().map(|(key, _)| key).find(|key| is_work(key))
                && step.get("run").is_some()
                && step.get("uses").is_some()
            {
                let help = "put the other one into a step of its own";
                report.error_with_help(first.span, "a step has either `run` or `uses`, not both", help);
            }
            let background = step.get("background");
            if let (Some(background), true) = (background, group.is_some()) {
                let help = "leave it out: every step of a `parallel` group runs in the background";
                report.error_with_help(background.span, "`background` can't stand in a `parallel` group", help);
            }
            let runs_beside = group.is_some() || background.is_some_and(|node| node.to_json() == true);
            before.extend(id(step).map(|id| (id, runs_beside)));
        }
    }
}

/// The steps of a `parallel` group, or the step itself.
fn members(entry: &YamlNode) -> &[YamlNode] {
    match entry.get("parallel") {
        Some(YamlNode { value: YamlValue::Sequence(items), .. }) => items,
        _ => std::slice::from_ref(entry),
    }
}

fn is_work(key: &YamlNode) -> bool {
    matches!(key.text(), Some("run" | "uses"))
}

fn id(step: &YamlNode) -> Option<&str> {
    step.get("id")?.text()
}

/// GitHub docs, workflow syntax: `jobs.<job_id>.steps[*].wait`, `.wait-all` and `.cancel`.
fn targets(entry: &YamlNode, before: &HashMap<&str, bool>, all: &HashSet<&str>, report: &mut Report<'_>) {
    if let Some(all) = entry.get("wait-all").filter(|node| node.to_json() == false) {
        let help = "leave the step out where nothing is to be waited for";
        report.error_with_help(all.span, "`wait-all` takes nothing, or `true`", help);
    }
    for (key, verb) in [("wait", "wait for"), ("cancel", "cancel")] {
        for target in listed(entry.get(key)) {
            let Some(text) = target.text().filter(|text| !text.is_empty()) else { continue };
            match before.get(text) {
                Some(true) => {}
                Some(false) => {
                    report.warning(target.span, format!("`{text}` does not run in the background: it ended before"));
                }
                None if text.starts_with("__") => {
                    report.error(target.span, format!("the id `{text}` is reserved: it begins with `__`"));
                }
                None if id(entry).is_some_and(|own| own.eq_ignore_ascii_case(text)) => {
                    report.error(target.span, format!("the step `{text}` can't {verb} itself"));
                }
                None if all.contains(text) => {
                    let help = "put this step behind it";
                    let message = format!("the step `{text}` comes later: nothing can {verb} it here");
                    report.error_with_help(target.span, message, help);
                }
                None => {
                    let message = format!("`{key}` names the step `{text}`, which is not in this job");
                    let help = "name the `id` of a step before this one that has `background: true`";
                    report.error_with_help(target.span, message, help);
                }
            }
        }
    }
}

/// GitHub docs, workflow syntax: `jobs.<job_id>.steps[*].uses`.
fn action(uses: &YamlNode, report: &mut Report<'_>) {
    let Some(text) = uses.text().filter(|text| !text.is_empty()) else {
        return;
    };
    if text.starts_with("$/") {
        if let Err(why) = self_reference(text) {
            report.error(uses.span, why);
        }
        return;
    }
    let local = text.starts_with("./") || text.starts_with(".\\");
    if local || text.starts_with("docker://") || is_remote(text) {
        return;
    }
    let help = match text.split('/').count() {
        2.. if !text.contains('@') && !text.starts_with('.') => format!("add a version: `{text}@v1`, or a commit"),
        2.. if text.starts_with('.') => format!("a folder of this repository begins with `./`: `./{text}`"),
        _ => "write `owner/repository[/path]@ref`, `$/path`, `./path` or `docker://image`".to_owned(),
    };
    report.error_with_help(uses.span, format!("`{text}` names no action"), help);
}
