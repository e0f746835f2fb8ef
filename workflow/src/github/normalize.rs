//! What GitHub's reader makes of a file's tree before anything is checked.
//!
//! Source of the rules: actions/runner, `TemplateReader.ParseScalar` and `YamlObjectReader`.

use super::report::Report;
use crate::yaml::{Scalar, YamlNode, YamlStyle, YamlValue};

/// Tags that a scalar may bear; those of lists and mappings are not looked at.
const TAGS: [&str; 5] = ["str", "bool", "int", "float", "null"];
/// Prefix of these tags.
const CORE: &str = "tag:yaml.org,2002:";

/// Brings a tree into the form that is checked, and reports tags that GitHub does not take.
pub(super) fn normalize(node: &mut YamlNode, report: &mut Report<'_>) {
    let value = std::mem::replace(&mut node.value, YamlValue::Sequence(Vec::new()));
    node.value = match value {
        YamlValue::Scalar(scalar) => {
            if let Some(tag) = scalar.tag.as_deref().filter(|tag| !is_known(tag)) {
                let help = "leave it out: a scalar may have the tags !!str, !!bool, !!int, !!float and !!null";
                report.error_with_help(node.span, format!("unexpected tag `{tag}`"), help);
            }
            YamlValue::Scalar(folded(scalar))
        }
        YamlValue::Sequence(mut items) | YamlValue::Tagged(_, mut items) => {
            items.iter_mut().for_each(|item| normalize(item, report));
            YamlValue::Sequence(items)
        }
        YamlValue::Mapping(mut entries) => {
            for (key, value) in &mut entries {
                normalize(key, report);
                normalize(value, report);
            }
            YamlValue::Mapping(entries)
        }
    };
}

fn is_known(tag: &str) -> bool {
    tag.strip_prefix(CORE).is_some_and(|name| TAGS.contains(&name))
}

/// A scalar that is nothing but one text in an expression, `${{ 'text' }}`, is that text.
fn folded(scalar: Scalar) -> Scalar {
    match literal(&scalar.text) {
        // What reads like an expression itself would be taken for one later.
        Some(text) if !text.contains("${{") => Scalar { text, style: YamlStyle::Quoted, tag: None },
        _ => scalar,
    }
}

fn literal(text: &str) -> Option<String> {
    let expression = text.strip_prefix("${{")?.strip_suffix("}}")?.trim();
    let inner = expression.strip_prefix('\'')?.strip_suffix('\'')?;
    let mut letters = inner.chars();
    let mut text = String::with_capacity(inner.len());
    while let Some(letter) = letters.next() {
        // Within the text a quote is written twice.
        if letter == '\'' && letters.next() != Some('\'') {
            return None;
        }
        text.push(letter);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_alone_is_a_literal() {
        for (text, expected) in [
            ("${{ 'a' }}", Some("a")),
            ("${{'it''s'}}", Some("it's")),
            ("${{ '' }}", Some("")),
            ("${{ '{{ x }}' }}", Some("{{ x }}")),
            ("${{ 'a' }}b", None),
            ("${{ 'a' == 'b' }}", None),
            ("${{ 5 }}", None),
            ("${{ format('x') }}", None),
            ("${{ 'a }}", None),
            ("${{ ' }}", None),
        ] {
            assert_eq!(literal(text).as_deref(), expected, "{text}");
        }
    }
}
