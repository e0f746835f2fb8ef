//! Job-level text and trees to values, with what the run knows.

use serde_json::{Map, Value};
use workflow::{
    expression::{self, CallError, Functions, Limits, Object},
    plan::{self, Leg, Tree},
};

/// What a job-level key may see.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) contexts: Map<String, Value>,
    pub(super) status: Status,
}

/// What the status functions answer for a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Status {
    pub(super) success: bool,
    pub(super) failure: bool,
    pub(super) cancelled: bool,
}

impl Functions for Status {
    fn call(&self, name: &str, _args: &[expression::Value]) -> Option<Result<expression::Value, CallError>> {
        let answer = match name.to_ascii_lowercase().as_str() {
            "always" => true,
            "success" => self.success,
            "failure" => self.failure,
            "cancelled" => self.cancelled,
            _ => return None,
        };
        Some(Ok(expression::Value::Bool(answer)))
    }
}

impl Scope {
    fn with<T>(&self, ask: impl FnOnce(&expression::Scope<'_>) -> Result<T, expression::Error>) -> Result<T, String> {
        let contexts: Object =
            self.contexts.iter().map(|(name, value)| (name.as_str(), expression::Value::from_json(value))).collect();
        let scope = expression::Scope { contexts: &contexts, functions: &self.status, limits: Limits::default() };
        ask(&scope).map_err(|error| error.to_string())
    }
}

/// An `if:`; none means `success()`.
pub(super) fn condition(text: Option<&str>, scope: &Scope) -> Result<bool, String> {
    match text {
        None => Ok(scope.status.success),
        Some(text) => scope.with(|scope| expression::condition(text, scope)),
    }
}

fn value(tree: &Tree, scope: &Scope) -> Result<Value, String> {
    scope.with(|scope| expression::interpolate_tree(tree, scope)).map(|value| value.to_json())
}

/// A boolean, or an expression that gives one.
pub(super) fn flag(tree: Option<&Tree>, missing: bool, scope: &Scope) -> Result<bool, String> {
    let Some(tree) = tree else { return Ok(missing) };
    match value(tree, scope)? {
        Value::Bool(flag) => Ok(flag),
        Value::Null => Ok(missing),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" || text.is_empty() => Ok(false),
        other => Err(format!("expected true or false, found {other}")),
    }
}

/// A positive number, or an expression that gives one.
pub(super) fn number(tree: Option<&Tree>, scope: &Scope) -> Result<Option<f64>, String> {
    let Some(tree) = tree else { return Ok(None) };
    let value = value(tree, scope)?;
    let number = match &value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_f64(),
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match number.filter(|number: &f64| number.is_finite() && *number > 0.0) {
        Some(number) => Ok(Some(number)),
        None => Err(format!("expected a number above 0, found {value}")),
    }
}

/// The combinations of a matrix.
pub(super) fn matrix(tree: &Tree, scope: &Scope) -> Result<Vec<Map<String, Value>>, String> {
    let tree = value(tree, scope)?;
    let mut rows = vec![Map::new()];
    for (name, values) in tree.as_object().into_iter().flatten() {
        let values = values.as_array().cloned().unwrap_or_default();
        rows = rows
            .into_iter()
            .flat_map(|row| values.iter().map(move |v| { let mut row = row.clone(); row.insert(name.clone(), v.clone()); row }).collect::<Vec<_>>())
            .collect();
    }
    Ok(rows)
}

/// The display name of a leg.
pub(super) fn name(id: &str, job: &plan::Job, _leg: &Leg, _scope: &Scope) -> Result<String, String> {
    Ok(job.name.clone().unwrap_or_else(|| id.to_owned()))
}

/// `runs-on`: a label, a list, or `{group, labels}`.
pub(super) fn labels(tree: &Tree, scope: &Scope) -> Result<Vec<String>, String> {
    match value(tree, scope)? {
        Value::String(label) => Ok(vec![label]),
        Value::Array(labels) => Ok(labels.iter().filter_map(|l| l.as_str().map(str::to_owned)).collect()),
        other => Err(format!("expected a label or a list of labels, found {other}")),
    }
}
