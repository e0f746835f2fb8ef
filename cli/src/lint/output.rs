//! Findings in the forms that other programs read.

use serde_json::{Value, json};
use workflow::diagnostic::{Diagnostic, Severity};

use crate::terminal::printable::printable;

/// What editors jump to.
pub(super) fn line(finding: &Diagnostic) -> String {
    finding.help.as_ref().map_or_else(|| finding.to_string(), |help| format!("{finding} ({help})"))
}

/// One list.
pub(super) fn json(found: &[Diagnostic]) -> Value {
    found.iter().map(one).collect()
}

fn one(finding: &Diagnostic) -> Value {
    json!({
        "file": finding.file,
        "line": finding.span.line,
        "column": finding.span.column,
        "severity": finding.severity.as_str(),
        "message": finding.message,
        "help": finding.help,
    })
}

/// SARIF 2.1.0 (OASIS standard, sections 3.14 `run`, 3.27 `result` and 3.30 `region`).
pub(super) fn sarif(found: &[Diagnostic]) -> Value {
    let result = |finding: &Diagnostic| {
        json!({
            "level": finding.severity.as_str(),
            "message": {"text": with_help(finding)},
            "locations": [{"physicalLocation": {
                "artifactLocation": {"uri": finding.file.replace('\\', "/")},
                "region": {"startLine": finding.span.line, "startColumn": finding.span.column},
            }}],
        })
    };
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "longshore lint", "version": env!("CARGO_PKG_VERSION")}},
            "columnKind": "unicodeCodePoints",
            "results": found.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

/// `::error file=…::message` (GitHub docs, "Workflow commands").
pub(super) fn command(finding: &Diagnostic) -> String {
    let level = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let file = escaped(&finding.file).replace(':', "%3A").replace(',', "%2C");
    let (line, column) = (finding.span.line, finding.span.column);
    printable(&format!("::{level} file={file},line={line},col={column}::{}", escaped(&with_help(finding))))
}

fn with_help(finding: &Diagnostic) -> String {
    finding.help.as_ref().map_or_else(|| finding.message.clone(), |help| format!("{}: {help}", finding.message))
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use workflow::diagnostic::Span;

    use super::*;

    fn sample() -> Diagnostic {
        Diagnostic {
            severity: Severity::Warning,
            message: "100 % `x`".into(),
            help: Some("did you mean `y`?".into()),
            file: "a,b.yml".into(),
            span: Span { line: 3, column: 7, offset: 0, length: 1 },
        }
    }

    #[test]
    fn a_run_shows_findings_at_their_lines() {
        let expected = "::warning file=a%2Cb.yml,line=3,col=7::100 %25 `x`: did you mean `y`?";
        assert_eq!(command(&sample()), expected);
    }

    #[test]
    fn sarif_names_file_line_and_level() {
        let report = sarif(&[sample()]);
        let result = report.pointer("/runs/0/results/0").cloned().unwrap_or_default();
        assert_eq!(result.pointer("/level"), Some(&json!("warning")));
        assert_eq!(result.pointer("/locations/0/physicalLocation/artifactLocation/uri"), Some(&json!("a,b.yml")));
        let region = json!({"startLine": 3, "startColumn": 7});
        assert_eq!(result.pointer("/locations/0/physicalLocation/region"), Some(&region));
    }
}
