//! What a scalar means by the YAML 1.2 core schema (YAML 1.2.2, section 10.3).

use serde_json::{Number, Value};

use super::{Scalar, YamlStyle};

/// Prefix of the schema's own tags.
pub(super) const CORE: &str = "tag:yaml.org,2002:";

impl Scalar {
    /// The value: only plain text can be anything but a string, so `yes`, `on` and `"1"` are strings.
    ///
    /// JSON has no infinities and no NaN: they become the strings `Infinity`, `-Infinity` and `NaN`. So do numbers beyond
    /// what a double holds, as GitHub's reader has it.
    pub fn resolve(&self) -> Value {
        match self.core_tag() {
            Some("str") => Value::String(self.text.clone()),
            Some("null" | "bool" | "int" | "float") => plain(&self.text),
            _ if self.style == YamlStyle::Plain => plain(&self.text),
            _ => Value::String(self.text.clone()),
        }
    }

    /// Whether the value is a number, an infinity or NaN too.
    pub fn is_number(&self) -> bool {
        let is_plain = self.style == YamlStyle::Plain && self.core_tag().is_none_or(|tag| tag != "str");
        self.resolve().is_number() || (is_plain && special_float(&self.text).is_some())
    }

    /// Why the text does not fit the tag it bears, where it does not.
    pub(super) fn misfit(&self) -> Option<String> {
        let tag = self.core_tag()?;
        let value = plain(&self.text);
        let fits = match tag {
            "null" => value.is_null(),
            "bool" => value.is_boolean(),
            "int" => value.is_i64() || value.is_u64(),
            "float" => value.is_number() || special_float(&self.text).is_some(),
            _ => return None,
        };
        if self.style != YamlStyle::Plain {
            return Some(format!("`!!{tag}` needs text without quotes"));
        }
        (!fits).then(|| format!("`{}` is no value of the type `!!{tag}`", self.text))
    }

    fn core_tag(&self) -> Option<&str> {
        self.tag.as_deref()?.strip_prefix(CORE)
    }
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    match (number(text), special_float(text)) {
        (Some(number), _) => Value::Number(number),
        (None, Some(name)) => Value::String(name.to_owned()),
        (None, None) => Value::String(text.to_owned()),
    }
}

fn number(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let number = decimal(text)?;
    text.parse::<i64>().ok().map(Number::from).or_else(|| Number::from_f64(number))
}

/// A number in digits, an infinity where it is beyond what a double holds.
fn decimal(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some((whole, "")) => digits(whole),
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(mantissa),
    };
    let exponent_fits = exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)));
    if mantissa_fits && exponent_fits { text.parse().ok() } else { None }
}

fn radix(digits: &str, radix: u32) -> Option<Number> {
    // `from_str_radix` takes a sign, the schema does not.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok().map(Number::from)
}

fn special_float(text: &str) -> Option<&'static str> {
    Some(match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => "Infinity",
        "-.inf" | "-.Inf" | "-.INF" => "-Infinity",
        ".nan" | ".NaN" | ".NAN" => "NaN",
        _ => match decimal(text)? {
            f64::INFINITY => "Infinity",
            f64::NEG_INFINITY => "-Infinity",
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_text_means_what_the_core_schema_says() {
        for (text, expected) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("True", json!(true)),
            ("yes", json!("yes")),
            ("on", json!("on")),
            ("tRUE", json!("tRUE")),
            ("1.10", json!(1.1)),
            ("-.5", json!(-0.5)),
            ("+2", json!(2)),
            ("0x1F", json!(31)),
            ("0o17", json!(15)),
            ("017", json!(17)),
            ("1e3", json!(1000.0)),
            ("1_000", json!("1_000")),
            ("0x", json!("0x")),
            ("0x+1", json!("0x+1")),
            (".", json!(".")),
            ("e5", json!("e5")),
            (".inf", json!("Infinity")),
            ("1e999", json!("Infinity")),
            ("-1.5E+999", json!("-Infinity")),
            ("1e-999", json!(0.0)),
            ("9".repeat(400).as_str(), json!("Infinity")),
            ("inf", json!("inf")),
            ("2001-12-14", json!("2001-12-14")),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
    }

    #[test]
    fn quotes_and_tags_decide_before_the_text_does() {
        let scalar =
            |style, tag: Option<&str>| Scalar { text: "1".into(), style, tag: tag.map(|tag| format!("{CORE}{tag}")) };
        assert_eq!(scalar(YamlStyle::Quoted, None).resolve(), json!("1"));
        assert_eq!(scalar(YamlStyle::Plain, Some("str")).resolve(), json!("1"));
        assert_eq!(
            scalar(YamlStyle::Plain, Some("bool")).misfit().as_deref(),
            Some("`1` is no value of the type `!!bool`")
        );
        assert_eq!(
            scalar(YamlStyle::Quoted, Some("int")).misfit().as_deref(),
            Some("`!!int` needs text without quotes")
        );
    }
}
