//! A job's `strategy.matrix` to its cells (GitHub docs: "Running variations of jobs in a workflow").

use serde_json::{Map, Value as Json};

use crate::expression::{self, Scope, Value};
use crate::plan::{MatrixCell, Strategy, Tree, value_size, values_size};

/// Legs of one job (GitHub docs: "Usage limits").
pub const MAX_MATRIX_CELLS: usize = 256;
/// Combinations looked at before `exclude` takes some away.
const MAX_COMBINATIONS: usize = 65_536;
/// Values that are compared, and 64 bytes of text each, while a matrix is expanded.
const MAX_STEPS: usize = 500_000;
/// Bytes of the values of all cells together.
const MAX_BYTES: usize = 1 << 20;

type Entries = Map<String, Json>;

/// The cells of a job, in GitHub's order: one without values where there is no matrix.
///
/// # Errors
/// A message for the author: a wrong expression or shape, a key without values, no cell at all, or more than
/// [`MAX_MATRIX_CELLS`], or too much to compare or to keep.
pub fn expand(strategy: &Strategy, scope: &Scope<'_>) -> Result<Vec<MatrixCell>, String> {
    let Some(tree) = &strategy.matrix else {
        return Ok(vec![MatrixCell { total: 1, ..MatrixCell::default() }]);
    };
    let matrix = Matrix::read(tree, scope)?;
    let mut budget = Budget { steps: MAX_STEPS, bytes: MAX_BYTES };
    let combinations = matrix.combinations(&mut budget)?;
    let cells = matrix.included(&combinations, &mut budget)?;
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

    /// Every combination that no `exclude` takes away; the first key changes slowest.
    fn combinations(&self, budget: &mut Budget) -> Result<Vec<Entries>, String> {
        if self.vectors.is_empty() {
            return Ok(Vec::new());
        }
        let count = self.vectors.iter().try_fold(1_usize, |count, (_, values)| count.checked_mul(values.len()));
        let count = count.filter(|count| *count <= MAX_COMBINATIONS).ok_or_else(too_many)?;
        let mut cells = Vec::new();
        for number in 0..count {
            let cell = self.combination(number);
            budget.take_steps(cell.len())?;
            if self.is_excluded(&cell, budget)? {
                continue;
            }
            if cells.len() == MAX_MATRIX_CELLS {
                return Err(too_many());
            }
            budget.take_bytes(cell.iter().map(|(key, value)| key.len() + value_size(value)).sum())?;
            cells.push(cell.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect());
        }
        Ok(cells)
    }

    fn combination(&self, mut number: usize) -> Vec<(&str, &Json)> {
        let fastest_first = self.vectors.iter().rev().filter_map(|(key, values)| {
            let value = values.get(number % values.len().max(1))?;
            number /= values.len().max(1);
            Some((key.as_str(), value))
        });
        let mut cell: Vec<_> = fastest_first.collect();
        cell.reverse();
        cell
    }

    fn is_excluded(&self, cell: &[(&str, &Json)], budget: &mut Budget) -> Result<bool, String> {
        'filters: for filter in self.exclude.iter().filter(|filter| !filter.is_empty()) {
            for (key, wanted) in filter {
                budget.take_steps(cell.len())?;
                let value = cell.iter().rfind(|(name, _)| name.eq_ignore_ascii_case(key));
                match value {
                    Some((_, value)) if budget.covers(wanted, value)? => {}
                    _ => continue 'filters,
                }
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Adds each `include` to every combination none of whose own values it would change, or else as a cell of its own.
    fn included(&self, combinations: &[Entries], budget: &mut Budget) -> Result<Vec<Entries>, String> {
        let mut cells = combinations.to_vec();
        for include in &self.include {
            let own = |key: &str| self.vectors.iter().any(|(name, _)| name.eq_ignore_ascii_case(key));
            budget.take_steps(include.len() * self.vectors.len())?;
            let (compared, added): (Vec<_>, Vec<_>) = include.iter().partition(|(key, _)| own(key));
            let mut taken = false;
            for (cell, original) in cells.iter_mut().zip(combinations) {
                budget.take_steps(1)?;
                if !budget.agrees(&compared, original)? {
                    continue;
                }
                taken = true;
                for (key, value) in &added {
                    budget.take_steps(cell.len())?;
                    budget.take_bytes(key.len() + value_size(value))?;
                    put(cell, key, value);
                }
            }
            if !taken {
                budget.take_bytes(values_size(include))?;
                cells.push(include.clone());
            }
            if cells.len() > MAX_MATRIX_CELLS {
                return Err(too_many());
            }
        }
        Ok(cells)
    }
}

/// What one expansion may still cost.
struct Budget {
    steps: usize,
    bytes: usize,
}

impl Budget {
    fn take_steps(&mut self, steps: usize) -> Result<(), String> {
        let dear = || "the matrix takes too much to expand: give it fewer combinations, `exclude`s or `include`s";
        self.steps = self.steps.checked_sub(steps).ok_or_else(dear)?;
        expression::total::take(steps).map_err(|error| error.to_string())
    }

    fn take_bytes(&mut self, bytes: usize) -> Result<(), String> {
        let large =
            || format!("the matrix has values of more than {} MiB over all its combinations together", MAX_BYTES >> 20);
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(large)?;
        Ok(())
    }

    fn agrees(&mut self, wanted: &[(&String, &Json)], cell: &Entries) -> Result<bool, String> {
        for (key, wanted) in wanted {
            match self.get(cell, key)? {
                Some(value) if self.same(value, wanted)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// A mapping in an `exclude` need name only some of the value's keys.
    fn covers(&mut self, wanted: &Json, value: &Json) -> Result<bool, String> {
        let (Json::Object(wanted), Json::Object(value)) = (wanted, value) else { return self.same(wanted, value) };
        for (key, wanted) in wanted {
            match self.get(value, key)? {
                Some(value) if self.covers(wanted, value)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Text is compared without case, as everywhere in expressions.
    fn same(&mut self, left: &Json, right: &Json) -> Result<bool, String> {
        self.take_steps(1)?;
        match (left, right) {
            (Json::Array(left), Json::Array(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (left, right) in left.iter().zip(right) {
                    if !self.same(left, right)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Json::Object(left), Json::Object(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (key, left) in left {
                    match self.get(right, key)? {
                        Some(right) if self.same(left, right)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
            (Json::Array(_) | Json::Object(_), _) | (_, Json::Array(_) | Json::Object(_)) => Ok(false),
            _ => {
                let text = |value: &Json| value.as_str().map_or(0, str::len);
                self.take_steps((text(left) + text(right)) / 64)?;
                let (left, right) = (Value::from_json(left), Value::from_json(right));
                Ok(left.as_text().eq_ignore_ascii_case(&right.as_text()))
            }
        }
    }

    fn get<'a>(&mut self, entries: &'a Entries, key: &str) -> Result<Option<&'a Json>, String> {
        self.take_steps(entries.len())?;
        Ok(entries.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value))
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

fn put(entries: &mut Entries, key: &str, value: &Json) {
    let name = entries.keys().find(|name| name.eq_ignore_ascii_case(key)).cloned();
    entries.insert(name.unwrap_or_else(|| key.to_owned()), value.clone());
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

    #[test]
    fn attack_08_excludes_and_includes_cost_no_more_than_their_budget() {
        let vector: Vec<_> = (0..16).collect();
        let filters: Vec<_> = (0..20_000).map(|_| json!({"d": "x"})).collect();
        let nested = |name: &str| Json::Object((0..500).map(|key| (format!("{name}{key}"), json!(key))).collect());
        for matrix in [
            json!({"a": vector, "b": vector, "c": vector, "d": vector, "exclude": filters}),
            json!({"a": vector, "b": vector, "include": filters}),
            json!({"a": [nested("x"), nested("x"), nested("x")], "exclude": vec![json!({"a": nested("x")}); 4]}),
            json!({"a": ["x".repeat(900_000)], "exclude": vec![json!({"a": "X".repeat(900_000) + "y"}); 200]}),
        ] {
            let error = cells(matrix).unwrap_err();
            assert!(error.contains("too much to expand") || error.contains("more than 1 MiB"), "{error}");
        }
    }

    #[test]
    fn attack_08_the_values_of_all_cells_together_are_bounded() {
        let (vector, large) = ((0..200).collect::<Vec<_>>(), "x".repeat(10_000));
        for matrix in [
            json!({"a": vector, "b": [large]}),
            json!({"a": vector, "include": [{"b": large}]}),
            json!({"include": vec![json!({"b": large}); 200]}),
        ] {
            assert!(cells(matrix).unwrap_err().contains("more than 1 MiB over all its combinations"));
        }
    }
}
