//! What no shape can express: ids, `needs`, references, and keys that depend on each other.

mod containers;
mod matrix;
mod steps;

use std::collections::HashMap;

use crate::spelling::suggestion;
use crate::yaml::{Span, YamlNode, YamlValue};

use super::{report::Report, workflow_ref::self_reference};

/// Jobs of one file. Anchors make thousands of a few lines.
const MAX_JOBS: usize = 1000;

/// Names in the `needs` of all jobs of one file.
const MAX_NEEDS: usize = 10_000;

/// Reports what contradicts itself. It may meet a tree of any shape: what has the wrong one was reported before.
pub(super) fn check(root: &YamlNode, report: &mut Report<'_>) {
    if let Some(on) = root.get("on") {
        triggers(on, report);
    }
    concurrency(root, report);
    let Some(jobs) = root.get("jobs") else { return };
    for (id, job) in jobs.entries() {
        if let Some(text) = id.text() {
            identifier(text, id.span, report);
        }
        self::job(job, report);
    }
    needs(jobs, report);
}

/// GitHub docs, workflow syntax: `jobs.<job_id>`.
fn identifier(id: &str, span: Span, report: &mut Report<'_>) {
    let mut characters = id.chars();
    let starts = characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    let goes_on = characters.all(|next| next.is_ascii_alphanumeric() || next == '_' || next == '-');
    if !starts || !goes_on || id.len() >= 100 {
        let help = "an id begins with a letter or `_`, goes on with letters, digits, `-` and `_`, and has less than \
                    100 characters";
        report.error_with_help(span, format!("`{id}` is no valid id"), help);
    } else if id.starts_with("__") {
        report.error(span, format!("the id `{id}` is reserved: it begins with `__`"));
    }
}

fn needs(jobs: &YamlNode, report: &mut Report<'_>) {
    let entries = jobs.entries();
    if entries.is_empty() && matches!(jobs.value, YamlValue::Mapping(_)) {
        report.error(jobs.span, "a workflow needs at least one job");
    }
    if entries.len() > MAX_JOBS {
        report.error(jobs.span, format!("the workflow has {} jobs: it may have {MAX_JOBS}", entries.len()));
    }
    let index: HashMap<String, usize> =
        entries.iter().enumerate().filter_map(|(at, (id, _))| Some((id.text()?.to_lowercase(), at))).collect();
    let mut edges: Vec<Vec<usize>> = vec![Vec::new(); entries.len()];
    for ((_, job), edges) in entries.iter().zip(&mut edges) {
        for need in listed(job.get("needs")) {
            let Some(text) = need.text().filter(|text| !text.is_empty()) else {
                continue;
            };
            match index.get(&text.to_lowercase()) {
                Some(at) => edges.push(*at),
                None => {
                    let message = format!("`needs` names the job `{text}`, which is not in this file");
                    let ids = entries.iter().filter_map(|(id, _)| id.text());
                    report.error_with(need.span, message, suggestion(text, ids));
                }
            }
        }
    }
    let total: usize = edges.iter().map(Vec::len).sum();
    if total > MAX_NEEDS {
        report.error(jobs.span, format!("the jobs need {total} others in all: they may need {MAX_NEEDS}"));
    }
    if let Some(cycle) = cycle(&edges) {
        let names: Vec<_> = cycle.iter().filter_map(|at| entries.get(*at)?.0.text()).collect();
        let span = cycle.first().and_then(|at| entries.get(*at)).map_or(jobs.span, |(id, _)| id.span);
        report.error(span, format!("these jobs wait for each other: {}", names.join(" → ")));
    }
}

/// A circle among the edges, its first node again at its end. It takes away what waits for nothing until only circles
/// and what waits for them is left, and then follows any edge.
pub(super) fn cycle(edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut left: Vec<usize> = edges.iter().map(Vec::len).collect();
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
    for (from, targets) in edges.iter().enumerate() {
        for target in targets {
            waiting.get_mut(*target)?.push(from);
        }
    }
    let mut free: Vec<usize> = (0..edges.len()).filter(|at| left.get(*at) == Some(&0)).collect();
    while let Some(done) = free.pop() {
        for from in waiting.get(done).into_iter().flatten() {
            if let Some(count) = left.get_mut(*from) {
                *count -= 1;
                if *count == 0 {
                    free.push(*from);
                }
            }
        }
    }
    let stuck = |at: &usize| left.get(*at).is_some_and(|count| *count > 0);
    let mut at = (0..edges.len()).find(|at| stuck(at))?;
    let mut path = Vec::new();
    loop {
        if let Some(start) = path.iter().position(|before| *before == at) {
            path.push(at);
            return Some(path.split_off(start));
        }
        path.push(at);
        at = edges.get(at)?.iter().copied().find(|next| stuck(next))?;
    }
}

/// GitHub docs, workflow syntax: `concurrency`.
fn concurrency(of: &YamlNode, report: &mut Report<'_>) {
    let Some(concurrency) = of.get("concurrency") else { return };
    let cancels = concurrency.get("cancel-in-progress").is_some_and(|node| node.to_json() == true);
    if let (Some(queue), true) = (concurrency.get("queue").filter(|queue| queue.text() == Some("max")), cancels) {
        let help = "leave out one of them: a queue keeps what a cancel would end";
        report.error_with_help(queue.span, "`queue: max` and `cancel-in-progress: true` can't be used together", help);
    }
}

fn job(job: &YamlNode, report: &mut Report<'_>) {
    concurrency(job, report);
    if let Some(matrix) = job.get("strategy").and_then(|strategy| strategy.get("matrix")) {
        matrix::check(matrix, report);
    }
    containers::check(job, report);
    if let Some(group) = job.get("runs-on").and_then(|runs_on| runs_on.get("group")) {
        runner_group(group, report);
    }
    if let Some(uses) = job.get("uses") {
        called_workflow(uses, report);
    }
    steps::check(job.get("steps").map(YamlNode::items).unwrap_or_default(), report);
}

fn runner_group(group: &YamlNode, report: &mut Report<'_>) {
    let Some(text) = group.text().filter(|text| !text.contains("${{")) else {
        return;
    };
    let Some((prefix, name)) = text.split_once('/') else {
        return;
    };
    let known = ["org", "organization", "ent", "enterprise"].contains(&prefix);
    if !known || name.is_empty() || name.contains('/') {
        let help = "name one group: `organization/GROUP`, `enterprise/GROUP`, or the group alone";
        report.error_with_help(group.span, format!("`{text}` is no runner group"), help);
    }
}

/// GitHub docs, workflow syntax: `jobs.<job_id>.uses`.
fn called_workflow(uses: &YamlNode, report: &mut Report<'_>) {
    let Some(text) = uses.text().filter(|text| !text.is_empty()) else {
        return;
    };
    if text.starts_with("./") || text.starts_with("$/") {
        if let Err(why) = self_reference(text) {
            report.error(uses.span, why);
        }
        return;
    }
    if is_remote(text) {
        return;
    }
    let help = "write `$/.github/workflows/FILE` or `owner/repository/.github/workflows/FILE@ref`";
    report.error_with_help(uses.span, format!("`{text}` names no workflow"), help);
}

fn is_remote(text: &str) -> bool {
    let Some((path, reference)) = text.rsplit_once('@') else {
        return false;
    };
    // Beyond GitHub: repositories that are announced on Nostr (NIP-34).
    if path.starts_with("nostr://") || path.starts_with("naddr1") {
        return !reference.is_empty();
    }
    let mut parts = path.split(['/', '\\']);
    let named = |part: Option<&str>| part.is_some_and(|part| !part.is_empty());
    !reference.is_empty() && named(parts.next()) && named(parts.next())
}

fn triggers(on: &YamlNode, report: &mut Report<'_>) {
    for (event, trigger) in on.entries() {
        for (with, without) in [("branches", "branches-ignore"), ("tags", "tags-ignore"), ("paths", "paths-ignore")] {
            let mut both =
                trigger.entries().iter().filter(|(key, _)| key.text().is_some_and(|key| key == with || key == without));
            if let (Some(_), Some((second, _))) = (both.next(), both.next()) {
                let help = format!("use `{with}` alone, with `!` before the patterns to leave out");
                report.error_with_help(second.span, format!("`{with}` and `{without}` can't be used together"), help);
            }
        }
        match event.text() {
            Some("schedule") => {
                trigger.items().iter().filter_map(|item| item.get("cron")).for_each(|node| cron(node, report))
            }
            Some("workflow_dispatch") => {
                for (name, input) in trigger.get("inputs").map(YamlNode::entries).unwrap_or_default() {
                    dispatch_input(name, input, report);
                }
            }
            _ => {}
        }
    }
}

fn cron(cron: &YamlNode, report: &mut Report<'_>) {
    let Some(text) = cron.text().filter(|text| !text.is_empty()) else {
        return;
    };
    if text.split_whitespace().count() != 5 {
        let help = "minute, hour, day of the month, month, day of the week; for example `30 5 * * 1-5`";
        report.error_with_help(cron.span, "a cron line has five fields", help);
    }
}

fn dispatch_input(name: &YamlNode, input: &YamlNode, report: &mut Report<'_>) {
    let kind = input.get("type").and_then(YamlNode::text).unwrap_or("string");
    if kind == "choice" && input.get("options").is_none_or(|options| options.items().is_empty()) {
        report.error(name.span, format!("the choice `{}` has no `options`", name.text().unwrap_or_default()));
    }
    let Some(default) = input.get("default") else {
        return;
    };
    let value = default.to_json();
    let (fits, wanted) = match kind {
        "boolean" => (value.is_boolean(), "a boolean"),
        "number" => (value.is_number(), "a number"),
        _ => (value.is_string() || value.is_null(), "text: put it in quotes"),
    };
    if !fits {
        report.error(default.span, format!("the default of an input of type `{kind}` is {wanted}"));
    }
}

/// One node, or each of a list.
fn listed(node: Option<&YamlNode>) -> &[YamlNode] {
    match node {
        Some(YamlNode { value: YamlValue::Sequence(items), .. }) => items,
        Some(node) => std::slice::from_ref(node),
        None => &[],
    }
}
