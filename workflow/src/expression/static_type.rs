//! What kind of value something has, as far as it is known before anything runs.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value as Json;

/// A kind of value. Clones share what they are made of.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum StaticType {
    /// Nothing is known.
    #[default]
    Any,
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// Text.
    Text,
    /// A list of such values.
    List(Arc<StaticType>),
    /// A mapping.
    Object(Arc<ObjectType>),
}

/// A mapping whose keys are known, all or some.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObjectType {
    /// Names are kept in lower case, beside how they are written.
    known: BTreeMap<String, (String, StaticType)>,
    /// Any other key has such a value; `None`: there is no other key.
    pub others: Option<StaticType>,
    /// What helps where a key is not there and none is written alike.
    pub remedy: &'static str,
}

impl ObjectType {
    /// One that has these keys alone.
    #[must_use]
    pub fn closed<'n>(known: impl IntoIterator<Item = (&'n str, StaticType)>) -> Self {
        let mut object = Self::default();
        for (name, value) in known {
            object.insert(name, value);
        }
        object
    }

    /// One that may have any keys, each with such a value.
    #[must_use]
    pub fn open(others: StaticType) -> Self {
        Self { others: Some(others), ..Self::default() }
    }

    /// The same, with what helps where a key is not there.
    #[must_use]
    pub fn with_remedy(self, remedy: &'static str) -> Self {
        Self { remedy, ..self }
    }

    /// Adds a key, or replaces what was known of it.
    pub fn insert(&mut self, name: &str, value: StaticType) {
        self.known.insert(name.to_lowercase(), (name.to_owned(), value));
    }

    /// Adds a key that may have this value beside those it is known to have.
    pub fn join(&mut self, name: &str, value: StaticType) {
        let joined = match self.known.get(&name.to_lowercase()) {
            Some((_, known)) => known.join(&value),
            None => value,
        };
        self.insert(name, joined);
    }

    /// The kind of what a key has; `None`: there is no such key.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&StaticType> {
        self.known.get(&name.to_lowercase()).map(|(_, value)| value).or(self.others.as_ref())
    }

    /// The keys that are known, as they are written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.known.values().map(|(name, _)| name.as_str())
    }

    fn values(&self) -> impl Iterator<Item = &StaticType> {
        self.known.values().map(|(_, value)| value).chain(&self.others)
    }

    fn joined(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (name, value) in other.known.values() {
            both.join(name, value.clone());
        }
        both.others = match (&self.others, &other.others) {
            (Some(left), Some(right)) => Some(left.join(right)),
            (left, right) => left.as_ref().or(right.as_ref()).map(|_| StaticType::Any),
        };
        both
    }
}

impl From<ObjectType> for StaticType {
    fn from(object: ObjectType) -> Self {
        Self::Object(Arc::new(object))
    }
}

impl StaticType {
    /// Of a value that is there. Recurses as deep as it is.
    #[must_use]
    pub fn of_json(value: &Json) -> Self {
        match value {
            Json::Null => Self::Null,
            Json::Bool(_) => Self::Bool,
            Json::Number(_) => Self::Number,
            Json::String(_) => Self::Text,
            Json::Array(items) => Self::list_of(items.iter().map(Self::of_json)),
            Json::Object(entries) => {
                ObjectType::closed(entries.iter().map(|(name, value)| (name.as_str(), Self::of_json(value)))).into()
            }
        }
    }

    /// A list of values of these kinds.
    #[must_use]
    pub fn list_of(items: impl IntoIterator<Item = Self>) -> Self {
        let item = items.into_iter().reduce(|left, right| left.join(&right)).unwrap_or_default();
        Self::List(Arc::new(item))
    }

    /// What a value is that may be of either kind.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        match (self, other) {
            (left, right) if left == right => left.clone(),
            (Self::List(left), Self::List(right)) => Self::List(Arc::new(left.join(right))),
            (Self::Object(left), Self::Object(right)) => left.joined(right).into(),
            _ => Self::Any,
        }
    }

    /// What `*` gives of it.
    #[must_use]
    pub fn members(&self) -> Self {
        match self {
            Self::List(item) => Self::List(Arc::clone(item)),
            Self::Object(object) => Self::list_of(object.values().cloned()),
            _ => Self::list_of([]),
        }
    }

    /// Whether it is a list or a mapping.
    #[must_use]
    pub fn is_collection(&self) -> bool {
        matches!(self, Self::List(_) | Self::Object(_))
    }

    /// Its name in a sentence.
    #[must_use]
    pub fn named(&self) -> &'static str {
        match self {
            Self::Any => "any value",
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::Text => "text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_may_be_either_has_the_keys_of_both() {
        let kind = |value: Json| StaticType::of_json(&value);
        assert_eq!(kind(json!({"a": 1})).join(&kind(json!({"b": "x"}))), kind(json!({"a": 1, "b": "x"})));
        assert_eq!(kind(json!([1])).join(&kind(json!([2, 3]))), kind(json!([1])));
        assert_eq!(kind(json!(1)).join(&kind(json!("x"))), StaticType::Any);
        let StaticType::Object(object) = kind(json!({"Name": 1})) else { return };
        assert_eq!((object.get("NAME"), object.get("other")), (Some(&StaticType::Number), None));
        assert_eq!(kind(json!({"a": 1, "b": 2})).members(), kind(json!([1])));
    }
}
