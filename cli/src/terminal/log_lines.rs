//! A log as every command prints it: `JOB | LINE`, with the signs of the tree for steps. Pure.

use console::Style;
use logs::line_text::{LineKind, classified, step_name};

use super::{
    printable::printable,
    tree::{StatusMark, duration},
};

/// The line with which a step begins.
pub(crate) fn step_begins(mark: &str) -> String {
    format!("▸ {}", Style::new().bold().apply_to(printable(step_name(mark))))
}

/// The line with which a step ends.
pub(crate) fn step_ends(mark: &str, conclusion: &str, duration_ms: u64) -> String {
    let time = Style::new().dim().apply_to(duration(duration_ms));
    format!("{} {} {time}", StatusMark::of(conclusion).shown(), printable(step_name(mark)))
}

/// A line that the worker itself says; `None`: it has nothing to show.
pub(crate) fn notice(text: &str) -> Option<String> {
    match classified(text) {
        (LineKind::Output, text) => Some(format!("· {}", printable(text))),
        _ => output(text),
    }
}

/// A line of output; `None`: it has nothing to show.
pub(crate) fn output(text: &str) -> Option<String> {
    let (kind, text) = classified(text);
    let text = printable(text);
    let headed = |style: Style, head: &str| format!("{} {text}", style.bold().apply_to(head));
    Some(match kind {
        LineKind::Output => text,
        LineKind::Error => headed(Style::new().red(), "Error:"),
        LineKind::Warning => headed(Style::new().yellow(), "Warning:"),
        LineKind::Notice => headed(Style::new().cyan(), "Notice:"),
        LineKind::Debug => headed(Style::new().dim(), "Debug:"),
        LineKind::Command => headed(Style::new().dim(), "$"),
        LineKind::Group => headed(Style::new(), "▾"),
        LineKind::EndGroup => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_lines_have_one_form_in_every_command() {
        let plain = |text: String| console::strip_ansi_codes(&text).into_owned();
        let lines = [
            Some(step_begins("Main Run tests")),
            output("##[group]Set up"),
            output("##[command]git fetch"),
            output("##[endgroup]"),
            output("\u{1b}[31mred\u{1b}[0m \u{1b}[2J"),
            output("##[warning]take care"),
            output("##[error]it broke"),
            notice("the image was pulled"),
            notice("##[error]Process completed with exit code 1."),
            Some(step_ends("Main Run tests", "failure", 61_000)),
            Some(step_ends("Post Run x", "skipped", 0)),
        ];
        let lines: Vec<String> = lines.into_iter().flatten().map(plain).collect();
        assert_eq!(
            lines,
            [
                "▸ Run tests",
                "▾ Set up",
                "$ git fetch",
                "red ",
                "Warning: take care",
                "Error: it broke",
                "· the image was pulled",
                "Error: Process completed with exit code 1.",
                "✗ Run tests 1 min 1 s",
                "– Post Run x 0.0 s",
            ]
        );
    }
}
