//! The value of a node, and how functions evaluate their arguments.

use super::ast::ExpressionNode;
use super::limits::Meter;
use super::{ExpressionError, Value};

/// The value of a node. An array that `*` made is marked: an index on it applies to each of its elements.
pub(super) struct Evaluated {
    pub(super) value: Value,
    pub(super) filtered: bool,
}

impl Evaluated {
    pub(super) fn filtered(items: Vec<Value>) -> Self {
        Self { value: items.into(), filtered: true }
    }
}

impl<V: Into<Value>> From<V> for Evaluated {
    fn from(value: V) -> Self {
        Self { value: value.into(), filtered: false }
    }
}

/// Evaluates nodes; what functions see of the evaluator.
pub(super) trait Evaluate {
    /// The value of a node.
    fn node(&mut self, node: &ExpressionNode) -> Result<Evaluated, ExpressionError>;

    /// Counts what the evaluation costs.
    fn meter(&mut self) -> &mut Meter;

    /// Counts the reading of a value's text.
    fn look(&mut self, value: &Value) -> Result<(), ExpressionError> {
        match value {
            Value::String(text) => self.meter().read(text.len()),
            _ => Ok(()),
        }
    }
}
