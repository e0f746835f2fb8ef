//! What is wrong in a file, where, and what to do about it.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

pub use crate::yaml::Span;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The file can't be used.
    Error,
    /// The file can be used; something in it has no effect, or another than it seems.
    Warning,
}

/// One message about one place of one file. Its [`Display`](fmt::Display) is the one-line form
/// `file:line:column: error: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: one line.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Path of the file.
    pub file: String,
    /// Where it is.
    pub span: Span,
}

/// Whether a terminal shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// ANSI colours.
    Ansi,
    /// Text alone.
    Plain,
}

impl Severity {
    /// The word in front of a message.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, span, severity, message, .. } = self;
        write!(out, "{file}:{}:{}: {}: {message}", span.line, span.column, severity.as_str())
    }
}

/// Whether any of them says that the file can't be used.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
}

/// The messages with the lines of `source` they are about.
pub fn render(diagnostics: &[Diagnostic], source: &str, colour: Colour) -> String {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let renderer = match colour {
        Colour::Ansi => Renderer::styled(),
        Colour::Plain => Renderer::plain(),
    };
    let mut text = String::new();
    for diagnostic in diagnostics {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let start = floor(source, diagnostic.span.offset);
        let end = first_line_end(source, start, diagnostic.span.length);
        let snippet =
            Snippet::source(source).path(diagnostic.file.as_str()).annotation(AnnotationKind::Primary.span(start..end));
        let mut group: Group<'_> = level.primary_title(diagnostic.message.as_str()).element(snippet);
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        text.push_str(&renderer.render(&[group]));
        text.push('\n');
    }
    text
}

fn floor(source: &str, offset: usize) -> usize {
    let offset = offset.min(source.len());
    (0..=offset).rev().find(|index| source.is_char_boundary(*index)).unwrap_or(0)
}

/// A label under several lines hides more than it shows: it ends with the first.
fn first_line_end(source: &str, start: usize, length: usize) -> usize {
    let end = floor(source, start.saturating_add(length));
    let shown = source.get(start..end).unwrap_or_default();
    start + shown.split(['\n', '\r']).next().unwrap_or_default().trim_end().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(line: usize, column: usize, offset: usize, length: usize) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            message: "unknown key `stepz`".into(),
            help: Some("did you mean `steps`?".into()),
            file: "ci.yml".into(),
            span: Span { line, column, offset, length },
        }
    }

    #[test]
    fn one_line_form_is_what_editors_jump_to() {
        assert_eq!(sample(2, 3, 9, 5).to_string(), "ci.yml:2:3: error: unknown key `stepz`");
    }

    #[test]
    fn rendered_form_shows_the_line() {
        insta::assert_snapshot!(render(&[sample(2, 3, 9, 5)], "build:\n  stepz: []\n", Colour::Plain), @"
        error: unknown key `stepz`
         --> ci.yml:2:3
          |
        2 |   stepz: []
          |   ^^^^^
          |
          = help: did you mean `steps`?
        ");
    }

    #[test]
    fn places_outside_the_source_are_harmless() {
        for (offset, length) in [(0, 0), (1, 1), (500, 3), (2, 900)] {
            assert!(render(&[sample(1, 1, offset, length)], "ä\nö", Colour::Ansi).contains("stepz"));
            assert!(render(&[sample(1, 1, offset, length)], "", Colour::Plain).contains("stepz"));
        }
    }
}
