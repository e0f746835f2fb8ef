//! Collects what is wrong with one file.

use std::ops::Range;

use crate::diagnostic::{self, Diagnostic, Severity};
use crate::expression;
use crate::yaml::{Span, YamlNode};

/// More messages than this help nobody, and each holds memory.
const MAX: usize = 200;

/// Signs before each line of a text, and of quotes and escapes in it, within which its parts are looked for.
const MAX_INDENTATION: usize = 200;
const MAX_QUOTING: usize = 1000;

pub(super) struct Report<'a> {
    file: &'a str,
    source: &'a str,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str, source: &'a str) -> Self {
        Self { file, source: source.strip_prefix('\u{feff}').unwrap_or(source), diagnostics: Vec::new() }
    }

    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.push(Severity::Error, span, message.into(), None);
    }

    pub(super) fn error_with_help(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, span, message.into(), Some(help.into()));
    }

    pub(super) fn error_with(&mut self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.push(Severity::Error, span, message.into(), help);
    }

    pub(super) fn warning(&mut self, span: Span, message: impl Into<String>) {
        self.push(Severity::Warning, span, message.into(), None);
    }

    pub(super) fn warning_with(&mut self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.push(Severity::Warning, span, message.into(), help);
    }

    /// A warning about a part of a text.
    pub(super) fn warning_within(
        &mut self,
        node: &YamlNode,
        part: Range<usize>,
        message: String,
        help: Option<String>,
    ) {
        self.push(Severity::Warning, self.place(node, part), message, help);
    }

    /// A mistake in an expression.
    pub(super) fn expression(&mut self, node: &YamlNode, error: &expression::ExpressionError, help: Option<String>) {
        let rest = node.text().and_then(|text| text.get(error.position..)).unwrap_or_default();
        let part = error.position..error.position + expression::word_length(rest);
        self.push(Severity::Error, self.place(node, part), error.message.clone(), help);
    }

    /// Whether more would not be kept.
    pub(super) fn is_full(&self) -> bool {
        self.diagnostics.len() >= MAX
    }

    /// Where a part of a node's text stands in the file. Quotes, folding and indentation lie between the two, so it is
    /// looked for: as the part is the n-th of its kind in the text, so it is in the file.
    fn place(&self, node: &YamlNode, part: Range<usize>) -> Span {
        let text = node.text().unwrap_or_default();
        let written = self.source.get(node.span.offset..).unwrap_or_default();
        let (Some(before), Some(word)) = (text.get(..part.start), text.get(part)) else { return node.span };
        if word.is_empty() {
            return node.span;
        }
        let earlier = before.matches(word).count();
        // A key that stands before the text, or another text after it, is none of its parts.
        let within = written.get(..text.len() + text.matches('\n').count() * MAX_INDENTATION + MAX_QUOTING);
        let Some((skipped, _)) = within.unwrap_or(written).match_indices(word).nth(earlier) else { return node.span };
        let passed = written.get(..skipped).unwrap_or_default();
        let line = passed.rsplit('\n').next().unwrap_or_default().chars().count();
        let breaks = passed.matches('\n').count();
        let column = if breaks == 0 { node.span.column + line } else { line + 1 };
        Span { line: node.span.line + breaks, column, offset: node.span.offset + skipped, length: word.len() }
    }

    fn push(&mut self, severity: Severity, span: Span, message: String, help: Option<String>) {
        let diagnostic = Diagnostic { severity, message, help, file: self.file.to_owned(), span };
        // An anchor's mistakes would come again with each of its aliases.
        if self.diagnostics.len() < MAX && !self.diagnostics.contains(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        diagnostic::has_errors(&self.diagnostics)
    }

    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|diagnostic| (diagnostic.span.line, diagnostic.span.column));
        self.diagnostics
    }
}
