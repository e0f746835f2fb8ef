//! The difference between two texts, line by line. Pure.

use std::time::Duration;

use serde::Serialize;
use similar::{ChangeTag, TextDiff};
use utoipa::ToSchema;

use super::log_text::straight;

/// Unchanged lines shown around a change.
const AROUND: usize = 3;
/// Time after which texts that are hard to compare get a coarser result.
const EFFORT: Duration = Duration::from_millis(200);

/// A line of one text or of both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct DiffLine {
    /// `same`, `added`, `removed`, or `skipped`: lines that did not change are left out here.
    pub(super) change: &'static str,
    pub(super) text: String,
}

impl DiffLine {
    /// CSS class.
    pub(super) fn shown(&self) -> String {
        straight(&self.text)
    }

    /// The sign before it, for readers without colours.
    pub(super) fn sign(&self) -> &'static str {
        match self.change {
            "added" => "+",
            "removed" => "-",
            "skipped" => "…",
            _ => " ",
        }
    }
}

/// The lines that changed, with some around them.
pub(super) fn lines(older: &str, newer: &str) -> Vec<DiffLine> {
    let diff = TextDiff::configure().timeout(EFFORT).diff_lines(older, newer);
    let mut found = Vec::new();
    for (index, group) in diff.grouped_ops(AROUND).iter().enumerate() {
        if index > 0 {
            found.push(DiffLine { change: "skipped", text: String::new() });
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let word = match change.tag() {
                ChangeTag::Equal => "same",
                ChangeTag::Insert => "added",
                ChangeTag::Delete => "removed",
            };
            found.push(DiffLine { change: word, text: change.value().trim_end_matches(['\r', '\n']).to_owned() });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_lines_are_shown_with_some_around_them() {
        let older: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        let newer = older.replace("line 2\n", "line two\n").replace("line 19\n", "");
        let shown: Vec<String> =
            lines(&older, &newer).iter().map(|line| format!("{}{}", line.sign(), line.text)).collect();
        let expected = [
            " line 1",
            "-line 2",
            "+line two",
            " line 3",
            " line 4",
            " line 5",
            "…",
            " line 16",
            " line 17",
            " line 18",
            "-line 19",
            " line 20",
        ];
        assert_eq!(shown, expected);
        assert_eq!(lines("a\n", "a\n"), []);
        let turned = lines("", "run: ./check # \u{202e}exit 0\n");
        assert_eq!(turned[0].shown(), "run: ./check # \u{fffd}exit 0", "nobody is shown another order");
        assert_eq!(lines("", "a").len(), 1);
    }
}
