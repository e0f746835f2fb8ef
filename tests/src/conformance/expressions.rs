//! The folder `expressions`: tables of an expression, its contexts, and the value or the error.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use indexmap::IndexMap;
use serde::Deserialize;
use workflow::expression::{EvaluationLimits, ExpressionError, NoHostFunctions, Object, Scope, Value, parse_known};

use super::{CaseResult, Outcome, Selection, Tally};

/// The tables' case about memory expects the 1 MB at which GitHub's evaluator stops when it is told nothing else; its
/// service tells it 10 MB.
const TABLE_MEMORY: usize = 1024 * 1024;

#[derive(Debug, Deserialize)]
struct Case {
    expr: String,
    #[serde(default)]
    contexts: serde_json::Map<String, serde_json::Value>,
    result: Option<Expected>,
    err: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Expected {
    kind: String,
    value: serde_json::Value,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    value: String,
}

/// Runs the selected cases. A table that can't be read is one failed case.
#[must_use]
pub fn run(root: &Path, selection: &Selection) -> Vec<CaseResult> {
    let mut results = Vec::new();
    each_case(root, selection, |id, case| {
        let outcome = match case {
            Ok(case) => judge(case),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        results.push(CaseResult { id, outcome });
    });
    results
}

/// Of the cases that want a refusal, how many are refused in GitHub's words.
#[must_use]
pub fn messages(root: &Path, selection: &Selection) -> String {
    let mut tally = Tally::default();
    each_case(root, selection, |_, case| {
        let Ok(case) = case else { return };
        let Some(refusal) = &case.err else { return };
        let same = evaluate(case).is_err_and(|error| error.message.contains(&refusal.value));
        tally.count(&if same { Outcome::Passed } else { Outcome::Failed(String::new()) });
    });
    format!("expressions-messages: {tally}")
}

fn each_case(root: &Path, selection: &Selection, mut see: impl FnMut(String, &Result<Case>)) {
    let Ok(entries) = fs::read_dir(root.join("expressions")) else { return };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut tables: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    tables.sort();
    for path in tables {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match read(&path) {
            Ok(groups) => {
                for (group, cases) in groups {
                    for (index, case) in cases.into_iter().enumerate() {
                        let id = format!("expressions/{stem}/{group}/{index}");
                        if selection.takes(&id) {
                            see(id, &Ok(case));
                        }
                    }
                }
            }
            Err(error) => {
                let id = format!("expressions/{stem}");
                if selection.takes(&id) {
                    see(id, &Err(error));
                }
            }
        }
    }
}

fn read(path: &Path) -> Result<IndexMap<String, Vec<Case>>> {
    let text = fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no table of expressions", path.display()))
}

fn evaluate(case: &Case) -> Result<Value, ExpressionError> {
    let contexts: Object = case.contexts.iter().map(|(name, value)| (name, Value::from_json(value))).collect();
    let names: Vec<&str> = case.contexts.keys().map(String::as_str).collect();
    let limits = EvaluationLimits { memory: TABLE_MEMORY, ..EvaluationLimits::default() };
    let scope = Scope { contexts: &contexts, functions: &NoHostFunctions, limits };
    parse_known(&case.expr, &names, &[])?.evaluate(&scope)
}

fn judge(case: &Case) -> Outcome {
    match (evaluate(case), &case.result, &case.err) {
        (Ok(value), Some(expected), _) if same(&value, expected) => Outcome::Passed,
        (Err(_), None, Some(_)) => Outcome::Passed,
        (Ok(value), Some(expected), _) => Outcome::Failed(format!(
            "{} is {} {}, expected {} {}",
            case.expr,
            value.kind_name(),
            value.to_json(),
            expected.kind,
            expected.value
        )),
        (Err(error), Some(_), _) => Outcome::Failed(format!("{} is refused: {error}", case.expr)),
        (Ok(value), None, _) => Outcome::Failed(format!("{} is {}, expected a refusal", case.expr, value.to_json())),
        (Err(_), None, None) => Outcome::Failed(format!("{} has neither result nor err", case.expr)),
    }
}

/// Numbers JSON can't hold stand in the tables as text.
fn same(value: &Value, expected: &Expected) -> bool {
    if value.kind_name() != expected.kind {
        return false;
    }
    match (value, &expected.value) {
        (Value::Number(_), serde_json::Value::String(text)) => value.as_text() == text.as_str(),
        (value, json) => *value == Value::from_json(json),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_case_passes_only_with_its_value_or_its_refusal() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("expressions")).unwrap();
        let table = r#"{"group": [
            {"expr": "a.b", "contexts": {"a": {"b": 1}}, "result": {"kind": "Number", "value": 1}},
            {"expr": "NaN", "result": {"kind": "Number", "value": "NaN"}},
            {"expr": "1", "result": {"kind": "String", "value": "1"}},
            {"expr": "1 <", "err": {"kind": "parsing", "value": "other words"}},
            {"expr": "1", "err": {"kind": "parsing", "value": ""}}
        ]}"#;
        fs::write(root.path().join("expressions/table.json"), table).unwrap();
        fs::write(root.path().join("expressions/torn.json"), "{").unwrap();
        let everything = Selection::default();
        let results = run(root.path(), &everything);
        let passed: Vec<_> = results.iter().filter(|case| case.outcome == Outcome::Passed).collect();
        assert_eq!(results.len(), 6);
        assert_eq!(passed.len(), 3, "{results:?}");
        assert_eq!(passed[0].id, "expressions/table/group/0");
        assert_eq!(messages(root.path(), &everything), "expressions-messages: 0 passed, 2 failed, 0 skipped");
        let one = Selection { id: Some("group/2".into()) };
        assert_eq!(run(root.path(), &one).len(), 1);
    }
}
