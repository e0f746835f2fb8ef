//! Walks a tree and computes its value.

use std::cmp::Ordering;
use std::sync::Arc;

use super::ast::{Callee, Node, Operator};
use super::compare;
use super::limits::Meter;
use super::parser::Fault;
use super::{CallError, Error, ErrorKind, Scope, Value};

/// The value of `root` in `scope`; `text` is what it was parsed from.
pub(super) fn evaluate(root: &Node, text: &str, scope: &Scope<'_>, meter: &mut Meter) -> Result<Value, Error> {
    check_names(root, text, scope)?;
    Evaluator { text, scope, meter }.node(root).map(|found| found.value)
}

/// GitHub refuses unknown contexts even where `&&` or `||` would never look at them.
pub(super) fn check_names(root: &Node, text: &str, scope: &Scope<'_>) -> Result<(), Error> {
    let mut unknown = None;
    root.visit(&mut |node| {
        if let Node::Context { name, at } = node
            && unknown.is_none()
            && scope.contexts.get(name).is_none()
        {
            unknown = Some(Fault::UnrecognizedContext.error(ErrorKind::Parsing, text, name, *at));
        }
    });
    unknown.map_or(Ok(()), Err)
}

/// A value, and whether it came out of `*`: an index on such an array goes to each of its elements.
pub(super) struct Found {
    pub(super) value: Value,
    filtered: bool,
}

impl Found {
    fn filtered(items: Vec<Value>) -> Self {
        Self { value: items.into(), filtered: true }
    }
}

impl<V: Into<Value>> From<V> for Found {
    fn from(value: V) -> Self {
        Self { value: value.into(), filtered: false }
    }
}

pub(super) struct Evaluator<'e> {
    text: &'e str,
    scope: &'e Scope<'e>,
    pub(super) meter: &'e mut Meter,
}

impl Evaluator<'_> {
    /// Recursion is bounded by the depth the parser allows.
    pub(super) fn node(&mut self, node: &Node) -> Result<Found, Error> {
        self.meter.steps(1)?;
        match node {
            Node::Literal(value) => Ok(value.clone().into()),
            Node::Wildcard => Ok(Found::from("*")),
            Node::Context { name, .. } => Ok(self.scope.contexts.get(name).cloned().unwrap_or_default().into()),
            Node::Call { callee: Callee::Builtin(builtin), args, at, .. } => {
                builtin.call(args, self).map_err(|error| placed(error, *at))
            }
            Node::Call { name, callee: Callee::Host, args, at } => self.host_call(name, args, *at),
            Node::Index(target, index) => self.index(target, index),
            Node::Not(node) => Ok(Found::from(!self.node(node)?.value.truthy())),
            Node::Compare(operator, left, right) => self.compare(*operator, left, right),
            Node::All(nodes) => self.first(nodes, |value| !value.truthy()),
            Node::Any(nodes) => self.first(nodes, Value::truthy),
        }
    }

    /// Counts the reading of a value's text.
    pub(super) fn look(&mut self, value: &Value) -> Result<(), Error> {
        match value {
            Value::String(text) => self.meter.read(text.len()),
            _ => Ok(()),
        }
    }

    /// The first value that decides, or else the last.
    fn first(&mut self, nodes: &[Node], decides: impl Fn(&Value) -> bool) -> Result<Found, Error> {
        let mut found = Found::from(Value::Null);
        for node in nodes {
            found = self.node(node)?;
            if decides(&found.value) {
                break;
            }
        }
        Ok(found)
    }

    fn compare(&mut self, operator: Operator, left: &Node, right: &Node) -> Result<Found, Error> {
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

    fn host_call(&mut self, name: &str, args: &[Node], at: usize) -> Result<Found, Error> {
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(self.node(arg)?.value);
        }
        match self.scope.functions.call(name, &values) {
            Some(Ok(value)) => {
                self.look(&value)?;
                Ok(value.into())
            }
            Some(Err(CallError::Failed(message))) => Err(Error::new(ErrorKind::Evaluation, message, at)),
            Some(Err(CallError::Pending)) => {
                Err(Error::new(ErrorKind::Pending, format!("the answer of {name} is not known yet"), at))
            }
            None => Err(Fault::UnrecognizedFunction.error(ErrorKind::Parsing, self.text, name, at)),
        }
    }

    fn index(&mut self, target: &Node, index: &Node) -> Result<Found, Error> {
        let target = self.node(target)?;
        let index = match index {
            Node::Wildcard => Index::All,
            node => {
                let value = self.node(node)?.value;
                self.look(&value)?;
                Index::One(value)
            }
        };
        match (target, index) {
            (Found { value: Value::Array(items), filtered: true }, index) => self.filter(&items, &index),
            (Found { value, .. }, Index::All) => {
                let mut all = Vec::new();
                self.collect(&value, &mut all)?;
                Ok(Found::filtered(all))
            }
            (Found { value, .. }, Index::One(index)) => Ok(member(&value, &index).cloned().unwrap_or_default().into()),
        }
    }

    /// Applies `index` to each collection among `items`; what has no such member is left out.
    fn filter(&mut self, items: &Arc<Vec<Value>>, index: &Index) -> Result<Found, Error> {
        let mut found = Vec::new();
        for item in items.iter() {
            self.meter.steps(1)?;
            match index {
                Index::All => self.collect(item, &mut found)?,
                Index::One(index) => {
                    self.look(index)?;
                    if let Some(value) = member(item, index) {
                        self.meter.elements(1)?;
                        found.push(value.clone());
                    }
                }
            }
        }
        Ok(Found::filtered(found))
    }

    /// Adds the members of a collection to `all`; a primitive has none.
    fn collect(&mut self, value: &Value, all: &mut Vec<Value>) -> Result<(), Error> {
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
fn placed(mut error: Error, at: usize) -> Error {
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

/// What `value[index]` is: objects go by the index as text, arrays by the index as a number, rounded down.
fn member<'v>(value: &'v Value, index: &Value) -> Option<&'v Value> {
    match value {
        Value::Object(object) if index.is_primitive() => object.get(&index.as_text()),
        Value::Array(items) => {
            let number = index.to_number().floor();
            if !(0.0..=f64::from(i32::MAX)).contains(&number) {
                return None;
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, as just tested")]
            items.get(number as usize)
        }
        _ => None,
    }
}
