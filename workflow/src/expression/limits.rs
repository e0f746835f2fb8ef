//! What an expression may cost, and the meter that counts it.

use super::{ExpressionError, ExpressionErrorKind, total};

/// The longest expression, in UTF-16 units, as GitHub counts.
pub(super) const MAX_LENGTH: usize = 21_000;
/// The deepest tree of operators and calls, as on GitHub.
pub(super) const MAX_DEPTH: usize = 50;

/// How many bytes of text count as one step: comparing and copying are work too.
const BYTES_PER_STEP: usize = 64;
/// What every value costs beside its contents, as GitHub counts it.
const VALUE_BYTES: usize = 26;

/// What one evaluation may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluationLimits {
    /// Bytes of all values made on the way, two for each character of text. 10 MB by default, as on GitHub.
    pub memory: usize,
    /// Nodes evaluated, elements visited and blocks of 64 bytes read. One million by default, well below a second.
    pub steps: usize,
}

impl Default for EvaluationLimits {
    fn default() -> Self {
        Self { memory: 10 * 1024 * 1024, steps: 1_000_000 }
    }
}

/// Counts one evaluation down.
#[derive(Debug)]
pub(super) struct Meter {
    limits: EvaluationLimits,
    memory: usize,
    steps: usize,
}

impl Meter {
    pub(super) fn new(limits: EvaluationLimits) -> Self {
        Self { limits, memory: limits.memory, steps: limits.steps }
    }

    /// `count` nodes or elements are about to be looked at.
    pub(super) fn steps(&mut self, count: usize) -> Result<(), ExpressionError> {
        self.steps = self.steps.checked_sub(count).ok_or_else(|| {
            let message = format!(
                "The maximum of {} evaluation steps was exceeded: compare and search smaller values, or do it in a script",
                self.limits.steps
            );
            ExpressionError::new(ExpressionErrorKind::Limit, message, 0)
        })?;
        total::take(count)
    }

    /// Text of `bytes` bytes is about to be read.
    pub(super) fn read(&mut self, bytes: usize) -> Result<(), ExpressionError> {
        self.steps(bytes / BYTES_PER_STEP)
    }

    /// Text of `bytes` bytes is about to be added to a value.
    pub(super) fn text(&mut self, bytes: usize) -> Result<(), ExpressionError> {
        self.read(bytes)?;
        self.memory(bytes.saturating_mul(2))
    }

    /// A value is about to be made, its text not counted.
    pub(super) fn value(&mut self) -> Result<(), ExpressionError> {
        self.memory(VALUE_BYTES)
    }

    /// `count` elements are about to be added to a collection.
    pub(super) fn elements(&mut self, count: usize) -> Result<(), ExpressionError> {
        self.steps(count)?;
        self.memory(count.saturating_mul(VALUE_BYTES))
    }

    fn memory(&mut self, bytes: usize) -> Result<(), ExpressionError> {
        self.memory = self.memory.checked_sub(bytes).ok_or_else(|| {
            let message = "The maximum allowed memory size was exceeded: make smaller values, or make them in a script";
            ExpressionError::new(ExpressionErrorKind::Limit, message, 0)
        })?;
        Ok(())
    }
}
