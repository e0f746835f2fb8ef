//! Holds a tree against the schema: keys, types, words, and the names expressions use.

use std::collections::HashMap;

use crate::expression;
use crate::yaml::{self, YamlNode, YamlStyle, YamlValue};

use super::report::Report;
use super::schema::{Key, Map, Need, Otherwise, ROOT, Rule, ScalarRule};

/// Reports whatever in the file does not have its shape.
pub(super) fn check(root: &YamlNode, report: &mut Report<'_>) {
    Checker { report }.node(root, &ROOT, &Allowed::default(), "the file");
}

struct Checker<'r, 'a> {
    report: &'r mut Report<'a>,
}

/// What expressions may name at a position: the names of all rules on the way to it.
#[derive(Default, Clone)]
struct Allowed {
    contexts: Vec<&'static str>,
    functions: Vec<&'static str>,
}

impl Allowed {
    fn within(&self, rule: &Rule) -> Self {
        let mut inner = self.clone();
        inner.contexts.extend(rule.names.contexts);
        inner.functions.extend(rule.names.functions);
        inner
    }
}

impl Checker<'_, '_> {
    fn node(&mut self, node: &YamlNode, rule: &'static Rule, outer: &Allowed, what: &str) {
        let allowed = outer.within(rule);
        match &node.value {
            YamlValue::Scalar(scalar) => self.scalar(node, scalar, rule, &allowed, what),
            YamlValue::Sequence(items) => match rule.list {
                Some(item) => {
                    items.iter().for_each(|node| self.node(node, item, &allowed, &format!("an item of {what}")))
                }
                None => self.report.error(node.span, format!("{what} takes {}, not a list", wanted(rule))),
            },
            YamlValue::Mapping(entries) => self.mapping(node, entries, rule, &allowed, what),
            YamlValue::Tagged(tag, _) => self.report.error(node.span, format!("GitHub knows no tag `{tag}`")),
        }
    }

    fn scalar(&mut self, node: &YamlNode, scalar: &yaml::Scalar, rule: &Rule, allowed: &Allowed, what: &str) {
        let text = scalar.text.as_str();
        if rule.scalar == ScalarRule::Condition {
            if let Err(error) = expression::check_condition(text, &allowed.contexts, &allowed.functions) {
                self.report.expression(node, &error);
            }
            return;
        }
        let value = scalar.resolve();
        let is_text = value.is_string();
        if is_text && text.contains("${{") {
            return self.expression(node, text, rule, allowed, what);
        }
        let fits = match rule.scalar {
            ScalarRule::Refused => false,
            ScalarRule::Text | ScalarRule::Any | ScalarRule::Condition => true,
            ScalarRule::NonEmpty => !text.is_empty() && !value.is_null(),
            ScalarRule::Boolean => value.is_boolean(),
            ScalarRule::Number => value.is_number(),
            ScalarRule::Null => value.is_null(),
            ScalarRule::NullOrBoolean => value.is_null() || value.is_boolean(),
            ScalarRule::Words(words) => words.contains(&text),
        };
        if fits {
            return;
        }
        if let (ScalarRule::Words(words), true) = (rule.scalar, is_text) {
            let message = format!("`{text}` is no value for {what}");
            let help = nearest(text, words).unwrap_or_else(|| format!("it takes {}", wanted(rule)));
            return self.report.error_with_help(node.span, message, help);
        }
        let found = match value {
            serde_json::Value::Null => "nothing",
            serde_json::Value::Bool(_) => "a boolean",
            serde_json::Value::Number(_) => "a number",
            _ if text.is_empty() => "empty text",
            _ => "text",
        };
        self.report.error(node.span, format!("{what} takes {}, not {found}", wanted(rule)));
    }

    fn expression(&mut self, node: &YamlNode, text: &str, rule: &Rule, allowed: &Allowed, what: &str) {
        if allowed.contexts.is_empty() {
            return self
                .report
                .error(node.span, format!("no expression may stand here: {what} is read before any run"));
        }
        if let Err(error) = expression::check(text, &allowed.contexts, &allowed.functions) {
            return self.report.expression(node, &error);
        }
        let takes_text = matches!(rule.scalar, ScalarRule::Text | ScalarRule::NonEmpty | ScalarRule::Any);
        if !takes_text && !stands_alone(text) {
            self.report.error(node.span, format!("{what} takes {}, not text with an expression in it", wanted(rule)));
        }
    }

    fn mapping(
        &mut self,
        node: &YamlNode,
        entries: &[(YamlNode, YamlNode)],
        rule: &Rule,
        allowed: &Allowed,
        what: &str,
    ) {
        match &rule.map {
            Map::Refused => self.report.error(node.span, format!("{what} takes {}, not a mapping", wanted(rule))),
            Map::Keys(keys) => self.keys(node, entries, keys, None, allowed),
            Map::Open(value) => self.keys(node, entries, &[], Some(value), allowed),
            Map::Mixed(keys, value) => self.keys(node, entries, keys, Some(value), allowed),
            Map::Variants(variants, otherwise) => {
                let chosen = variants.iter().find(|(name, _)| node.get(name).is_some());
                match (chosen, otherwise) {
                    (Some((_, rule)), _) | (None, Otherwise::Is(rule)) => self.node(node, rule, allowed, what),
                    (None, Otherwise::Refused(message)) => self.report.error(node.span, *message),
                }
            }
        }
    }

    fn keys(
        &mut self,
        node: &YamlNode,
        entries: &[(YamlNode, YamlNode)],
        keys: &'static [Key],
        open: Option<&'static Rule>,
        allowed: &Allowed,
    ) {
        let mut seen = HashMap::new();
        for (name, value) in entries {
            let Some(text) = self.key_text(name, open.is_some(), allowed) else {
                continue;
            };
            if let Some(first) = seen.insert(text.to_lowercase(), text) {
                let help = format!("`{first}` above is the same: case makes no difference");
                self.report.error_with_help(name.span, format!("`{text}` is already there"), help);
                continue;
            }
            let known = keys.iter().find(|key| key.name == text);
            if known.is_some_and(|key| key.need == Need::Ignored) {
                self.report.warning(name.span, format!("`{text}` has no effect here"));
            }
            match known.map(|key| key.rule).or(open) {
                Some(rule) => self.node(value, rule, allowed, &format!("`{text}`")),
                None => self.unknown(name, text, keys),
            }
        }
        for key in keys.iter().filter(|key| key.need == Need::Required) {
            if !seen.contains_key(key.name) {
                self.report.error(node.span, format!("the key `{}` is missing", key.name));
            }
        }
    }

    fn key_text<'n>(&mut self, name: &'n YamlNode, open: bool, allowed: &Allowed) -> Option<&'n str> {
        let YamlValue::Scalar(scalar) = &name.value else {
            self.report.error(name.span, "a key is text, not a list or mapping");
            return None;
        };
        let text = scalar.text.as_str();
        if text == "<<" && scalar.style == YamlStyle::Plain {
            let help = "write the keys out, or use an alias for the whole mapping";
            self.report.error_with_help(name.span, "GitHub knows no merge keys (`<<`)", help);
            return None;
        }
        if name.is_null() || text.is_empty() {
            self.report.error(name.span, "a key is missing its name");
            return None;
        }
        if text.contains("${{") {
            if !open || allowed.contexts.is_empty() {
                self.report.error(name.span, "no expression may be a key here");
                return None;
            }
            let is_insert =
                stands_alone(text) && text.trim_matches(['$', '{', '}', ' ']).eq_ignore_ascii_case("insert");
            if !is_insert {
                if let Err(error) = expression::check(text, &allowed.contexts, &allowed.functions) {
                    self.report.expression(name, &error);
                    return None;
                }
                self.report.warning(name.span, "expressions in keys are not evaluated: this key stays as it is");
            }
        }
        Some(text)
    }

    fn unknown(&mut self, name: &YamlNode, text: &str, keys: &[Key]) {
        let names: Vec<_> = keys.iter().map(|key| key.name).collect();
        let message = format!("unknown key `{text}`");
        let help = nearest(text, &names).unwrap_or_else(|| format!("known here: {}", listed(&names)));
        self.report.error_with_help(name.span, message, help);
    }
}

/// Whether a text is one expression and nothing else.
fn stands_alone(text: &str) -> bool {
    let text = text.trim();
    text.starts_with("${{") && text.ends_with("}}")
}

fn nearest(text: &str, words: &[&str]) -> Option<String> {
    let lower = text.to_lowercase();
    words
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&lower, word), word))
        .filter(|(distance, word)| *distance <= word.len().div_ceil(3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| format!("did you mean `{word}`?"))
}

fn listed(words: &[&str]) -> String {
    let shown: Vec<_> = words.iter().take(12).map(|word| format!("`{word}`")).collect();
    let more = if words.len() > shown.len() { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// What a position takes, in words.
fn wanted(rule: &Rule) -> String {
    let mut kinds = Vec::new();
    match rule.scalar {
        ScalarRule::Refused => {}
        ScalarRule::Text => kinds.push("text".to_owned()),
        ScalarRule::NonEmpty => kinds.push("text that is not empty".to_owned()),
        ScalarRule::Boolean => kinds.push("`true` or `false`".to_owned()),
        ScalarRule::Number => kinds.push("a number".to_owned()),
        ScalarRule::Null => kinds.push("nothing".to_owned()),
        ScalarRule::NullOrBoolean => kinds.push("nothing or a boolean".to_owned()),
        ScalarRule::Words(words) => kinds.push(listed(words)),
        ScalarRule::Condition => kinds.push("a condition".to_owned()),
        ScalarRule::Any => kinds.push("any value".to_owned()),
    }
    if rule.list.is_some() {
        kinds.push("a list".to_owned());
    }
    if !matches!(rule.map, Map::Refused) {
        kinds.push("a mapping".to_owned());
    }
    kinds.join(" or ")
}
