//! What a job's `runs-on` asks of a worker.

use crate::expression::{self, ExpressionError, ExpressionErrorKind, Scope, Value};
use crate::plan::Job;

/// The labels a worker must have, in order and each once. A runner group is a label here: a worker belongs to the
/// groups it has as labels.
///
/// # Errors
/// A wrong expression, or a value that is neither text, a list of text, nor `{group, labels}`.
pub(super) fn of(job: &Job, scope: &Scope<'_>) -> Result<Vec<String>, ExpressionError> {
    let value = expression::interpolate_tree(&job.runs_on, scope)?;
    let mut labels = Vec::new();
    match &value {
        Value::Object(object) => {
            for key in ["group", "labels"] {
                if let Some(value) = object.get(key) {
                    collect(value, &mut labels)?;
                }
            }
        }
        value => collect(value, &mut labels)?,
    }
    if labels.is_empty() {
        return Err(wrong("`runs-on` names no label"));
    }
    Ok(labels)
}

fn collect(value: &Value, labels: &mut Vec<String>) -> Result<(), ExpressionError> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| match item {
            Value::Array(_) | Value::Object(_) => Err(wrong("`runs-on` takes a list of text")),
            item => collect(item, labels),
        }),
        Value::Object(_) => Err(wrong("`runs-on` takes text, a list of text, or `group` and `labels`")),
        scalar => {
            let label = scalar.as_text().trim().to_owned();
            if label.is_empty() {
                return Err(wrong("`runs-on` has an empty label"));
            }
            if !labels.contains(&label) {
                labels.push(label);
            }
            Ok(())
        }
    }
}

fn wrong(message: &str) -> ExpressionError {
    ExpressionError { kind: ExpressionErrorKind::Evaluation, message: message.to_owned(), position: 0 }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{job_of, with_contexts};
    use super::*;

    #[test]
    fn labels_come_from_text_lists_groups_and_expressions() {
        let contexts = json!({"matrix": {"os": "linux", "labels": "[\"self-hosted\", \"gpu\"]", "none": "[]"}});
        for (runs_on, expected) in [
            ("ubuntu-latest", Ok(vec!["ubuntu-latest"])),
            ("[self-hosted, linux, linux]", Ok(vec!["self-hosted", "linux"])),
            ("'${{ matrix.os }}-arm'", Ok(vec!["linux-arm"])),
            ("['${{ matrix.os }}', big]", Ok(vec!["linux", "big"])),
            ("${{ fromJSON(matrix.labels) }}", Ok(vec!["self-hosted", "gpu"])),
            ("{group: big, labels: [gpu]}", Ok(vec!["big", "gpu"])),
            ("{group: big}", Ok(vec!["big"])),
            ("${{ matrix.missing }}", Err("`runs-on` has an empty label")),
            ("${{ fromJSON(matrix.none) }}", Err("`runs-on` names no label")),
        ] {
            let job = job_of(&format!("runs-on: {runs_on}"));
            let labels = with_contexts(&contexts, |scope| of(&job, scope)).map_err(|error| error.message);
            let expected = expected.map(|labels| labels.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(labels, expected.map_err(str::to_owned), "{runs_on}");
        }
    }
}
