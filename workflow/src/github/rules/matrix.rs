//! Filters of a matrix that can never be right, found where no expression stands in the way.

use crate::{
    github::{matrix, report::Report},
    yaml::{YamlNode, YamlValue},
};

/// Reports what no evaluation of the matrix could mend.
pub(super) fn check(node: &YamlNode, report: &mut Report<'_>) {
    let entries = node.entries();
    let is_filter = |name: &str| name.eq_ignore_ascii_case("include") || name.eq_ignore_ascii_case("exclude");
    let vectors: Vec<&str> =
        entries.iter().filter_map(|(name, _)| name.text()).filter(|name| !is_filter(name)).collect();
    for (name, values) in entries {
        let Some(name) = name.text() else { continue };
        let is_empty = matches!(&values.value, YamlValue::Sequence(items) if items.is_empty());
        if is_empty && !is_filter(name) && !name.contains("${{") {
            report.error(values.span, format!("the matrix key `{name}` has no values"));
        }
    }
    if node.to_json().to_string().contains("${{") || !matches!(node.value, YamlValue::Mapping(_)) {
        return;
    }
    let filter = |key: &str| {
        node.entries().iter().find(|(name, _)| name.text().is_some_and(|text| text.eq_ignore_ascii_case(key)))
    };
    let items = |key: &str| filter(key).map(|(_, list)| list.items()).unwrap_or_default();
    let is_empty = |item: &YamlNode| matches!(&item.value, YamlValue::Mapping(entries) if entries.is_empty());
    for item in items("include").iter().filter(|item| is_empty(item)) {
        report.error(item.span, matrix::EMPTY_INCLUDE);
    }
    for item in items("exclude") {
        if is_empty(item) {
            report.error(item.span, matrix::EMPTY_EXCLUDE);
        }
        for (name, _) in item.entries() {
            let Some(text) = name.text() else { continue };
            if !vectors.iter().any(|vector| vector.eq_ignore_ascii_case(text)) {
                let help = match vectors.as_slice() {
                    [] => "it has no keys but `include` and `exclude`".to_owned(),
                    _ => format!("its keys are {}", vectors.join(", ")),
                };
                report.error_with_help(name.span, matrix::unknown_exclude(text), help);
            }
        }
    }
    if vectors.is_empty() && items("include").is_empty() {
        report.error(node.span, matrix::NO_VECTOR);
    }
}
