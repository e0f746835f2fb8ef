//! Follows the kinds of values through an expression and says what can't be meant: a property that is not there, a
//! comparison that is never true, arguments that a function makes nothing of.
//!
//! None of this is refused by GitHub: such expressions are evaluated, to nothing.

use super::{
    Expression, StaticType, Value,
    ast::{Callee, ExpressionNode, Operator},
    builtin::Builtin,
};
use crate::spelling::{listed, suggestion};

/// Something that can't be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeFault {
    /// Where: a byte offset in the expression.
    pub position: usize,
    /// Bytes of what is wrong.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// What the contexts are where an expression stands, by their names in lower case.
pub trait ContextTypes {
    /// The kind of a context.
    fn context(&self, name: &str) -> StaticType;
}

/// The kind of an expression's value, and what can't be meant in it.
pub fn type_check(expression: &Expression, contexts: &dyn ContextTypes) -> (StaticType, Vec<TypeFault>) {
    let mut checker = Checker { text: &expression.text, contexts, faults: Vec::new() };
    let kind = expression.root.as_ref().map_or(StaticType::Null, |root| checker.node(root).kind);
    (kind, checker.faults)
}

struct Checker<'c> {
    text: &'c str,
    contexts: &'c dyn ContextTypes,
    faults: Vec<TypeFault>,
}

/// A kind, and whether a `*` made it: then what follows is taken of each item.
struct Inferred {
    kind: StaticType,
    filtered: bool,
}

impl From<StaticType> for Inferred {
    fn from(kind: StaticType) -> Self {
        Self { kind, filtered: false }
    }
}

impl Checker<'_> {
    /// Recursion is bounded by the depth that the parser allows.
    fn node(&mut self, node: &ExpressionNode) -> Inferred {
        match node {
            ExpressionNode::Literal(value) => literal(value).into(),
            ExpressionNode::Wildcard => StaticType::Any.into(),
            ExpressionNode::Context { name, .. } => self.contexts.context(&name.to_lowercase()).into(),
            ExpressionNode::Call { callee: Callee::Builtin(builtin), args, at, .. } => {
                self.builtin(*builtin, args, *at).into()
            }
            ExpressionNode::Call { name, args, .. } => {
                args.iter().for_each(|argument| drop(self.node(argument)));
                let kind = if name.eq_ignore_ascii_case("hashFiles") { StaticType::Text } else { StaticType::Bool };
                kind.into()
            }
            ExpressionNode::Index { target, key, at } => self.index(target, key, *at),
            ExpressionNode::Not(node) => {
                self.node(node);
                StaticType::Bool.into()
            }
            ExpressionNode::Compare(operator, left, right) => {
                self.compare(*operator, left, right);
                StaticType::Bool.into()
            }
            ExpressionNode::All(nodes) => self.all(nodes).1.into(),
            ExpressionNode::Any(nodes) => self.any(nodes).into(),
        }
    }

    fn kind(&mut self, node: &ExpressionNode) -> StaticType {
        self.node(node).kind
    }

    /// The kind where all hold, and the kind in any case.
    fn all(&mut self, nodes: &[ExpressionNode]) -> (StaticType, StaticType) {
        let Some((last, before)) = nodes.split_last() else { return (StaticType::Any, StaticType::Any) };
        let mut otherwise = Vec::new();
        for node in before {
            let kind = self.kind(node);
            // What is never false does not end the chain.
            let holds = kind.is_collection() || matches!(node, ExpressionNode::Literal(value) if value.truthy());
            if !holds {
                otherwise.push(kind);
            }
        }
        let last = self.kind(last);
        let whole = otherwise.iter().fold(last.clone(), |whole, kind| whole.join(kind));
        (last, whole)
    }

    /// The first that holds, or the last. What `&&` gives only where something does not hold is passed over.
    fn any(&mut self, nodes: &[ExpressionNode]) -> StaticType {
        let count = nodes.len();
        let kinds: Vec<StaticType> = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| match node {
                ExpressionNode::All(nodes) if at + 1 < count => self.all(nodes).0,
                node => self.kind(node),
            })
            .collect();
        kinds.into_iter().reduce(|left, right| left.join(&right)).unwrap_or_default()
    }

    fn index(&mut self, target: &ExpressionNode, key: &ExpressionNode, at: usize) -> Inferred {
        let Inferred { kind, filtered } = self.node(target);
        if matches!(key, ExpressionNode::Wildcard) {
            let members = match (&kind, filtered) {
                (StaticType::List(item), true) => item.members(),
                _ => kind.members(),
            };
            return Inferred { kind: members, filtered: true };
        }
        if let (StaticType::List(item), true) = (&kind, filtered) {
            let member = self.member(item, key, at, true);
            return Inferred { kind: StaticType::list_of([member]), filtered: true };
        }
        self.member(&kind, key, at, false).into()
    }

    /// `each`: the key is taken of each item of a list, and items without it are left out.
    fn member(&mut self, kind: &StaticType, key: &ExpressionNode, at: usize, each: bool) -> StaticType {
        let name = match key {
            ExpressionNode::Literal(Value::String(name)) => Some(&**name),
            _ => None,
        };
        let key = self.kind(key);
        match (kind, name) {
            (StaticType::Any, _) => StaticType::Any,
            (StaticType::Object(object), Some(name)) => match object.get(name) {
                Some(member) => member.clone(),
                None => {
                    let near = suggestion(name, object.names());
                    let known = || match (object.remedy, object.names().next()) {
                        ("", Some(_)) => Some(format!("it has {}", listed(object.names()))),
                        ("", None) => None,
                        (remedy, _) => Some(remedy.to_owned()),
                    };
                    let whole = self.before(at);
                    self.fault_at(at, format!("`{whole}` has no `{name}`"), near.or_else(known));
                    StaticType::Any
                }
            },
            (StaticType::Object(object), None) => {
                if matches!(key, StaticType::Text | StaticType::Any) {
                    return object.others.clone().unwrap_or_default();
                }
                let help = Some("name a key, in quotes between the brackets".to_owned());
                self.fault_at(at, format!("`{}` goes by names, not by {}", self.before(at), key.named()), help);
                StaticType::Any
            }
            (StaticType::List(item), None) => item.as_ref().clone(),
            (StaticType::List(_), Some(name)) if name.parse::<f64>().is_ok() => StaticType::Any,
            (StaticType::List(_), Some(name)) => {
                let whole = self.before(at);
                let help = Some(format!("`{whole}.*.{name}` takes it of each item, `{whole}[0].{name}` of the first"));
                self.fault_at(at, format!("`{whole}` is a list: it has no `{name}`"), help);
                StaticType::Any
            }
            (other, name) if !each => {
                let (whole, what) = (self.before(at), name.map_or_else(String::new, |name| format!(" `{name}`")));
                let nothing = if what.is_empty() { "no parts" } else { "no" };
                self.fault_at(at, format!("`{whole}` is {}: it has {nothing}{what}", other.named()), None);
                StaticType::Any
            }
            _ => StaticType::Any,
        }
    }

    fn compare(&mut self, operator: Operator, left: &ExpressionNode, right: &ExpressionNode) {
        let at = start(left).or_else(|| start(right));
        let (left, right) = (self.kind(left), self.kind(right));
        let message = match operator {
            Operator::Equal | Operator::NotEqual => {
                let apart = |one: &StaticType, other: &StaticType| {
                    one.is_collection() && !matches!(other, StaticType::Any | StaticType::Null)
                };
                let same = std::mem::discriminant(&left) == std::mem::discriminant(&right);
                if same || !(apart(&left, &right) || apart(&right, &left)) {
                    return;
                }
                format!("{} is never equal to {}", capital(left.named()), right.named())
            }
            _ => {
                let ordered =
                    |kind: &StaticType| matches!(kind, StaticType::Any | StaticType::Number | StaticType::Text);
                let Some(kind) = [&left, &right].into_iter().find(|kind| !ordered(kind)) else { return };
                format!("`<` and `>` compare numbers, and this is {}", kind.named())
            }
        };
        self.fault_from(at, message, None);
    }

    fn builtin(&mut self, builtin: Builtin, args: &[ExpressionNode], at: usize) -> StaticType {
        let kinds: Vec<StaticType> = args.iter().map(|argument| self.kind(argument)).collect();
        let places: Vec<usize> = args.iter().map(|argument| start(argument).unwrap_or(at)).collect();
        let mut refuse = |number: usize, wanted: &str| {
            if let (Some(kind), Some(place)) = (kinds.get(number), places.get(number)) {
                let message = format!("the function takes {wanted} here, and this is {}", kind.named());
                self.fault_from(Some(*place), message, None);
            }
        };
        let is_collection = |number: usize| kinds.get(number).is_some_and(StaticType::is_collection);
        match builtin {
            Builtin::Contains => {
                if matches!(kinds.first(), Some(StaticType::Object(_))) {
                    refuse(0, "text or a list");
                }
                if is_collection(1) {
                    refuse(1, "text, a number or a boolean");
                }
                StaticType::Bool
            }
            Builtin::StartsWith | Builtin::EndsWith => {
                (0..2).filter(|number| is_collection(*number)).for_each(|number| refuse(number, "text"));
                StaticType::Bool
            }
            Builtin::Join => {
                if matches!(kinds.first(), Some(StaticType::Object(_))) {
                    refuse(0, "a list");
                }
                StaticType::Text
            }
            Builtin::FromJson => {
                if is_collection(0) {
                    refuse(0, "text");
                }
                self.json(args, at)
            }
            Builtin::Format => {
                self.placeholders(args, at);
                StaticType::Text
            }
            Builtin::ToJson => StaticType::Text,
            Builtin::Case => {
                for number in (0..kinds.len().saturating_sub(1)).step_by(2) {
                    if !matches!(kinds.get(number), Some(StaticType::Any | StaticType::Bool)) {
                        refuse(number, "a boolean");
                    }
                }
                let is_value = |at: usize| at % 2 == 1 || at + 1 == kinds.len();
                let values = kinds.iter().enumerate().filter(|(at, _)| is_value(*at)).map(|(_, kind)| kind.clone());
                values.reduce(|left, right| left.join(&right)).unwrap_or_default()
            }
        }
    }

    /// What `fromJSON` makes of text that is written out.
    fn json(&mut self, args: &[ExpressionNode], at: usize) -> StaticType {
        let Some(ExpressionNode::Literal(Value::String(text))) = args.first() else { return StaticType::Any };
        match serde_json::from_str::<serde_json::Value>(text) {
            Ok(value) => StaticType::of_json(&value),
            Err(error) => {
                self.fault_at(at, format!("`fromJSON` needs JSON text, and this is none: {error}"), None);
                StaticType::Any
            }
        }
    }

    /// Holds the `{0}` of a format that is written out against what is given for them.
    fn placeholders(&mut self, args: &[ExpressionNode], at: usize) {
        let Some((ExpressionNode::Literal(Value::String(format)), given)) = args.split_first() else { return };
        let named = placeholders(format);
        if let Some(number) = named.iter().find(|number| **number >= given.len()) {
            let count = if given.is_empty() { "nothing".to_owned() } else { format!("{} of them", given.len()) };
            let message = format!("the format names `{{{number}}}`, and {count} is given: they count from 0");
            self.fault_at(at, message, None);
        } else if let Some(number) = (0..given.len()).find(|number| !named.contains(number)) {
            let message = format!("the format has no `{{{number}}}`: what is given for it is not used");
            self.fault_at(at, message, Some("put it into the format, or leave it out".to_owned()));
        }
    }

    /// The text of what a key at this place is taken of.
    fn before(&self, at: usize) -> String {
        let text = self.text.get(..at).unwrap_or_default();
        let text = text.trim_end_matches(|sign: char| sign == '.' || sign == '[' || sign.is_whitespace());
        let depth = |sign| i32::from(sign == ']' || sign == ')') - i32::from(sign == '[' || sign == '(');
        let mut open = 0;
        let begins = text.char_indices().rev().find_map(|(index, sign)| {
            open += depth(sign);
            let goes_on = sign.is_alphanumeric() || "_-.*[]()'".contains(sign) || open > 0;
            (open < 0 || !goes_on).then_some(index + sign.len_utf8())
        });
        text.get(begins.unwrap_or(0)..).unwrap_or_default().to_owned()
    }

    /// About the word at a place.
    fn fault_at(&mut self, at: usize, message: String, help: Option<String>) {
        let rest = self.text.get(at..).unwrap_or_default();
        self.faults.push(TypeFault { position: at, length: word_length(rest), message, help });
    }

    /// About what begins at a place, or about the whole expression.
    fn fault_from(&mut self, at: Option<usize>, message: String, help: Option<String>) {
        let at = at.unwrap_or(0);
        let rest = self.text.get(at..).unwrap_or_default();
        let goes_on = |sign: char| sign.is_alphanumeric() || "_-.*".contains(sign);
        let length = rest.find(|sign| !goes_on(sign)).unwrap_or(rest.len());
        let length = if length == 0 { self.text.len() - at } else { length };
        self.faults.push(TypeFault { position: at, length, message, help });
    }
}

/// Bytes of the word or quoted text that a text begins with, at least one sign.
pub(crate) fn word_length(rest: &str) -> usize {
    if let Some(quoted) = rest.strip_prefix('\'') {
        return quoted.find('\'').map_or(rest.len(), |end| end + 2);
    }
    let length = rest.find(|sign: char| !(sign.is_alphanumeric() || sign == '_' || sign == '-'));
    let first = rest.chars().next().map_or(0, char::len_utf8);
    length.unwrap_or(rest.len()).max(first)
}

/// Where a part of an expression begins, where that is known.
fn start(node: &ExpressionNode) -> Option<usize> {
    match node {
        ExpressionNode::Context { at, .. } | ExpressionNode::Call { at, .. } => Some(*at),
        ExpressionNode::Index { target, .. } => start(target),
        ExpressionNode::Compare(_, left, _) => start(left),
        ExpressionNode::All(nodes) | ExpressionNode::Any(nodes) => nodes.first().and_then(start),
        ExpressionNode::Literal(_) | ExpressionNode::Wildcard | ExpressionNode::Not(_) => None,
    }
}

fn literal(value: &Value) -> StaticType {
    match value {
        Value::Bool(_) => StaticType::Bool,
        Value::Number(_) => StaticType::Number,
        Value::String(_) => StaticType::Text,
        Value::Null => StaticType::Null,
        Value::Array(_) | Value::Object(_) => StaticType::Any,
    }
}

fn capital(text: &str) -> String {
    let mut signs = text.chars();
    signs.next().map_or_else(String::new, |first| first.to_uppercase().chain(signs).collect())
}

/// The numbers in the `{…}` of a format; `{{` and `}}` stand for braces.
fn placeholders(format: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    let text = format.replace("{{", "").replace("}}", "");
    for part in text.split('{').skip(1) {
        let digits = part.split(['}', ':']).next().unwrap_or_default();
        numbers.extend(digits.parse::<usize>());
    }
    numbers
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::expression::{ObjectType, parse};

    struct TestContexts;

    impl ContextTypes for TestContexts {
        fn context(&self, name: &str) -> StaticType {
            match name {
                "github" => StaticType::of_json(&json!({"ref": "x", "event_name": "x", "labels": [{"name": "x"}]})),
                "env" => ObjectType::open(StaticType::Text).into(),
                "matrix" => StaticType::of_json(&json!({"n": 1, "os": {"name": "x"}, "flag": true})),
                _ => StaticType::Any,
            }
        }
    }

    fn faults(text: &str) -> Vec<(String, String)> {
        let (_, faults) = type_check(&parse(text).unwrap(), &TestContexts);
        let shown = |fault: TypeFault| {
            let word = text.get(fault.position..fault.position + fault.length).unwrap_or_default();
            (word.to_owned(), format!("{}; {}", fault.message, fault.help.unwrap_or_default()))
        };
        faults.into_iter().map(shown).collect()
    }

    #[test]
    fn what_can_not_be_meant_is_named_with_its_word_and_a_remedy() {
        for (text, word, says) in [
            ("github.event_nam", "event_nam", "`github` has no `event_nam`; did you mean `event_name`?"),
            ("github['reff'] == 'x'", "'reff'", "`github` has no `reff`; did you mean `ref`?"),
            ("matrix.os.nam", "nam", "`matrix.os` has no `nam`; did you mean `name`?"),
            ("contains(matrix.os.nam, 'x')", "nam", "`matrix.os` has no `nam`"),
            ("github.ref.name", "name", "`github.ref` is text: it has no `name`"),
            ("github.labels.name", "name", "`github.labels.*.name` takes it of each item"),
            ("github.labels.*.nam", "nam", "has no `nam`; did you mean `name`?"),
            ("env[0]", "0", "`env` goes by names, not by a number"),
            ("env[matrix.flag]", "matrix", "not by a boolean"),
            ("matrix.os == 'x'", "matrix.os", "An object is never equal to text"),
            ("matrix.flag > 1", "matrix.flag", "compare numbers, and this is a boolean"),
            ("startsWith('x', matrix.os)", "matrix.os", "takes text here, and this is an object"),
            ("contains(matrix.os, 'x')", "matrix.os", "takes text or a list here"),
            ("fromJSON('[1')", "fromJSON", "needs JSON text"),
            ("fromJSON('{\"a\": 1}').b", "b", "has no `b`; it has `a`"),
            ("format('{0}{1}', 1)", "format", "names `{1}`, and 1 of them is given"),
            ("format('{0}', 1, 2)", "format", "has no `{1}`"),
            ("github.evnt && github.ref", "evnt", "has no `evnt`"),
            ("case('x', 1, 2)", "case", "takes a boolean here"),
        ] {
            let found = faults(text);
            assert!(matches!(&found[..], [(at, said)] if at == word && said.contains(says)), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_may_be_meant_is_left_alone() {
        for text in [
            "github.ref == 'x' && 1 || 2",
            "GitHub.Event_Name",
            "github.labels.*.name",
            "contains(github.labels.*.name, 'bug')",
            "github.labels[0].name",
            "env.ANY",
            "env[github.ref]",
            "inputs.any.thing[0].at.all",
            "matrix.n > 1 && matrix.flag == true && null == matrix.os && '1' == matrix.n",
            "matrix.os == matrix.os",
            "format('{0} {{1}} {1:x}', 1, 2)",
            "fromJSON(env.X).a",
            "case(matrix.flag, 1, 2) > 0",
            "toJSON(matrix)",
        ] {
            assert_eq!(faults(text), [], "{text}");
        }
    }

    #[test]
    fn the_kind_of_what_follows_a_condition_is_that_of_what_is_chosen() {
        for (text, expected) in [
            ("matrix.flag && 60 || 20", StaticType::Number),
            ("'x' && 60", StaticType::Number),
            ("matrix.flag && 60", StaticType::Any),
            ("github.ref", StaticType::Text),
            ("case(matrix.flag, 'a', 'b')", StaticType::Text),
            ("null", StaticType::Null),
        ] {
            assert_eq!(type_check(&parse(text).unwrap(), &TestContexts).0, expected, "{text}");
        }
    }
}
