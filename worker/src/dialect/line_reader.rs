//! What a language reads in the output of one process, line by line.

use super::step_values::StepValues;
use crate::log::mask::Masker;

/// Longest line that is put together again where parts of it were shown before its end, in bytes.
pub(crate) const LONGEST_REJOINED: usize = 16 * 1024;

/// Reads the lines of one process.
pub(crate) trait LineReader: Send {
    /// Whether every line must be read; else those are passed over that hold nothing for it.
    fn reads_all(&self) -> bool;

    /// Whether several whole lines hold nothing to read. Cheap: it may be wrong in saying no.
    fn skips(&self, lines: &[u8]) -> bool;

    /// Whether a line holds nothing to read.
    fn skips_line(&self, line: &[u8]) -> bool;

    /// Whether a line that begins so is to be read, so that nothing of it is shown before its end.
    fn may_begin(&self, start: &[u8]) -> bool;

    /// Reads a line, given without its end. Lines that are shown in its place; `None`: the line itself.
    fn line(&mut self, line: &str, masker: &Masker) -> Option<String>;

    /// Reads a line of which parts were shown before its end.
    fn shown_line(&mut self, line: &str);

    /// Nothing more of the process's output may be shown.
    fn withholds(&self) -> bool;

    /// A file of the machine that must be read before the next line.
    fn wanted_file(&self) -> Option<&str>;

    /// Takes the file's content, or why there is none. Lines that are shown.
    fn take_file(&mut self, content: Result<&[u8], String>) -> Option<String>;

    /// The process ended: what it said.
    fn finish(self: Box<Self>) -> StepValues;
}
