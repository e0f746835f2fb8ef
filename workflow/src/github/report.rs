//! Collects what is wrong with one file.

use crate::diagnostic::{self, Diagnostic, Severity};
use crate::expression;
use crate::yaml::{Span, YamlNode};

/// More messages than this help nobody, and each holds memory.
const MAX: usize = 200;

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

    pub(super) fn warning(&mut self, span: Span, message: impl Into<String>) {
        self.push(Severity::Warning, span, message.into(), None);
    }

    /// Advice about a place within a text.
    pub(super) fn advice(&mut self, node: &YamlNode, position: usize, message: String, help: String) {
        self.push(Severity::Advice, self.place(node, position), message, Some(help));
    }

    /// A mistake in an expression, placed inside the text that holds it where that text stands in the file as it is.
    pub(super) fn expression(&mut self, node: &YamlNode, error: &expression::ExpressionError) {
        self.error(self.place(node, error.position), error.message.clone());
    }

    fn place(&self, node: &YamlNode, position: usize) -> Span {
        let text = node.text().unwrap_or_default();
        let written = self.source.get(node.span.offset..).unwrap_or_default();
        let quote = usize::from(!written.starts_with(text));
        let before = text.get(..position).unwrap_or_default();
        let verbatim = written.get(quote..).is_some_and(|rest| rest.starts_with(text));
        if !verbatim || before.contains('\n') {
            return node.span;
        }
        let skipped = quote + before.len();
        Span {
            line: node.span.line,
            column: node.span.column + quote + before.chars().count(),
            offset: node.span.offset + skipped,
            length: node.span.length.saturating_sub(skipped + quote),
        }
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
