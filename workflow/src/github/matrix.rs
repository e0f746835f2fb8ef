//! A job's `strategy.matrix` to its cells (GitHub docs: "Running variations of jobs in a workflow").

use serde_json::{Map, Value as Json};

use crate::expression::{self, Scope, Value};
use crate::plan::{MatrixCell, Strategy, Tree};

/// Legs of one job (GitHub docs: "Usage limits").
pub const MAX_MATRIX_CELLS: usize = 256;
/// Combinations looked at before `exclude` takes some away.
const MAX_COMBINATIONS: usize = 65_536;

type Entries = Map<String, Json>;

/// The cells of a job, in GitHub's order: one without values where there is no matrix.
///
/// # Errors
/// A message for the author: a wrong expression or shape, a key without values, no cell at all, or more than
/// [`MAX_MATRIX_CELLS`].
pub fn expand(strategy: &Strategy, scope: &Scope<'_>) -> Result<Vec<MatrixCell>, String> {
    let Some(tree) = &strategy.matrix else {
        return Ok(vec![MatrixCell { total: 1, ..MatrixCell::default() }]);
    };
    let matrix = Matrix::read(tree, scope)?;
    let mut combinations = matrix.combinations()?;
    combinations.retain(|cell| !matrix.exclude.iter().any(|filter| excludes(filter, cell)));
    let cells = matrix.included(&combinations)?;
    let total = cells.len();
    if total == 0 {
        return Err("the matrix has no combination: it needs a key with values, or an `include`".to_owned());
    }
    Ok(cells.into_iter().enumerate().map(|(index, matrix)| MatrixCell { matrix, index, total }).collect())
}

struct Matrix {
    vectors: Vec<(String, Vec<Json>)>,
    include: Vec<Entries>,
    exclude: Vec<Entries>,
}

impl Matrix {
    fn read(tree: &Tree, scope: &Scope<'_>) -> Result<Self, String> {
        let value = expression::interpolate_tree(tree, scope).map_err(|error| format!("`matrix`: {error}"))?;
        let Value::Object(object) = &value else {
            return Err(format!("`matrix` takes a mapping, not {}", value.kind_name()));
        };
        let mut matrix = Self { vectors: Vec::new(), include: Vec::new(), exclude: Vec::new() };
        for (key, value) in object.iter() {
            // Keys are evaluated too.
            let key = expression::interpolate_text(key, scope).map_err(|error| format!("`matrix.{key}`: {error}"))?;
            match key.to_ascii_lowercase().as_str() {
                "include" => matrix.include = filters("include", value)?,
                "exclude" => matrix.exclude = filters("exclude", value)?,
                _ => {
                    let values = vector(&key, value)?;
                    matrix.vectors.push((key, values));
                }
            }
        }
        Ok(matrix)
    }

    /// Every combination; the first key changes slowest.
    fn combinations(&self) -> Result<Vec<Entries>, String> {
        if self.vectors.is_empty() {
            return Ok(Vec::new());
        }
        let count = self.vectors.iter().try_fold(1_usize, |count, (_, values)| count.checked_mul(values.len()));
        if count.is_none_or(|count| count > MAX_COMBINATIONS) {
            return Err(too_many());
        }
        let mut cells = vec![Entries::new()];
        for (key, values) in &self.vectors {
            let with = |cell: &Entries, value: &Json| {
                let mut cell = cell.clone();
                cell.insert(key.clone(), value.clone());
                cell
            };
            cells = cells.iter().flat_map(|cell| values.iter().map(move |value| with(cell, value))).collect();
        }
        Ok(cells)
    }

    /// Adds each `include` to every combination none of whose own values it would change, or else as a cell of its own.
    fn included(&self, combinations: &[Entries]) -> Result<Vec<Entries>, String> {
        if combinations.len() > MAX_MATRIX_CELLS {
            return Err(too_many());
        }
        let mut cells = combinations.to_vec();
        for include in &self.include {
            let own = |key: &str| self.vectors.iter().any(|(name, _)| name.eq_ignore_ascii_case(key));
            let mut taken = false;
            for (cell, original) in cells.iter_mut().zip(combinations) {
                let agrees =
                    |(key, value): (&String, &Json)| get(original, key).is_some_and(|there| same(there, value));
                if include.iter().filter(|(key, _)| own(key)).all(agrees) {
                    taken = true;
                    for (key, value) in include.iter().filter(|(key, _)| !own(key)) {
                        put(cell, key, value);
                    }
                }
            }
            if !taken {
                cells.push(include.clone());
            }
            if cells.len() > MAX_MATRIX_CELLS {
                return Err(too_many());
            }
        }
        Ok(cells)
    }
}

fn too_many() -> String {
    format!("the matrix has more than {MAX_MATRIX_CELLS} combinations, the most a job may have")
}

fn vector(key: &str, value: &Value) -> Result<Vec<Json>, String> {
    match value {
        Value::Array(items) if items.is_empty() => Err(format!("the matrix key `{key}` has no values")),
        Value::Array(items) => Ok(items.iter().map(Value::to_json).collect()),
        other => Err(format!("the matrix key `{key}` takes a list, not {}", other.kind_name())),
    }
}

fn filters(key: &str, value: &Value) -> Result<Vec<Entries>, String> {
    let wrong = |value: &Value| format!("`matrix.{key}` takes a list of mappings, not {}", value.kind_name());
    let Value::Array(items) = value else {
        return Err(wrong(value));
    };
    items
        .iter()
        .map(|item| match item.to_json() {
            Json::Object(entries) => Ok(entries),
            _ => Err(wrong(item)),
        })
        .collect()
}

fn get<'a>(entries: &'a Entries, key: &str) -> Option<&'a Json> {
    entries.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

fn put(entries: &mut Entries, key: &str, value: &Json) {
    let name = entries.keys().find(|name| name.eq_ignore_ascii_case(key)).cloned();
    entries.insert(name.unwrap_or_else(|| key.to_owned()), value.clone());
}

fn excludes(filter: &Entries, cell: &Entries) -> bool {
    !filter.is_empty() && filter.iter().all(|(key, wanted)| get(cell, key).is_some_and(|value| covers(wanted, value)))
}

/// A mapping in an `exclude` need name only some of the value's keys.
fn covers(wanted: &Json, value: &Json) -> bool {
    match (wanted, value) {
        (Json::Object(wanted), Json::Object(value)) => {
            wanted.iter().all(|(key, wanted)| get(value, key).is_some_and(|value| covers(wanted, value)))
        }
        _ => same(wanted, value),
    }
}

/// Text is compared without case, as everywhere in expressions.
fn same(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Json::Object(left), Json::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, left)| get(right, key).is_some_and(|right| same(left, right)))
        }
        (Json::Array(_) | Json::Object(_), _) | (_, Json::Array(_) | Json::Object(_)) => false,
        _ => {
            let (left, right) = (Value::from_json(left), Value::from_json(right));
            left.as_text().eq_ignore_ascii_case(&right.as_text())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::super::tests::with_contexts;
    use super::*;

    fn cells(matrix: Json) -> Result<Vec<Json>, String> {
        let strategy = Strategy { matrix: Some(matrix), ..Strategy::default() };
        let contexts = json!({"needs": {"a": {"outputs": {"m": "{\"os\":[\"x\",\"y\"]}", "none": "[]"}}}});
        let cells = with_contexts(&contexts, |scope| expand(&strategy, scope))?;
        Ok(cells.into_iter().map(|cell| Json::Object(cell.matrix)).collect())
    }

    #[test]
    fn combinations_come_in_the_order_of_the_keys() {
        let expected = [
            json!({"v": 1, "os": "a"}),
            json!({"v": 1, "os": "b"}),
            json!({"v": 2, "os": "a"}),
            json!({"v": 2, "os": "b"}),
        ];
        assert_eq!(cells(json!({"v": [1, 2], "os": ["a", "b"]})).unwrap(), expected);
        assert_eq!(with_contexts(&json!({}), |scope| expand(&Strategy::default(), scope)).unwrap().len(), 1);
    }

    #[test]
    fn include_is_what_githubs_example_says() {
        let matrix = json!({
            "fruit": ["apple", "pear"],
            "animal": ["cat", "dog"],
            "include": [
                {"color": "green"},
                {"color": "pink", "animal": "cat"},
                {"fruit": "apple", "shape": "circle"},
                {"fruit": "banana"},
                {"fruit": "banana", "animal": "cat"},
            ],
        });
        let expected = [
            json!({"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"}),
            json!({"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"}),
            json!({"fruit": "pear", "animal": "cat", "color": "pink"}),
            json!({"fruit": "pear", "animal": "dog", "color": "green"}),
            json!({"fruit": "banana"}),
            json!({"fruit": "banana", "animal": "cat"}),
        ];
        assert_eq!(cells(matrix).unwrap(), expected);
    }

    #[test]
    fn include_expands_adds_and_stands_alone() {
        let expanded =
            cells(json!({"os": ["w", "u"], "node": [14, 16], "include": [{"os": "w", "node": 16, "npm": 6}]})).unwrap();
        assert_eq!(
            expanded.iter().filter(|cell| cell.get("npm").is_some()).collect::<Vec<_>>(),
            [&json!({"os": "w", "node": 16, "npm": 6})]
        );
        let added = cells(json!({"os": ["w"], "version": [12], "include": [{"os": "w", "version": 17}]})).unwrap();
        assert_eq!(added, [json!({"os": "w", "version": 12}), json!({"os": "w", "version": 17})]);
        let alone = cells(json!({"include": [{"site": "production"}, {"site": "staging"}]})).unwrap();
        assert_eq!(alone.len(), 2);
    }

    #[test]
    fn exclude_takes_every_combination_it_partly_names() {
        let matrix = json!({
            "os": ["macos", "windows"],
            "version": [12, 14, 16],
            "environment": ["staging", "production"],
            "exclude": [
                {"os": "macos", "version": 12, "environment": "production"},
                {"OS": "Windows", "version": 16},
            ],
        });
        assert_eq!(cells(matrix).unwrap().len(), 9);
        let nested = json!({"v": [{"a": 1, "b": 1}, {"a": 2, "b": 1}], "exclude": [{"v": {"a": 2}}, {"unknown": 1}]});
        assert_eq!(cells(nested).unwrap(), [json!({"v": {"a": 1, "b": 1}})]);
    }

    #[test]
    fn expressions_make_matrices_vectors_and_values() {
        let os = [json!({"os": "x"}), json!({"os": "y"})];
        assert_eq!(cells(json!("${{ fromJSON(needs.a.outputs.m) }}")).unwrap(), os);
        assert_eq!(cells(json!({"os": "${{ fromJSON(needs.a.outputs.m).os }}"})).unwrap(), os);
        assert_eq!(cells(json!({"os": ["${{ 'x' }}", "y"]})).unwrap(), os);
    }

    #[test]
    fn mistakes_are_named() {
        for (matrix, expected) in [
            (json!({"os": []}), "the matrix key `os` has no values"),
            (json!({"os": "${{ fromJSON(needs.a.outputs.none) }}"}), "the matrix key `os` has no values"),
            (json!({"os": "linux"}), "the matrix key `os` takes a list, not String"),
            (json!({"include": {}}), "`matrix.include` takes a list of mappings, not Object"),
            (json!({"include": []}), "the matrix has no combination: it needs a key with values, or an `include`"),
            (json!([1]), "`matrix` takes a mapping, not Array"),
        ] {
            assert_eq!(cells(matrix).unwrap_err(), expected);
        }
    }

    #[test]
    fn attack_07_a_matrix_has_at_most_256_cells_however_they_are_made() {
        let many: Vec<_> = (0..257).collect();
        for matrix in [
            json!({"a": many}),
            json!({"a": "${{ fromJSON('[".to_owned() + &format!("{many:?}")[1..] + "') }}"}),
            json!({"a": [1], "include": many.iter().map(|cell| json!({"a": cell + 2})).collect::<Vec<_>>()}),
        ] {
            assert_eq!(
                cells(matrix).unwrap_err(),
                "the matrix has more than 256 combinations, the most a job may have"
            );
        }
        assert_eq!(
            cells(json!({"a": (0..16).collect::<Vec<_>>(), "b": (0..16).collect::<Vec<_>>()})).unwrap().len(),
            256
        );
    }

    #[test]
    fn attack_08_a_matrix_of_a_billion_cells_costs_nothing() {
        let vector: Vec<_> = (0..1000).collect();
        assert!(cells(json!({"a": vector, "b": vector, "c": vector})).unwrap_err().contains("more than 256"));
    }
}
