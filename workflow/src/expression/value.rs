//! What expressions compute with.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;

use super::case_fold::fold;
use super::number;

/// A value of the language. Clones share text and collections.
///
/// `==` in Rust compares structure; the language compares collections by identity and strings without case.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// `null`, and what a missing property gives.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any number, NaN and the infinities included.
    Number(f64),
    /// Text.
    String(Arc<str>),
    /// A list.
    Array(Arc<Vec<Value>>),
    /// A mapping.
    Object(Arc<Object>),
}

impl Value {
    /// The member that an index names (`value[index]`); `None`: there is none.
    pub(crate) fn member(&self, index: &Self) -> Option<&Self> {
        match self {
            Self::Object(object) if index.is_primitive() => object.get(&index.as_text()),
            Self::Array(items) => {
                let number = index.to_number().floor();
                if !(0.0..=f64::from(i32::MAX)).contains(&number) {
                    return None;
                }
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, as just tested")]
                items.get(number as usize)
            }
            _ => None,
        }
    }

    /// A JSON value; numbers become floating point, as on GitHub. Recurses as deep as `json` is.
    #[must_use]
    pub fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::Null,
            Json::Bool(truth) => Self::Bool(*truth),
            Json::Number(number) => Self::Number(number.as_f64().unwrap_or(f64::NAN)),
            Json::String(text) => text.as_str().into(),
            Json::Array(items) => items.iter().map(Self::from_json).collect::<Vec<_>>().into(),
            Json::Object(map) => {
                map.iter().map(|(key, value)| (key.as_str(), Self::from_json(value))).collect::<Object>().into()
            }
        }
    }

    /// The value as JSON; whole numbers are written without a fraction. JSON has no NaN and no infinities: they become
    /// null.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Null => Json::Null,
            Self::Bool(truth) => Json::Bool(*truth),
            Self::Number(number) => number_to_json(*number),
            Self::String(text) => Json::String(text.as_ref().into()),
            Self::Array(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Self::Object(object) => {
                Json::Object(object.iter().map(|(key, value)| (key.to_owned(), value.to_json())).collect())
            }
        }
    }

    /// False for null, false, 0, NaN and empty text; true for everything else, empty collections included.
    #[must_use]
    pub fn truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(truth) => *truth,
            Self::Number(number) => *number != 0.0 && !number.is_nan(),
            Self::String(text) => !text.is_empty(),
            Self::Array(_) | Self::Object(_) => true,
        }
    }

    /// The value as text, as GitHub coerces it: null is empty, collections are the words `Array` and `Object`.
    #[must_use]
    pub fn as_text(&self) -> Cow<'_, str> {
        match self {
            Self::Null => Cow::Borrowed(""),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Number(number) => Cow::Owned(number::format(*number)),
            Self::String(text) => Cow::Borrowed(text),
            Self::Array(_) | Self::Object(_) => Cow::Borrowed(self.kind_name()),
        }
    }

    /// The value as a number, as GitHub coerces it: text that is no number and collections are NaN.
    #[must_use]
    pub fn to_number(&self) -> f64 {
        match self {
            Self::Null | Self::Bool(false) => 0.0,
            Self::Bool(true) => 1.0,
            Self::Number(number) => *number,
            Self::String(text) => number::parse(text),
            Self::Array(_) | Self::Object(_) => f64::NAN,
        }
    }

    /// `Null`, `Boolean`, `Number`, `String`, `Array` or `Object`: GitHub's names.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match self {
            Self::Null => "Null",
            Self::Bool(_) => "Boolean",
            Self::Number(_) => "Number",
            Self::String(_) => "String",
            Self::Array(_) => "Array",
            Self::Object(_) => "Object",
        }
    }

    pub(super) fn is_primitive(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Object(_))
    }
}

/// The largest number below which every integer is exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

fn number_to_json(number: f64) -> serde_json::Value {
    if number.fract() == 0.0 && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and in range, as just tested")]
        return (number as i64).into();
    }
    serde_json::Number::from_f64(number).map_or(serde_json::Value::Null, serde_json::Value::Number)
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.as_text())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Self::Array(Arc::new(items))
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(Arc::new(object))
    }
}

/// A mapping that keeps the order of insertion and the spelling of its keys, and finds them without case, unless it is
/// made to tell it apart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object {
    entries: IndexMap<Box<str>, (Box<str>, Value)>,
    case_sensitive: bool,
}

impl Object {
    /// An empty mapping.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries whose keys differ by case too: environment variables (GitHub docs, "Variables").
    #[must_use]
    pub fn case_sensitive<K: AsRef<str>, V: Into<Value>>(entries: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut object = Self { case_sensitive: true, ..Self::default() };
        for (key, value) in entries {
            object.insert(key, value);
        }
        object
    }

    /// Sets `key`. A key that differs only in case is replaced, in its place, unless case is told apart.
    pub fn insert(&mut self, key: impl AsRef<str>, value: impl Into<Value>) {
        let key = key.as_ref();
        self.entries.insert(self.found_by(key).into(), (key.into(), value.into()));
    }

    /// The value of `key`, compared without case unless case is told apart.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(self.found_by(key).as_ref()).map(|(_, value)| value)
    }

    fn found_by<'k>(&self, key: &'k str) -> Cow<'k, str> {
        if self.case_sensitive { Cow::Borrowed(key) } else { fold(key) }
    }

    /// Keys as written and their values, in the order of insertion.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.values().map(|(key, value)| (key.as_ref(), value))
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<K: AsRef<str>, V: Into<Value>> FromIterator<(K, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut object = Self::new();
        for (key, value) in entries {
            object.insert(key, value);
        }
        object
    }
}
