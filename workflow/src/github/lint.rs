//! What authors get wrong in a file that GitHub takes: names that are not there, conditions that always hold, labels
//! that nobody has. Each is a warning: the file can be used, and does not do what it seems to say.
//!
//! It is for who writes a file: planning does not ask it. One module for each kind of mistake.

mod action_file;
mod actions;
mod calls;
mod commands;
mod conditions;
mod context_types;
mod credentials;
mod cron;
mod expressions;
mod injection;
mod known_actions;
mod labels;
mod matrix;
mod names;
mod numbers;
mod patterns;
mod shells;
mod triggers;
mod walk;

use std::collections::HashSet;

use crate::diagnostic::{Diagnostic, Severity};
use crate::dialect::surroundings::Surroundings;
use crate::yaml::{self, MergeKeys, Span};

use super::report::Report;

/// Adds to what was found wrong with a file what else its author should know.
pub(crate) fn lint(path: &str, text: &str, found: Vec<Diagnostic>, around: &dyn Surroundings) -> Vec<Diagnostic> {
    let stream = yaml::read(text, super::LIMITS, MergeKeys::Keep);
    let [root] = stream.documents.as_slice() else { return found };
    let mut found = found;
    let tolerated = [calls::not_looked_at(root), shells::constants(root)].concat();
    let mut said = HashSet::new();
    found.retain_mut(|finding| {
        if finding.file != path || !tolerated.contains(&start(finding.span)) {
            return true;
        }
        finding.severity = Severity::Warning;
        // One reference may stand in many jobs.
        said.insert(finding.message.clone())
    });
    let mut report = Report::new(path, text);
    unused_anchors(&stream.unused_anchors, text, &mut report);
    triggers::check(root, &mut report);
    names::check(root, &mut report);
    credentials::check(root, &mut report);
    numbers::check(root, &mut report);
    matrix::check(root, &mut report);
    labels::check(root, around, &mut report);
    shells::check(root, &mut report);
    conditions::check(root, &mut report);
    commands::check(root, &mut report);
    injection::check(root, &mut report);
    actions::check(root, around, &mut report);
    calls::check(root, around, &mut report);
    let mut more = report.finish();
    let mut report = Report::new(path, text);
    expressions::check(root, around, &mut report);
    more.extend(report.finish());
    // What is wrong in a line already is not said in other words.
    let errors: Vec<usize> = found
        .iter()
        .filter(|finding| finding.file == path && finding.severity == Severity::Error)
        .map(|finding| finding.span.line)
        .collect();
    let places: Vec<_> = found.iter().map(|finding| (finding.file.clone(), start(finding.span))).collect();
    more.retain(|finding| {
        !said.contains(&finding.message)
            && !errors.contains(&finding.span.line)
            && !places.contains(&(finding.file.clone(), start(finding.span)))
    });
    found.extend(more);
    found.sort_by(|left, right| {
        let key = |finding: &Diagnostic| (finding.file != path, finding.span.line, finding.span.column);
        key(left).cmp(&key(right))
    });
    found
}

/// Line and column.
fn start(span: Span) -> (usize, usize) {
    (span.line, span.column)
}

/// An anchor stands before its value, maybe on a line before.
fn unused_anchors(unused: &[Span], source: &str, report: &mut Report<'_>) {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    for node in unused {
        let before = source.get(..node.offset).unwrap_or_default();
        let begins_here = source.get(node.offset..).is_some_and(|rest| rest.starts_with('&'));
        let Some(offset) = (if begins_here { Some(node.offset) } else { before.rfind('&') }) else { continue };
        let written = source.get(offset..).unwrap_or_default();
        let name = written.split([' ', '\n', '\r', '\t', ',', ']', '}']).next().unwrap_or_default();
        let line = source.get(..offset).unwrap_or_default();
        let span = Span {
            line: line.matches('\n').count() + 1,
            column: line.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
            offset,
            length: name.len(),
        };
        let message = format!("the anchor `{name}` is used nowhere");
        report.warning_with(span, message, Some("leave it out, or name it with `*`".to_owned()));
    }
}

#[cfg(test)]
mod tests;
