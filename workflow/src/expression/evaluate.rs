//! Walks a tree and computes its value.

use std::cmp::Ordering;
use std::sync::Arc;

use super::ast::{Callee, ExpressionNode, Operator};
use super::compare;
use super::evaluated::{Evaluate, Evaluated};
use super::limits::Meter;
use super::syntax_fault::SyntaxFault;
use super::{ExpressionError, ExpressionErrorKind, HostFunctionError, Scope, Value, functions};

/// The value of `root` in `scope`; `text` is what it was parsed from.
pub(super) fn evaluate(
    root: &ExpressionNode,
    text: &str,
    scope: &Scope<'_>,
    meter: &mut Meter,
) -> Result<Value, ExpressionError> {
    check_names(root, text, scope)?;
    Evaluator { text, scope, meter }.node(root).map(|found| found.value)
}

/// GitHub refuses unknown contexts even where `&&` or `||` would never look at them.
pub(super) fn check_names(root: &ExpressionNode, text: &str, scope: &Scope<'_>) -> Result<(), ExpressionError> {
    let mut unknown = None;
    root.visit(&mut |node| {
        if let ExpressionNode::Context { name, at } = node
            && unknown.is_none()
            && scope.contexts.get(name).is_none()
        {
            unknown = Some(SyntaxFault::UnrecognizedContext.error(ExpressionErrorKind::Parsing, text, name, *at));
        }
    });
    unknown.map_or(Ok(()), Err)
}

struct Evaluator<'e> {
    text: &'e str,
    scope: &'e Scope<'e>,
    meter: &'e mut Meter,
}

impl Evaluate for Evaluator<'_> {
    /// Recursion is bounded by the depth the parser allows.
    fn node(&mut self, node: &ExpressionNode) -> Result<Evaluated, ExpressionError> {
        self.meter.steps(1)?;
        match node {
            ExpressionNode::Literal(value) => Ok(value.clone().into()),
            ExpressionNode::Wildcard => Ok(Evaluated::from("*")),
            ExpressionNode::Context { name, .. } => {
                Ok(self.scope.contexts.get(name).cloned().unwrap_or_default().into())
            }
            ExpressionNode::Call { callee: Callee::Builtin(builtin), args, at, .. } => {
                functions::call(*builtin, args, self).map_err(|error| placed(error, *at))
            }
            ExpressionNode::Call { name, callee: Callee::Host, args, at } => self.host_call(name, args, *at),
            ExpressionNode::Index { target, key, .. } => self.index(target, key),
            ExpressionNode::Not(node) => Ok(Evaluated::from(!self.node(node)?.value.truthy())),
            ExpressionNode::Compare(operator, left, right) => self.compare(*operator, left, right),
            ExpressionNode::All(nodes) => self.first(nodes, |value| !value.truthy()),
            ExpressionNode::Any(nodes) => self.first(nodes, Value::truthy),
        }
    }

    fn meter(&mut self) -> &mut Meter {
        self.meter
    }
}

impl Evaluator<'_> {
    /// The first value that decides, or else the last.
    fn first(
        &mut self,
        nodes: &[ExpressionNode],
        decides: impl Fn(&Value) -> bool,
    ) -> Result<Evaluated, ExpressionError> {
        let mut found = Evaluated::from(Value::Null);
        for node in nodes {
            found = self.node(node)?;
            if decides(&found.value) {
                break;
            }
        }
        Ok(found)
    }

    fn compare(
        &mut self,
        operator: Operator,
        left: &ExpressionNode,
        right: &ExpressionNode,
    ) -> Result<Evaluated, ExpressionError> {
        let left = self.node(left)?.value;
        let right = self.node(right)?.value;
        self.look(&left)?;
        self.look(&right)?;
        let equal = || compare::equal(&left, &right);
        let is = |wanted: Ordering| compare::order(&left, &right) == Some(wanted);
        let truth = match operator {
            Operator::Equal => equal(),
            Operator::NotEqual => !equal(),
            Operator::Less => is(Ordering::Less),
            Operator::LessOrEqual => equal() || is(Ordering::Less),
            Operator::Greater => is(Ordering::Greater),
            Operator::GreaterOrEqual => equal() || is(Ordering::Greater),
            Operator::Not | Operator::And | Operator::Or => false,
        };
        Ok(truth.into())
    }

    fn host_call(&mut self, name: &str, args: &[ExpressionNode], at: usize) -> Result<Evaluated, ExpressionError> {
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(self.node(arg)?.value);
        }
        match self.scope.functions.call(name, &values) {
            Some(Ok(value)) => {
                self.look(&value)?;
                Ok(value.into())
            }
            Some(Err(HostFunctionError::Failed(message))) => {
                Err(ExpressionError::new(ExpressionErrorKind::Evaluation, message, at))
            }
            Some(Err(HostFunctionError::Pending)) => Err(ExpressionError::new(
                ExpressionErrorKind::Pending,
                format!("the answer of {name} is not known yet"),
                at,
            )),
            None => Err(SyntaxFault::UnrecognizedFunction.error(ExpressionErrorKind::Parsing, self.text, name, at)),
        }
    }

    fn index(&mut self, target: &ExpressionNode, index: &ExpressionNode) -> Result<Evaluated, ExpressionError> {
        let target = self.node(target)?;
        let index = match index {
            ExpressionNode::Wildcard => Index::All,
            node => {
                let value = self.node(node)?.value;
                self.look(&value)?;
                Index::One(value)
            }
        };
        match (target, index) {
            (Evaluated { value: Value::Array(items), filtered: true }, index) => self.filter(&items, &index),
            (Evaluated { value, .. }, Index::All) => {
                let mut all = Vec::new();
                self.collect(&value, &mut all)?;
                Ok(Evaluated::filtered(all))
            }
            (Evaluated { value, .. }, Index::One(index)) => {
                Ok(value.member(&index).cloned().unwrap_or_default().into())
            }
        }
    }

    /// Applies `index` to each collection among `items`; what has no such member is left out.
    fn filter(&mut self, items: &Arc<Vec<Value>>, index: &Index) -> Result<Evaluated, ExpressionError> {
        let mut found = Vec::new();
        for item in items.iter() {
            self.meter.steps(1)?;
            match index {
                Index::All => self.collect(item, &mut found)?,
                Index::One(index) => {
                    self.look(index)?;
                    if let Some(value) = item.member(index) {
                        self.meter.elements(1)?;
                        found.push(value.clone());
                    }
                }
            }
        }
        Ok(Evaluated::filtered(found))
    }

    /// Adds the members of a collection to `all`; a primitive has none.
    fn collect(&mut self, value: &Value, all: &mut Vec<Value>) -> Result<(), ExpressionError> {
        match value {
            Value::Array(items) => {
                self.meter.elements(items.len())?;
                all.extend(items.iter().cloned());
            }
            Value::Object(object) => {
                self.meter.elements(object.len())?;
                all.extend(object.iter().map(|(_, value)| value.clone()));
            }
            _ => {}
        }
        Ok(())
    }
}

/// A function doesn't know where its call stands. Nothing inside a call stands at 0, so 0 means it is not placed yet.
fn placed(mut error: ExpressionError, at: usize) -> ExpressionError {
    if error.position == 0 {
        error.position = at;
    }
    error
}

enum Index {
    /// `*`
    All,
    One(Value),
}
