//! Holds a tree against the schema: keys, types, words, and the names expressions use.

use std::collections::HashMap;

use crate::expression;
use crate::spelling::{listed, nearest, suggestion};
use crate::yaml::{self, Span, YamlNode, YamlStyle, YamlValue};

use super::report::Report;
use super::schema::{Key, Map, Need, Otherwise, ROOT, Rule, ScalarRule};

/// Reports whatever in the file does not have its shape.
pub(super) fn check(root: &YamlNode, report: &mut Report<'_>) {
    Checker { report }.node(root, &ROOT, &Allowed::default(), "the file", root.span);
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
    /// `at` is where the node's name stands, or the node itself.
    fn node(&mut self, node: &YamlNode, rule: &'static Rule, outer: &Allowed, what: &str, at: Span) {
        let allowed = outer.within(rule);
        match &node.value {
            YamlValue::Scalar(scalar) => self.scalar(node, scalar, rule, &allowed, what),
            YamlValue::Sequence(items) => match rule.list {
                Some(item) => {
                    let what = format!("an item of {what}");
                    items.iter().for_each(|node| self.node(node, item, &allowed, &what, node.span));
                }
                None => self.report.error(node.span, format!("{what} takes {}, not a list", wanted(rule))),
            },
            YamlValue::Mapping(entries) => self.mapping(node, entries, rule, &allowed, what, at),
            YamlValue::Tagged(tag, _) => self.report.error(node.span, format!("GitHub knows no tag `{tag}`")),
        }
    }

    fn scalar(&mut self, node: &YamlNode, scalar: &yaml::Scalar, rule: &Rule, allowed: &Allowed, what: &str) {
        let text = scalar.text.as_str();
        if rule.scalar == ScalarRule::Condition {
            if let Err(error) = expression::check_condition(text, &allowed.contexts, &allowed.functions) {
                self.wrong_expression(node, &error, allowed);
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
            ScalarRule::Number => scalar.is_number(),
            ScalarRule::Null => value.is_null(),
            ScalarRule::NullOrBoolean => value.is_null() || value.is_boolean(),
            ScalarRule::Words(words) => words.contains(&text),
        };
        if fits {
            return;
        }
        if let (ScalarRule::Words(words), true) = (rule.scalar, is_text) {
            let message = format!("`{text}` is no value for {what}");
            let help = suggestion(text, words.iter().copied()).unwrap_or_else(|| format!("it takes {}", wanted(rule)));
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
            return self.wrong_expression(node, &error, allowed);
        }
        let takes_text = matches!(rule.scalar, ScalarRule::Text | ScalarRule::NonEmpty | ScalarRule::Any);
        if !takes_text && !stands_alone(text) {
            self.report.error(node.span, format!("{what} takes {}, not text with an expression in it", wanted(rule)));
        }
    }

    fn wrong_expression(&mut self, node: &YamlNode, error: &expression::ExpressionError, allowed: &Allowed) {
        let rest = node.text().and_then(|text| text.get(error.position..)).unwrap_or_default();
        let word = rest.get(..expression::word_length(rest)).unwrap_or_default();
        let help = if rest.starts_with('"') {
            Some("text stands in single quotes: 'main'".to_owned())
        } else if error.message.starts_with("Unrecognized named-value") {
            suggestion(word, allowed.contexts.iter().copied())
                .or_else(|| Some(format!("known here: {}", listed(allowed.contexts.iter().copied()))))
        } else if error.message.starts_with("Unrecognized function") {
            suggestion(word, expression::FUNCTIONS.into_iter().chain(allowed.functions.iter().copied()))
        } else {
            None
        };
        self.report.expression(node, error, help);
    }

    fn mapping(
        &mut self,
        node: &YamlNode,
        entries: &[(YamlNode, YamlNode)],
        rule: &Rule,
        allowed: &Allowed,
        what: &str,
        at: Span,
    ) {
        match &rule.map {
            Map::Refused => self.report.error(node.span, format!("{what} takes {}, not a mapping", wanted(rule))),
            Map::Keys(keys) => self.keys(entries, keys, None, allowed, at),
            Map::Open(value) => self.keys(entries, &[], Some(value), allowed, at),
            Map::Mixed(keys, value) => self.keys(entries, keys, Some(value), allowed, at),
            Map::Variants(variants, otherwise) => {
                let chosen = variants.iter().find(|(name, _)| node.get(name).is_some());
                match (chosen, otherwise) {
                    (Some((_, rule)), _) | (None, Otherwise::Is(rule)) => self.node(node, rule, allowed, what, at),
                    (None, Otherwise::Refused(message)) => {
                        let names = || variants.iter().map(|(name, _)| *name);
                        let meant = entries.iter().find_map(|(key, _)| suggestion(key.text()?, names()));
                        self.report.error_with(node.span, *message, meant);
                    }
                }
            }
        }
    }

    fn keys(
        &mut self,
        entries: &[(YamlNode, YamlNode)],
        keys: &'static [Key],
        open: Option<&'static Rule>,
        allowed: &Allowed,
        at: Span,
    ) {
        let mut seen: HashMap<String, (&str, Span)> = HashMap::new();
        let mut meant = Vec::new();
        for (name, value) in entries {
            let Some(text) = self.key_text(name, open.is_some(), allowed) else {
                continue;
            };
            if let Some((first, place)) = seen.insert(text.to_lowercase(), (text, name.span)) {
                let help = format!("`{first}` in line {} is the same: case makes no difference", place.line);
                self.report.error_with_help(name.span, format!("`{text}` is already there"), help);
                continue;
            }
            let known = keys.iter().find(|key| key.name == text);
            if known.is_some_and(|key| key.need == Need::Ignored) {
                self.report.warning(name.span, format!("`{text}` has no effect here"));
            }
            match known.map(|key| key.rule).or(open) {
                Some(rule) => self.node(value, rule, allowed, &format!("`{text}`"), name.span),
                // A step that both runs and uses something is complained of by the rules.
                None if text == "uses" && keys.iter().any(|key| key.name == "run") => {}
                None => meant.extend(self.unknown(name, text, keys)),
            }
        }
        for key in keys.iter().filter(|key| key.need == Need::Required) {
            // Who misspelt it is told so once.
            if !seen.contains_key(key.name) && !meant.contains(&key.name) {
                self.report.error(at, format!("the key `{}` is missing", key.name));
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
            if !is_insert && let Err(error) = expression::check(text, &allowed.contexts, &allowed.functions) {
                self.wrong_expression(name, &error, allowed);
                return None;
            }
        }
        Some(text)
    }

    /// Complains of a key, and gives the one that may be meant.
    fn unknown(&mut self, name: &YamlNode, text: &str, keys: &[Key]) -> Option<&'static str> {
        let names = || keys.iter().map(|key| key.name);
        let meant = nearest(text, names());
        let help = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known here: {}", listed(names())),
        };
        self.report.error_with_help(name.span, format!("unknown key `{text}`"), help);
        meant
    }
}

/// Whether a text is one expression and nothing else.
fn stands_alone(text: &str) -> bool {
    let text = text.trim();
    text.starts_with("${{") && text.ends_with("}}")
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
        ScalarRule::Words(words) => kinds.push(listed(words.iter().copied())),
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
