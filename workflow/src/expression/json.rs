//! `fromJSON` and `toJSON`, both counted while they work, so that neither can take more than the limits allow.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::limits::Meter;
use super::{ExpressionError, ExpressionErrorKind, Object, Value, number};

/// The deepest value `toJSON` writes. `fromJSON` stops at 128 levels by itself.
const MAX_NESTING: usize = 512;

pub(super) fn read(text: &str, meter: &mut Meter) -> Result<Value, ExpressionError> {
    meter.read(text.len())?;
    let mut refused = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let reader = Reader { meter, refused: &mut refused };
    let result = reader.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    match (result, refused) {
        (_, Some(limit)) => Err(limit),
        (Ok(value), None) => Ok(value),
        (Err(error), None) => {
            let message = format!("fromJSON needs JSON text, and this is none: {error}");
            Err(ExpressionError::new(ExpressionErrorKind::Evaluation, message, 0))
        }
    }
}

struct Reader<'r> {
    meter: &'r mut Meter,
    /// The limit that was met: serde's errors carry only text.
    refused: &'r mut Option<ExpressionError>,
}

impl Reader<'_> {
    fn count<E: serde::de::Error>(&mut self, text: usize) -> Result<(), E> {
        self.meter.elements(1).and_then(|()| self.meter.text(text)).map_err(|error| {
            let custom = E::custom(&error);
            *self.refused = Some(error);
            custom
        })
    }

    fn nested(&mut self) -> Reader<'_> {
        Reader { meter: self.meter, refused: self.refused }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Value, D::Error> {
        self.count::<D::Error>(0).map_err(D::Error::custom)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(truth.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        #[expect(clippy::cast_precision_loss, reason = "all numbers of the language are floating point")]
        Ok(Value::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        #[expect(clippy::cast_precision_loss, reason = "all numbers of the language are floating point")]
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E: serde::de::Error>(mut self, text: &str) -> Result<Value, E> {
        self.count(text.len())?;
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self.nested())? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Object::new();
        while let Some(key) = entries.next_key::<Cow<'de, str>>()? {
            // A key is kept twice, as written and folded.
            self.count(key.len().saturating_mul(2))?;
            object.insert(key, entries.next_value_seed(self.nested())?);
        }
        Ok(object.into())
    }
}

/// `value` as JSON, indented by two spaces.
pub(super) fn write(value: &Value, meter: &mut Meter) -> Result<String, ExpressionError> {
    meter.value()?;
    let mut writer = Writer { text: String::new(), meter };
    writer.value(value, 0)?;
    Ok(writer.text)
}

struct Writer<'w> {
    text: String,
    meter: &'w mut Meter,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, level: usize) -> Result<(), ExpressionError> {
        self.meter.steps(1)?;
        if level > MAX_NESTING {
            let message = format!("toJSON takes values of at most {MAX_NESTING} levels");
            return Err(ExpressionError::new(ExpressionErrorKind::Limit, message, 0));
        }
        match value {
            Value::Null => self.push("null"),
            Value::Bool(_) => self.push(&value.as_text()),
            Value::Number(number) => self.push(&number::format(*number)),
            Value::String(text) => self.string(text),
            Value::Array(items) if items.is_empty() => self.push("[]"),
            Value::Array(items) => {
                for (position, item) in items.iter().enumerate() {
                    self.push(if position == 0 { "[" } else { "," })?;
                    self.line(level + 1)?;
                    self.value(item, level + 1)?;
                }
                self.line(level)?;
                self.push("]")
            }
            Value::Object(object) if object.is_empty() => self.push("{}"),
            Value::Object(object) => {
                for (position, (key, value)) in object.iter().enumerate() {
                    self.push(if position == 0 { "{" } else { "," })?;
                    self.line(level + 1)?;
                    self.string(key)?;
                    self.push(": ")?;
                    self.value(value, level + 1)?;
                }
                self.line(level)?;
                self.push("}")
            }
        }
    }

    fn line(&mut self, level: usize) -> Result<(), ExpressionError> {
        self.push("\n")?;
        (0..level).try_for_each(|_| self.push("  "))
    }

    fn string(&mut self, text: &str) -> Result<(), ExpressionError> {
        self.push("\"")?;
        for character in text.chars() {
            match character {
                '"' => self.push("\\\"")?,
                '\\' => self.push("\\\\")?,
                '\n' => self.push("\\n")?,
                '\r' => self.push("\\r")?,
                '\t' => self.push("\\t")?,
                '\u{8}' => self.push("\\b")?,
                '\u{c}' => self.push("\\f")?,
                '\0'..='\u{1f}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                    self.push(&format!("\\u{:04x}", u32::from(character)))?;
                }
                _ => self.push(character.encode_utf8(&mut [0; 4]))?,
            }
        }
        self.push("\"")
    }

    fn push(&mut self, part: &str) -> Result<(), ExpressionError> {
        self.meter.text(part.len())?;
        self.text.push_str(part);
        Ok(())
    }
}
