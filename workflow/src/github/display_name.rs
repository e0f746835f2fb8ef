//! Display names of jobs. A name is always one line, whatever the author wrote.

use serde_json::Value as Json;

use crate::expression::{self, Scope, Value};
use crate::plan::{Job, MatrixCell};

/// Characters of a name (GitHub cuts there too).
const MAX: usize = 100;

/// The display name of one matrix cell of a job: `name:` evaluated, or the id, followed by the matrix values in
/// brackets unless `name:` contains an expression. A `name:` that fails to evaluate is used verbatim.
pub(super) fn job(id: &str, job: &Job, cell: &MatrixCell, scope: &Scope<'_>) -> String {
    let name = match &job.name {
        Some(name) if name.contains("${{") => {
            let value = expression::interpolate_text(name, scope).unwrap_or_else(|_| name.clone());
            return Some(one_line(&value)).filter(|name| !name.is_empty()).unwrap_or_else(|| id.to_owned());
        }
        Some(name) => name,
        None => id,
    };
    let mut values = Vec::new();
    cell.matrix.values().for_each(|value| scalars(value, &mut values));
    if values.is_empty() { one_line(name) } else { one_line(&format!("{name} ({})", values.join(", "))) }
}

fn scalars(value: &Json, values: &mut Vec<String>) {
    match value {
        Json::Array(items) => items.iter().for_each(|item| scalars(item, values)),
        Json::Object(entries) => entries.values().for_each(|item| scalars(item, values)),
        Json::Null => {}
        scalar => values.push(Value::from_json(scalar).as_text().into_owned()),
    }
}

/// A text as a name: one line, no longer than GitHub has it.
pub(super) fn one_line(text: &str) -> String {
    let line: Vec<&str> =
        text.split(|character: char| character.is_control()).filter(|part| !part.is_empty()).collect();
    let line = line.join(" ");
    let line = line.trim_end();
    if line.chars().count() <= MAX {
        return line.to_owned();
    }
    line.chars().take(MAX - 3).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{job_of, with_contexts};
    use super::*;

    #[test]
    fn cells_of_a_matrix_are_distinguished_by_their_values() {
        for (keys, expected) in [
            ("runs-on: x", "a (1.1, x)"),
            ("runs-on: x\nname: Build", "Build (1.1, x)"),
            ("runs-on: x\nname: On ${{ matrix.os }}", "On x"),
            ("runs-on: x\nname: ${{ matrix.none }}", "a"),
            ("runs-on: x\nname: \"two\\nlines ${{ 1 }}\"", "two lines 1"),
        ] {
            let matrix = json!({"v": 1.1, "os": "x"});
            let own = MatrixCell { matrix: matrix.as_object().cloned().unwrap_or_default(), index: 0, total: 2 };
            let name = with_contexts(&json!({"matrix": matrix}), |scope| super::job("a", &job_of(keys), &own, scope));
            assert_eq!(name, expected);
        }
        let name =
            with_contexts(&json!({}), |scope| super::job("a", &job_of("runs-on: x"), &MatrixCell::default(), scope));
        assert_eq!(name, "a");
    }
}
