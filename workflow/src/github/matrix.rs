//! A job's `strategy.matrix` to its cells (GitHub docs: "Running variations of jobs in a workflow").

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::expression::{self, Object, Scope, Value};
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
    let cells = matrix.included(combinations, &mut budget)?;
    let total = cells.len();
    if total == 0 {
        return Err(NO_VECTOR.to_owned());
    }
    Ok(cells.into_iter().enumerate().map(|(index, matrix)| MatrixCell { matrix, index, total }).collect())
}

struct Matrix {
    vectors: Vec<Vector>,
    include: Vec<Include>,
    exclude: Vec<Filter>,
}

/// A key and its values.
struct Vector {
    key: String,
    values: Vec<(Json, Value)>,
}

/// What a combination must have for an `include` or `exclude` to apply: GitHub takes a filter apart into its leaves, and
/// asks for each whether `matrix['key'][…] == literal` holds (actions/runner, `MatrixBuilder.cs`).
struct Filter(Vec<Leaf>);

struct Leaf {
    /// Which vector.
    vector: usize,
    /// The way into its value.
    path: Vec<Value>,
    literal: Value,
}

struct Include {
    filter: Filter,
    /// What it adds to a combination.
    extra: Vec<(String, Json)>,
    /// The cell that it is where no combination fits.
    alone: Entries,
}

/// A combination: which value of each vector.
type Combination = Vec<usize>;

impl Matrix {
    fn read(tree: &Tree, scope: &Scope<'_>) -> Result<Self, String> {
        let value = expression::interpolate_tree(tree, scope).map_err(|error| format!("`matrix`: {error}"))?;
        let Value::Object(object) = &value else {
            return Err(format!("`matrix` takes a mapping, not {}", value.kind_name()));
        };
        let mut matrix = Self { vectors: Vec::new(), include: Vec::new(), exclude: Vec::new() };
        let (mut include, mut exclude) = (Vec::new(), Vec::new());
        for (key, value) in object.iter() {
            match key.to_ascii_lowercase().as_str() {
                "include" => include = filters("include", value)?,
                "exclude" => exclude = filters("exclude", value)?,
                _ => matrix.vectors.push(vector(key.to_owned(), value)?),
            }
        }
        matrix.include = include.iter().map(|entries| matrix.read_include(entries)).collect::<Result<_, _>>()?;
        matrix.exclude = exclude.iter().map(|entries| matrix.read_exclude(entries)).collect::<Result<_, _>>()?;
        Ok(matrix)
    }

    fn place(&self, key: &str) -> Option<usize> {
        self.vectors.iter().position(|vector| vector.key.eq_ignore_ascii_case(key))
    }

    fn read_exclude(&self, entries: &Object) -> Result<Filter, String> {
        let mut leaves = Vec::new();
        for (key, value) in entries.iter() {
            let vector = self.place(key).ok_or_else(|| unknown_exclude(key))?;
            collect_leaves(vector, value, &mut Vec::new(), &mut leaves);
        }
        if entries.is_empty() { Err(EMPTY_EXCLUDE.to_owned()) } else { Ok(Filter(leaves)) }
    }

    fn read_include(&self, entries: &Object) -> Result<Include, String> {
        if entries.is_empty() {
            return Err(EMPTY_INCLUDE.to_owned());
        }
        let (mut leaves, mut own, mut extra) = (Vec::new(), Entries::new(), Vec::new());
        for (key, value) in entries.iter() {
            match self.place(key) {
                Some(vector) => {
                    collect_leaves(vector, value, &mut Vec::new(), &mut leaves);
                    own.insert(key.to_owned(), value.to_json());
                }
                None => extra.push((key.to_owned(), value.to_json())),
            }
        }
        own.extend(extra.iter().cloned());
        Ok(Include { filter: Filter(leaves), extra, alone: own })
    }

    /// Every combination that no `exclude` takes away; the first key changes slowest.
    fn combinations(&self, budget: &mut Budget) -> Result<Vec<(Combination, Entries)>, String> {
        if self.vectors.is_empty() {
            return Ok(Vec::new());
        }
        let count = self.vectors.iter().try_fold(1_usize, |count, vector| count.checked_mul(vector.values.len()));
        let count = count.filter(|count| *count <= MAX_COMBINATIONS).ok_or_else(too_many)?;
        let mut cells = Vec::new();
        for number in 0..count {
            let combination = self.combination(number);
            budget.take_steps(combination.len())?;
            if self.is_excluded(&combination, budget)? {
                continue;
            }
            if cells.len() == MAX_MATRIX_CELLS {
                return Err(too_many());
            }
            let chosen = self.vectors.iter().zip(&combination);
            let chosen = || chosen.clone().filter_map(|(vector, at)| Some((&vector.key, &vector.values.get(*at)?.0)));
            budget.take_bytes(chosen().map(|(key, value)| key.len() + value_size(value)).sum())?;
            let entries = chosen().map(|(key, value)| (key.clone(), value.clone())).collect();
            cells.push((combination, entries));
        }
        Ok(cells)
    }

    fn combination(&self, mut number: usize) -> Combination {
        let fastest_first = self.vectors.iter().rev().map(|vector| {
            let at = number % vector.values.len().max(1);
            number /= vector.values.len().max(1);
            at
        });
        let mut cell: Combination = fastest_first.collect();
        cell.reverse();
        cell
    }

    fn is_excluded(&self, cell: &Combination, budget: &mut Budget) -> Result<bool, String> {
        for filter in &self.exclude {
            if self.fits(filter, cell, budget)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn fits(&self, filter: &Filter, cell: &Combination, budget: &mut Budget) -> Result<bool, String> {
        budget.take_steps(1)?;
        for leaf in &filter.0 {
            budget.take_steps(1 + leaf.path.len())?;
            let chosen = self.vectors.get(leaf.vector).zip(cell.get(leaf.vector));
            let mut value = chosen.and_then(|(vector, at)| vector.values.get(*at)).map(|(_, value)| value);
            for step in &leaf.path {
                value = value.and_then(|value| value.member(step));
            }
            let value = value.unwrap_or(&Value::Null);
            budget.take_steps((text_size(value) + text_size(&leaf.literal)) / 64)?;
            if !expression::equal(value, &leaf.literal) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds each `include` to every combination that it fits, or else as a cell of its own.
    fn included(&self, combinations: Vec<(Combination, Entries)>, budget: &mut Budget) -> Result<Vec<Entries>, String> {
        let (chosen, mut cells): (Vec<Combination>, Vec<Entries>) = combinations.into_iter().unzip();
        for Include { filter, extra, alone } in &self.include {
            let mut taken = false;
            for (cell, chosen) in cells.iter_mut().zip(&chosen) {
                if !self.fits(filter, chosen, budget)? {
                    continue;
                }
                taken = true;
                for (key, value) in extra {
                    budget.take_steps(cell.len())?;
                    budget.take_bytes(key.len() + value_size(value))?;
                    put(cell, key, value);
                }
            }
            if !taken {
                budget.take_bytes(values_size(alone))?;
                cells.push(alone.clone());
            }
            if cells.len() > MAX_MATRIX_CELLS {
                return Err(too_many());
            }
        }
        Ok(cells)
    }
}

/// The scalars of a filter, each with the way to it.
fn collect_leaves(vector: usize, value: &Value, path: &mut Vec<Value>, leaves: &mut Vec<Leaf>) {
    let mut below = |step: Value, value: &Value| {
        path.push(step);
        collect_leaves(vector, value, path, leaves);
        path.pop();
    };
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| below(key.into(), value)),
        Value::Array(items) => {
            #[expect(clippy::cast_precision_loss, reason = "no list here has so many items")]
            items.iter().enumerate().for_each(|(at, value)| below(Value::Number(at as f64), value));
        }
        literal => leaves.push(Leaf { vector, path: path.clone(), literal: literal.clone() }),
    }
}

fn text_size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        _ => 0,
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
}

fn too_many() -> String {
    format!("the matrix has more than {MAX_MATRIX_CELLS} combinations, the most a job may have")
}

/// For an `exclude` that names nothing.
pub(super) const EMPTY_EXCLUDE: &str = "an item of `matrix.exclude` is empty: name what it takes away, or leave it out";
/// For an `include` that names nothing.
pub(super) const EMPTY_INCLUDE: &str = "an item of `matrix.include` is empty: name what it adds, or leave it out";
/// For a matrix that gives no job.
pub(super) const NO_VECTOR: &str = "the matrix has no combination: it needs a key with values, or an `include`";

/// For a key of an `exclude` that is none of the matrix.
pub(super) fn unknown_exclude(key: &str) -> String {
    format!("`matrix.exclude` names `{key}`, which is no key of the matrix")
}

fn vector(key: String, value: &Value) -> Result<Vector, String> {
    match value {
        Value::Array(items) if items.is_empty() => Err(format!("the matrix key `{key}` has no values")),
        Value::Array(items) => {
            let values = items.iter().map(|item| (item.to_json(), item.clone())).collect();
            Ok(Vector { key, values })
        }
        other => Err(format!("the matrix key `{key}` takes a list, not {}", other.kind_name())),
    }
}

fn filters(key: &str, value: &Value) -> Result<Vec<Arc<Object>>, String> {
    let wrong = |value: &Value| format!("`matrix.{key}` takes a list of mappings, not {}", value.kind_name());
    let Value::Array(items) = value else {
        return Err(wrong(value));
    };
    let entries = |item: &Value| match item {
        Value::Object(entries) => Ok(Arc::clone(entries)),
        _ => Err(wrong(item)),
    };
    items.iter().map(entries).collect()
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
        let nested = json!({"v": [{"a": 1, "b": 1}, {"a": 2, "b": 1}], "exclude": [{"v": {"a": 2}}]});
        assert_eq!(cells(nested).unwrap(), [json!({"v": {"a": 1, "b": 1}})]);
    }

    /// actions/runner, `MatrixFilter`: each leaf of a filter is compared by the `==` of expressions.
    #[test]
    fn a_filter_is_compared_leaf_by_leaf_as_expressions_compare() {
        for (matrix, expected) in [
            (json!({"v": [0, 1, "", false], "exclude": [{"v": null}]}), vec![json!({"v": 1})]),
            (json!({"v": ["1.0", 2, "0x10", true], "exclude": [{"v": 1}, {"v": 16}]}), vec![json!({"v": 2})]),
            (json!({"v": [["-O2", "-g"], ["-O0"]], "exclude": [{"v": ["-O2"]}]}), vec![json!({"v": ["-O0"]})]),
            (
                json!({"t": [{"os": "l", "arch": "x"}, {"os": "m", "arch": "x"}], "include": [{"t": {"os": "l"}, "e": 1}]}),
                vec![json!({"t": {"os": "l", "arch": "x"}, "e": 1}), json!({"t": {"os": "m", "arch": "x"}})],
            ),
            (
                json!({"v": ["08", "1e1"], "include": [{"v": 8, "hit": "a"}, {"v": 10, "hit": "b"}]}),
                vec![json!({"v": "08", "hit": "a"}), json!({"v": "1e1", "hit": "b"})],
            ),
            (json!({"v": ["größe", "b"], "exclude": [{"v": "GRÖßE"}]}), vec![json!({"v": "b"})]),
            // What is not there is null, and a filter without a leaf fits everything.
            (json!({"v": [{"a": 1}, {"b": 1}], "exclude": [{"v": {"b": null}}]}), vec![json!({"v": {"b": 1}})]),
            (json!({"v": [1], "include": [{"v": {}, "e": 2}]}), vec![json!({"v": 1, "e": 2})]),
            // A leg of its own has the matrix' keys first.
            (json!({"v": [1], "include": [{"e": 2, "v": 3}]}), vec![json!({"v": 1}), json!({"v": 3, "e": 2})]),
        ] {
            assert_eq!(cells(matrix.clone()).unwrap(), expected, "{matrix}");
        }
        let legs = cells(json!({"v": [1], "include": [{"e": 2, "v": 3}]})).unwrap();
        assert_eq!(legs[1].as_object().unwrap().keys().collect::<Vec<_>>(), ["v", "e"]);
    }

    #[test]
    fn an_item_whose_expression_is_a_list_stands_for_its_items() {
        let one = |v: &[&str]| v.iter().map(|v| json!({"v": v})).collect::<Vec<_>>();
        let list = r#"${{ fromJSON('["b","c"]') }}"#;
        assert_eq!(cells(json!({"v": ["a", list]})).unwrap(), one(&["a", "b", "c"]));
        assert_eq!(cells(json!({"v": ["a", "${{ fromJSON('[]') }}"]})).unwrap(), one(&["a"]));
        let more = r#"${{ fromJSON('[{"v":"y"},{"v":"z"}]') }}"#;
        assert_eq!(cells(json!({"include": [{"v": "x"}, more]})).unwrap(), one(&["x", "y", "z"]));
        assert_eq!(cells(json!({"v": ["x", "y", "z"], "exclude": [more]})).unwrap(), one(&["x"]));
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
            (
                json!({"os": ["x"], "exclude": [{"arch": 1}]}),
                "`matrix.exclude` names `arch`, which is no key of the matrix",
            ),
            (json!({"os": ["x"], "exclude": [{}]}), EMPTY_EXCLUDE),
            (json!({"os": ["x"], "include": [{}]}), EMPTY_INCLUDE),
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
            json!({"a": vec![nested("x"); 200], "b": [1], "exclude": vec![json!({"a": nested("x"), "b": 2}); 4]}),
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
