//! Which legs of a matrix run, where not all of them are wanted.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::expression::Value;

/// Legs that run, by their values and by their name. An empty one wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegFilter {
    /// Keys of the matrix and the texts of those of their values that run; a leg without the key runs.
    pub values: IndexMap<String, Vec<String>>,
    /// Display name of the one leg that runs.
    pub name: Option<String>,
}

impl LegFilter {
    /// Whether every leg runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.name.is_none()
    }

    /// Whether a leg runs that has this display name and these values.
    #[must_use]
    pub fn wants(&self, name: &str, matrix: &Map<String, Json>) -> bool {
        let is_wanted = |(key, wanted): (&String, &Vec<String>)| {
            let own = matrix.iter().find(|(own, _)| own.eq_ignore_ascii_case(key));
            own.is_none_or(|(_, value)| wanted.contains(&value_text(value)))
        };
        self.name.as_ref().is_none_or(|wanted| wanted == name) && self.values.iter().all(is_wanted)
    }
}

/// A value of a matrix as one writes it: as the job's name has it; lists and mappings as JSON.
#[must_use]
pub fn value_text(value: &Json) -> String {
    match value {
        Json::Array(_) | Json::Object(_) => value.to_string(),
        scalar => Value::from_json(scalar).as_text().into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_leg_runs_by_its_values_and_its_name() {
        let leg = json!({"os": "linux", "node": 20, "v": 1.0, "debug": true, "target": {"arch": "arm"}});
        let leg = leg.as_object().cloned().unwrap_or_default();
        for (values, name, wanted) in [
            (vec![], None, true),
            (vec![("os", vec!["linux"])], None, true),
            (vec![("OS", vec!["mac", "linux"])], None, true),
            (vec![("os", vec!["Linux"])], None, false),
            (vec![("os", vec!["linux"]), ("node", vec!["18"])], None, false),
            (vec![("node", vec!["20"]), ("v", vec!["1"]), ("debug", vec!["true"])], None, true),
            (vec![("target", vec![r#"{"arch":"arm"}"#])], None, true),
            (vec![("none", vec!["x"])], None, true),
            (vec![], Some("test (linux)"), true),
            (vec![], Some("test (mac)"), false),
        ] {
            let texts = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
            let filter = LegFilter {
                values: values.into_iter().map(|(key, values)| (key.to_owned(), texts(values))).collect(),
                name: name.map(str::to_owned),
            };
            assert_eq!(filter.wants("test (linux)", &leg), wanted, "{filter:?}");
        }
    }
}
