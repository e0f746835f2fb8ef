//! GitHub Actions workflow files: reading, checking, planning.
//!
//! [`parse`] holds a file against the [`schema`] ([`check`]), then against the [`rules`] no shape can express, and
//! [`build`]s the plan; [`lint`] says what else an author should know. [`call_graph`] does so for a file and every workflow it calls. The other modules answer what
//! [`dialect`](crate::dialect) asks about a plan: how a run of it begins ([`run_start`]), and what becomes of its jobs
//! ([`instances`], [`call`]).

mod build;
pub(crate) mod call;
pub mod call_graph;
mod check;
pub(crate) mod command;
pub(crate) mod contexts;
mod display_name;
mod event_payload;
pub(crate) mod instances;
mod job;
mod labels;
pub(crate) mod lint;
pub mod matrix;
pub(crate) mod named_secrets;
mod normalize;
pub(crate) mod outline;
pub mod permissions;
mod report;
mod rules;
pub(crate) mod run_start;
mod schema;
pub(crate) mod trigger_filter;
pub(crate) mod trigger_payload;
pub(crate) mod workflow_dispatch;
pub mod workflow_ref;

use crate::diagnostic::Diagnostic;
use crate::plan::Plan;
use crate::yaml::{self, MergeKeys, YamlLimits, YamlNode};

use report::Report;

pub use run_start::ORIGIN;
pub(crate) use schema::EVENTS;

/// The secret that every job has: its own token (GitHub docs, "`GITHUB_TOKEN`").
pub const TOKEN_SECRET: &str = "GITHUB_TOKEN";

/// GitHub's own depth limit for a workflow file.
pub const LIMITS: YamlLimits = YamlLimits { bytes: 1 << 20, depth: 50, nodes: 200_000 };

/// Reads and checks a workflow file. The plan is there where no diagnostic is an error; `path` is the file's path in
/// the repository.
pub fn parse(path: &str, text: &str) -> (Option<Plan>, Vec<Diagnostic>) {
    parse_within(path, text, LIMITS)
}

/// As [`parse`], within other limits.
pub fn parse_within(path: &str, text: &str, limits: YamlLimits) -> (Option<Plan>, Vec<Diagnostic>) {
    let (_, plan, diagnostics) = read(path, text, limits);
    (plan, diagnostics)
}

/// As [`parse_within`], with the tree the plan was made of.
fn read(path: &str, text: &str, limits: YamlLimits) -> (Option<YamlNode>, Option<Plan>, Vec<Diagnostic>) {
    let mut stream = yaml::read(text, limits, MergeKeys::Keep);
    let mut report = Report::new(path, text);
    for problem in std::mem::take(&mut stream.problems) {
        let help = advice_on_yaml(&problem.message, text, problem.span);
        report.error_with(problem.span, problem.message, help);
    }
    let root = match stream.documents.as_mut_slice() {
        [root] => {
            normalize::normalize(root, &mut report);
            &*root
        }
        [_, second, ..] => {
            report.error(second.span, "a workflow file holds one YAML document");
            return (None, None, report.finish());
        }
        [] => {
            if !report.has_errors() {
                report.error(yaml::Span { line: 1, column: 1, ..yaml::Span::default() }, "the file is empty");
            }
            return (None, None, report.finish());
        }
    };
    check::check(root, &mut report);
    rules::check(root, &mut report);
    let plan = (!report.has_errors()).then(|| build::plan(path, root));
    (stream.documents.pop(), plan, report.finish())
}

/// What most often makes a text no YAML.
fn advice_on_yaml(message: &str, text: &str, span: yaml::Span) -> Option<String> {
    let line = text.lines().nth(span.line.checked_sub(1)?)?;
    if line.chars().take_while(|sign| sign.is_whitespace()).any(|sign| sign == '\t') {
        return Some("the line begins with a tab: YAML is indented by spaces".to_owned());
    }
    if !message.contains("mapping values are not allowed") {
        return None;
    }
    let colons = line.matches(": ").count() + usize::from(line.trim_end().ends_with(':'));
    Some(match colons {
        2.. => "put the value in quotes: it has a `:` in it".to_owned(),
        _ => "begin the line as far right as the keys that it stands beside".to_owned(),
    })
}

#[cfg(test)]
mod tests;
