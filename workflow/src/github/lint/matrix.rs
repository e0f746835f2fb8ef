//! Values of a matrix that are there twice, and filters of `exclude` that leave out nothing.

use crate::expression::{Value, equal};
use crate::github::report::Report;
use crate::spelling::{listed, suggestion};
use crate::yaml::{YamlNode, YamlValue};

use super::walk::{is_dynamic, jobs};

/// Values of one key that are compared with each other.
const MAX_COMPARED: usize = 300;

pub(super) fn check(root: &YamlNode, report: &mut Report<'_>) {
    for (_, job) in jobs(root) {
        let Some(matrix) = job.get("strategy").and_then(|strategy| strategy.get("matrix")) else { continue };
        let vectors: Vec<(&str, &YamlNode)> = matrix
            .entries()
            .iter()
            .filter_map(|(name, values)| Some((name.text()?, values)))
            .filter(|(name, _)| !matches!(*name, "include" | "exclude"))
            .collect();
        for (name, values) in &vectors {
            duplicates(name, values.items(), report);
        }
        let known_keys = !vectors.iter().any(|(name, _)| name.contains("${{"));
        for filter in matrix.get("exclude").map(YamlNode::items).unwrap_or_default() {
            if known_keys {
                self::filter(filter, &vectors, report);
            }
            if report.is_full() {
                return;
            }
        }
    }
}

fn duplicates(name: &str, values: &[YamlNode], report: &mut Report<'_>) {
    for (at, value) in values.iter().enumerate().take(MAX_COMPARED) {
        let earlier = values.iter().take(at).find(|earlier| !is_dynamic(value) && earlier.to_json() == value.to_json());
        if let Some(earlier) = earlier {
            let message = format!("`{name}` has this value already, in line {}", earlier.span.line);
            report.warning_with(
                value.span,
                message,
                Some("each value makes jobs of its own: leave one out".to_owned()),
            );
        }
    }
}

fn filter(filter: &YamlNode, vectors: &[(&str, &YamlNode)], report: &mut Report<'_>) {
    for (name, wanted) in filter.entries() {
        let Some(text) = name.text().filter(|text| !text.contains("${{")) else { continue };
        let Some((_, values)) = vectors.iter().find(|(known, _)| known.eq_ignore_ascii_case(text)) else {
            let known = || vectors.iter().map(|(known, _)| *known);
            let help = suggestion(text, known()).unwrap_or_else(|| format!("its keys are {}", listed(known())));
            report.warning_with(
                name.span,
                format!("the matrix has no key `{text}`: this leaves out nothing"),
                Some(help),
            );
            continue;
        };
        let YamlValue::Sequence(items) = &values.value else { continue };
        if items.len() <= MAX_COMPARED && !items.iter().any(|value| may_match(wanted, value)) {
            let shown: Vec<String> = items.iter().take(8).map(|value| value.to_json().to_string()).collect();
            let help = format!("its values are {}", shown.join(", "));
            report.warning_with(
                wanted.span,
                format!("`{text}` never has this value: this leaves out nothing"),
                Some(help),
            );
        }
    }
}

/// Whether a filter takes a value, or may once expressions are evaluated. It need name only some keys of a mapping, and
/// the first items of a list.
fn may_match(wanted: &YamlNode, value: &YamlNode) -> bool {
    match (&wanted.value, &value.value) {
        (YamlValue::Scalar(one), YamlValue::Scalar(other)) => {
            let dynamic = one.text.contains("${{") || other.text.contains("${{");
            dynamic || equal(&Value::from_json(&one.resolve()), &Value::from_json(&other.resolve()))
        }
        (YamlValue::Scalar(one), _) => one.text.contains("${{"),
        (_, YamlValue::Scalar(other)) => other.text.contains("${{"),
        (YamlValue::Sequence(wanted), YamlValue::Sequence(values)) => {
            wanted.len() <= values.len() && wanted.iter().zip(values).all(|(wanted, value)| may_match(wanted, value))
        }
        (YamlValue::Mapping(wanted), YamlValue::Mapping(_)) => wanted.iter().all(|(name, wanted)| {
            name.text().and_then(|name| value.get(name)).is_some_and(|value| may_match(wanted, value))
        }),
        _ => false,
    }
}
