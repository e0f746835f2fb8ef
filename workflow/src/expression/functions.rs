//! What the functions of the language do. GitHub docs, "HostFunctions".

use super::ast::ExpressionNode;
use super::builtin::Builtin;
use super::case_fold::fold;
use super::evaluated::{Evaluate, Evaluated};
use super::{ExpressionError, ExpressionErrorKind, Value, compare, json};

/// Calls a function. Arguments come unevaluated: `case`, `format` and `join` evaluate only those they need.
pub(super) fn call(
    builtin: Builtin,
    args: &[ExpressionNode],
    evaluator: &mut dyn Evaluate,
) -> Result<Evaluated, ExpressionError> {
    match (builtin, args) {
        (Builtin::Case, _) => case(args, evaluator),
        (Builtin::Contains, [search, item]) => contains(search, item, evaluator),
        (Builtin::EndsWith, [text, end]) => affix(text, end, evaluator, |text, end| text.ends_with(end)),
        (Builtin::StartsWith, [text, start]) => affix(text, start, evaluator, |text, start| text.starts_with(start)),
        (Builtin::Format, [format, args @ ..]) => {
            let format = evaluator.node(format)?.value;
            Formatter { args, values: vec![None; args.len()], evaluator }.format(&format.as_text())
        }
        (Builtin::Join, [items, separator @ ..]) => join(items, separator.first(), evaluator),
        (Builtin::FromJson, [text]) => {
            let text = evaluator.node(text)?.value;
            json::read(&text.as_text(), evaluator.meter()).map(Evaluated::from)
        }
        (Builtin::ToJson, [value]) => {
            let value = evaluator.node(value)?.value;
            json::write(&value, evaluator.meter()).map(Evaluated::from)
        }
        _ => Err(failed("Too few parameters supplied")),
    }
}

fn failed(message: impl Into<String>) -> ExpressionError {
    ExpressionError::new(ExpressionErrorKind::Evaluation, message, 0)
}

fn case(args: &[ExpressionNode], evaluator: &mut dyn Evaluate) -> Result<Evaluated, ExpressionError> {
    for pair in args.chunks(2) {
        match pair {
            [predicate, result] => match evaluator.node(predicate)?.value {
                Value::Bool(true) => return evaluator.node(result),
                Value::Bool(false) => {}
                _ => return Err(failed("case predicate must evaluate to a boolean value")),
            },
            [default] => return evaluator.node(default),
            _ => {}
        }
    }
    Ok(Value::Null.into())
}

fn contains(
    search: &ExpressionNode,
    item: &ExpressionNode,
    evaluator: &mut dyn Evaluate,
) -> Result<Evaluated, ExpressionError> {
    let search = evaluator.node(search)?.value;
    let item = evaluator.node(item)?.value;
    let truth = match &search {
        Value::Array(items) => {
            for candidate in items.iter() {
                evaluator.meter().steps(1)?;
                evaluator.look(candidate)?;
                // Against a number the item is read again each time.
                evaluator.look(&item)?;
                if compare::equal(candidate, &item) {
                    return Ok(true.into());
                }
            }
            false
        }
        Value::Object(_) => false,
        _ if item.is_primitive() => {
            evaluator.look(&search)?;
            evaluator.look(&item)?;
            fold(&search.as_text()).contains(fold(&item.as_text()).as_ref())
        }
        _ => false,
    };
    Ok(truth.into())
}

fn affix(
    text: &ExpressionNode,
    affix: &ExpressionNode,
    evaluator: &mut dyn Evaluate,
    has: fn(&str, &str) -> bool,
) -> Result<Evaluated, ExpressionError> {
    let text = evaluator.node(text)?.value;
    let affix = evaluator.node(affix)?.value;
    evaluator.look(&text)?;
    evaluator.look(&affix)?;
    let primitive = text.is_primitive() && affix.is_primitive();
    Ok((primitive && has(&fold(&text.as_text()), &fold(&affix.as_text()))).into())
}

fn join(
    items: &ExpressionNode,
    separator: Option<&ExpressionNode>,
    evaluator: &mut dyn Evaluate,
) -> Result<Evaluated, ExpressionError> {
    let items = match evaluator.node(items)?.value {
        Value::Array(items) => items,
        Value::Object(_) => return Ok("".into()),
        primitive => return Ok(Value::from(primitive.as_text().as_ref()).into()),
    };
    let separator = match separator {
        Some(node) if items.len() > 1 => Some(evaluator.node(node)?.value).filter(Value::is_primitive),
        _ => None,
    };
    let separator = separator.as_ref().map_or(",".into(), Value::as_text);
    let mut joined = String::new();
    evaluator.meter().value()?;
    for (position, item) in items.iter().enumerate() {
        evaluator.meter().steps(1)?;
        let item = item.as_text();
        let separator = if position == 0 { "" } else { separator.as_ref() };
        evaluator.meter().text(separator.len() + item.len())?;
        joined.push_str(separator);
        joined.push_str(&item);
    }
    Ok(joined.into())
}

/// One call of `format`, whose arguments are evaluated once and only where they are named.
struct Formatter<'f> {
    args: &'f [ExpressionNode],
    values: Vec<Option<Value>>,
    evaluator: &'f mut dyn Evaluate,
}

impl Formatter<'_> {
    fn format(mut self, format: &str) -> Result<Evaluated, ExpressionError> {
        let invalid = || failed(format!("The following format string is invalid: {format}"));
        let mut text = String::new();
        self.evaluator.meter().value()?;
        let mut rest = format;
        while let Some(brace) = rest.find(['{', '}']) {
            let (before, at) = rest.split_at(brace);
            self.append(&mut text, before)?;
            rest = if let Some(after) = at.strip_prefix("{{") {
                self.append(&mut text, "{")?;
                after
            } else if let Some(after) = at.strip_prefix("}}") {
                self.append(&mut text, "}")?;
                after
            } else {
                let (index, specifiers, after) = at.strip_prefix('{').and_then(placeholder).ok_or_else(invalid)?;
                let value = self.argument(index, format)?;
                if !specifiers.is_empty() {
                    return Err(failed(format!(
                        "The following format specifiers '{specifiers}' are not valid for objects of type '{}'",
                        value.kind_name()
                    )));
                }
                self.append(&mut text, &value.as_text())?;
                after
            };
        }
        self.append(&mut text, rest)?;
        Ok(text.into())
    }

    fn append(&mut self, text: &mut String, part: &str) -> Result<(), ExpressionError> {
        self.evaluator.meter().text(part.len())?;
        text.push_str(part);
        Ok(())
    }

    fn argument(&mut self, index: u8, format: &str) -> Result<Value, ExpressionError> {
        let index = usize::from(index);
        let (Some(node), Some(slot)) = (self.args.get(index), self.values.get_mut(index)) else {
            return Err(failed(format!(
                "The following format string references more arguments than were supplied: {format}"
            )));
        };
        self.evaluator.meter().steps(1)?;
        let value = match slot.take() {
            Some(value) => value,
            None => self.evaluator.node(node)?.value,
        };
        *slot = Some(value.clone());
        Ok(value)
    }
}

/// `0}` or `0:specifiers}`: the number, the specifiers, and what comes after.
fn placeholder(text: &str) -> Option<(u8, String, &str)> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (index, rest) = text.split_at(digits);
    let index = index.parse().ok()?;
    if let Some(after) = rest.strip_prefix('}') {
        return Some((index, String::new(), after));
    }
    let mut specifiers = String::new();
    let mut rest = rest.strip_prefix(':')?;
    loop {
        let (before, after) = rest.split_once('}')?;
        specifiers.push_str(before);
        match after.strip_prefix('}') {
            Some(escaped) => {
                specifiers.push('}');
                rest = escaped;
            }
            None => return Some((index, specifiers, after)),
        }
    }
}
