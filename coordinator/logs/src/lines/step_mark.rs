//! A line of a log with which a step begins or ends.

use serde::{Deserialize, Serialize};

use super::NumberedLine;

/// Most characters of a step's name.
const LONGEST_NAME: usize = 1000;

/// A line with which a step begins or ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StepMark {
    pub(super) line: u64,
    pub(super) name: String,
    pub(super) step: i32,
    pub(super) time_ms: u64,
    /// Its conclusion and its milliseconds, where it ends.
    pub(super) ended: Option<(String, u64)>,
}

impl StepMark {
    /// The mark that a line is.
    pub(super) fn of(line: NumberedLine) -> Option<Self> {
        let NumberedLine { number, time_ms, step, stream, text, ended, .. } = line;
        let name = || text.chars().take(LONGEST_NAME).collect();
        (stream == "mark").then(|| Self { line: number, name: name(), step, time_ms, ended })
    }
}
