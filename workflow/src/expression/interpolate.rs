//! Expressions inside other text: `${{ }}` in strings and trees, and `if:` conditions.

use serde_json::Value as Json;

use super::limits::{MAX_LENGTH, Meter};
use super::{
    Expression, ExpressionError, ExpressionErrorKind, HostFunctionError, Object, Scope, Value, evaluate, parse,
    parse_known,
};

const OPEN: &str = "${{";
const CLOSE: &str = "}}";

/// The value of `text`: an expression that stands alone keeps its type, expressions among other text are put in as
/// text, and text without expressions is itself.
///
/// # Errors
/// The first mistake; its position is a byte offset in `text`.
pub fn interpolate(text: &str, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
    interpolate_metered(text, scope, &mut Meter::new(scope.limits))
}

/// As [`interpolate`], with the value as text.
///
/// # Errors
/// As [`interpolate`].
pub fn interpolate_text(text: &str, scope: &Scope<'_>) -> Result<String, ExpressionError> {
    interpolate(text, scope).map(|value| value.as_text().into_owned())
}

/// Interpolates every string in `tree`, keys too, at any depth. The entries of a mapping under the key `${{ insert }}` take
/// that key's place, and an item that is a list stands for that list's items. All expressions of the tree share one budget.
///
/// # Errors
/// The first mistake, a key that comes out twice among them; its position is a byte offset in the string it is in.
pub fn interpolate_tree(tree: &Json, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
    interpolate_node(tree, scope, &mut Meter::new(scope.limits))
}

/// Whether an `if:` holds. `text` may be with or without `${{ }}`; where it calls no status function it holds only if
/// `success()` does too.
///
/// # Errors
/// The first mistake; its position is a byte offset in `text`.
pub fn condition(text: &str, scope: &Scope<'_>) -> Result<bool, ExpressionError> {
    let segments = parsed(condition_segments(text)?)?;
    let mut asks_status = false;
    for (start, expression) in segments.iter().filter_map(Segment::expression) {
        asks_status |= expression.calls_status_function();
        if let Some(root) = &expression.root {
            evaluate::check_names(root, &expression.text, scope).map_err(|error| error.moved(start))?;
        }
    }
    if !asks_status && !succeeded(scope)? {
        return Ok(false);
    }
    if segments.is_empty() {
        return Ok(true);
    }
    joined(&segments, scope, &mut Meter::new(scope.limits)).map(|value| value.truthy())
}

/// Checks the expressions in `text` without evaluating them: their form, the contexts and, beside GitHub's own, the
/// functions they name.
///
/// # Errors
/// The first mistake; its position is a byte offset in `text`.
pub fn check(text: &str, allowed_contexts: &[&str], allowed_functions: &[&str]) -> Result<(), ExpressionError> {
    check_segments(&segments(text)?, allowed_contexts, allowed_functions)
}

/// As [`check`], for an `if:`.
///
/// # Errors
/// As [`check`].
pub fn check_condition(
    text: &str,
    allowed_contexts: &[&str],
    allowed_functions: &[&str],
) -> Result<(), ExpressionError> {
    check_segments(&condition_segments(text)?, allowed_contexts, allowed_functions)
}

/// The expressions in `text` that can be read, each with the byte offset at which it begins.
pub(crate) fn expressions(text: &str) -> Vec<(usize, Expression)> {
    let segments = segments(text).unwrap_or_default();
    let parsed = |(start, text): (usize, &&str)| Some((start, parse(text).ok()?));
    segments.iter().filter_map(Segment::expression).filter_map(parsed).collect()
}

fn check_segments(
    segments: &[Segment<'_, &str>],
    contexts: &[&str],
    functions: &[&str],
) -> Result<(), ExpressionError> {
    for (start, text) in segments.iter().filter_map(Segment::expression) {
        parse_known(text, contexts, functions).map_err(|error| error.moved(start))?;
    }
    Ok(())
}

/// A piece of text, its expressions as `E`.
enum Segment<'t, E> {
    Literal(&'t str),
    Expression { start: usize, expression: E },
}

impl<E> Segment<'_, E> {
    fn expression(&self) -> Option<(usize, &E)> {
        match self {
            Self::Literal(_) => None,
            Self::Expression { start, expression } => Some((*start, expression)),
        }
    }
}

fn segments(text: &str) -> Result<Vec<Segment<'_, &str>>, ExpressionError> {
    let mut segments = Vec::new();
    let mut position = 0;
    while let Some((literal, rest)) = text.get(position..).and_then(|rest| rest.split_once(OPEN)) {
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal));
        }
        let open = position + literal.len();
        let Some(length) = closing(rest) else {
            let message = "The expression is not closed. An unescaped ${{ sequence was found, but the closing }} \
                           sequence was not found.";
            return Err(ExpressionError::new(ExpressionErrorKind::Parsing, message, open));
        };
        let body = rest.get(..length).unwrap_or(rest);
        let expression = body.trim();
        if expression.is_empty() {
            return Err(ExpressionError::new(ExpressionErrorKind::Parsing, "An expression was expected", open));
        }
        let start = open + OPEN.len() + (body.len() - body.trim_start().len());
        segments.push(Segment::Expression { start, expression });
        position = open + OPEN.len() + length + CLOSE.len();
    }
    match text.get(position..) {
        Some(literal) if !literal.is_empty() => segments.push(Segment::Literal(literal)),
        _ => {}
    }
    check_length(&segments)?;
    Ok(segments)
}

/// Words among expressions become one expression, `format('words {0}', …)`, which may be no longer than any other
/// (actions/runner, `TemplateReader.ParseScalar`).
fn check_length(segments: &[Segment<'_, &str>]) -> Result<(), ExpressionError> {
    let expressions = || segments.iter().filter_map(Segment::expression).map(|(_, text)| text.encode_utf16().count());
    if segments.len() < 2 || expressions().next().is_none() {
        return Ok(());
    }
    let words = segments.iter().map(|segment| match segment {
        // Quotes and braces are written twice.
        Segment::Literal(text) => {
            text.encode_utf16().count() + text.bytes().filter(|byte| matches!(byte, b'\'' | b'{' | b'}')).count()
        }
        Segment::Expression { .. } => 0,
    });
    let placed: usize =
        expressions().enumerate().map(|(at, length)| at.to_string().len() + length + "{}, ".len()).sum();
    match "format('')".len() + words.sum::<usize>() + placed > MAX_LENGTH {
        true => {
            let message = format!("Exceeded max expression length {MAX_LENGTH}");
            Err(ExpressionError::new(ExpressionErrorKind::Parsing, message, 0))
        }
        false => Ok(()),
    }
}

/// Where the `}}` is that ends an expression: the first one outside a string.
fn closing(rest: &str) -> Option<usize> {
    let mut quoted = false;
    rest.char_indices().map(|(at, _)| at).find(|at| {
        let tail = rest.get(*at..).unwrap_or("");
        quoted ^= tail.starts_with('\'');
        !quoted && tail.starts_with(CLOSE)
    })
}

/// An `if:` is one expression even without `${{ }}`.
fn condition_segments(text: &str) -> Result<Vec<Segment<'_, &str>>, ExpressionError> {
    let expression = text.trim();
    if expression.is_empty() {
        return Ok(Vec::new());
    }
    let start = text.len() - text.trim_start().len();
    if !expression.contains(OPEN) {
        return Ok(vec![Segment::Expression { start, expression }]);
    }
    let mut segments = segments(expression).map_err(|error| error.moved(start))?;
    for segment in &mut segments {
        if let Segment::Expression { start: inner, .. } = segment {
            *inner += start;
        }
    }
    Ok(segments)
}

fn parsed<'t>(segments: Vec<Segment<'t, &'t str>>) -> Result<Vec<Segment<'t, Expression>>, ExpressionError> {
    let parse = |segment| match segment {
        Segment::Literal(text) => Ok(Segment::Literal(text)),
        Segment::Expression { start, expression } => {
            let expression = parse(expression).map_err(|error: ExpressionError| error.moved(start))?;
            Ok(Segment::Expression { start, expression })
        }
    };
    segments.into_iter().map(parse).collect()
}

fn interpolate_metered(text: &str, scope: &Scope<'_>, meter: &mut Meter) -> Result<Value, ExpressionError> {
    if !text.contains(OPEN) {
        return Ok(text.into());
    }
    joined(&parsed(segments(text)?)?, scope, meter)
}

fn joined(
    segments: &[Segment<'_, Expression>],
    scope: &Scope<'_>,
    meter: &mut Meter,
) -> Result<Value, ExpressionError> {
    let evaluate = |start: usize, expression: &Expression, meter: &mut Meter| {
        expression.evaluate_metered(scope, meter).map_err(|error| error.moved(start))
    };
    if let [Segment::Expression { start, expression }] = segments {
        return evaluate(*start, expression, meter);
    }
    let mut text = String::new();
    for segment in segments {
        match segment {
            Segment::Literal(literal) => {
                meter.text(literal.len())?;
                text.push_str(literal);
            }
            Segment::Expression { start, expression } => {
                let value = evaluate(*start, expression, meter)?;
                let value = value.as_text();
                meter.text(value.len()).map_err(|error| error.moved(*start))?;
                text.push_str(&value);
            }
        }
    }
    Ok(text.into())
}

fn interpolate_node(tree: &Json, scope: &Scope<'_>, meter: &mut Meter) -> Result<Value, ExpressionError> {
    match tree {
        Json::String(text) => interpolate_metered(text, scope, meter),
        Json::Array(items) => {
            let mut values = Vec::new();
            for item in items {
                match (item, interpolate_node(item, scope, meter)?) {
                    // An expression that is a list stands for that list's items.
                    (Json::String(_), Value::Array(inserted)) => {
                        meter.elements(inserted.len())?;
                        values.extend(inserted.iter().cloned());
                    }
                    (_, value) => values.push(value),
                }
            }
            Ok(values.into())
        }
        Json::Object(map) => {
            let mut object = Object::new();
            for (key, value) in map {
                let value = interpolate_node(value, scope, meter)?;
                if !is_insert(key) {
                    let name = interpolate_metered(key, scope, meter)?.as_text().into_owned();
                    if key.contains(OPEN) && (name.is_empty() || object.get(&name).is_some()) {
                        let why = if name.is_empty() { "is empty" } else { "is already defined" };
                        let message = format!("the key `{key}` {why}: {name}");
                        return Err(ExpressionError::new(ExpressionErrorKind::Evaluation, message, 0));
                    }
                    object.insert(&name, value);
                    continue;
                }
                let Value::Object(inserted) = value else {
                    let message = format!("${{{{ insert }}}} needs a mapping, and this is {}", value.kind_name());
                    return Err(ExpressionError::new(ExpressionErrorKind::Evaluation, message, 0));
                };
                for (key, value) in inserted.iter() {
                    object.insert(key, value.clone());
                }
            }
            Ok(object.into())
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => Ok(Value::from_json(tree)),
    }
}

fn is_insert(key: &str) -> bool {
    key.trim()
        .strip_prefix(OPEN)
        .and_then(|key| key.strip_suffix(CLOSE))
        .is_some_and(|word| word.trim().eq_ignore_ascii_case("insert"))
}

fn succeeded(scope: &Scope<'_>) -> Result<bool, ExpressionError> {
    match scope.functions.call("success", &[]) {
        Some(Ok(value)) => Ok(value.truthy()),
        Some(Err(HostFunctionError::Failed(message))) => {
            Err(ExpressionError::new(ExpressionErrorKind::Evaluation, message, 0))
        }
        Some(Err(HostFunctionError::Pending)) => {
            Err(ExpressionError::new(ExpressionErrorKind::Pending, "the answer of success is not known yet", 0))
        }
        None => Err(ExpressionError::new(ExpressionErrorKind::Parsing, "Unrecognized function: 'success'", 0)),
    }
}
