//! Numbers to text and text to numbers, as GitHub's runner does it.

/// Significant digits that are written.
const DIGITS: i32 = 15;

/// Text to a number: decimal, `0x` hexadecimal, `0o` octal, `Infinity`, with white space around. Empty text is 0; what
/// is no number is NaN.
pub(super) fn parse(text: &str) -> f64 {
    let text = text.trim();
    match text {
        "" => return 0.0,
        "Infinity" | "+Infinity" => return f64::INFINITY,
        "-Infinity" => return f64::NEG_INFINITY,
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return parse_radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return parse_radix(digits, 8);
    }
    // The standard parser would also take "inf" and "nan".
    if text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E')) {
        return text.parse().unwrap_or(f64::NAN);
    }
    f64::NAN
}

/// GitHub reads these as signed 32 bit integers, so `0xFFFFFFFF` is -1.
fn parse_radix(digits: &str, radix: u32) -> f64 {
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return f64::NAN;
    }
    u32::from_str_radix(digits, radix).map_or(f64::NAN, |bits| f64::from(bits.cast_signed()))
}

/// A number as text with at most 15 significant digits: `1.5`, `1E+15`, `1E-05`, `NaN`, `-Infinity`.
pub(super) fn format(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    if number == 0.0 {
        return "0".into();
    }
    let rounded = format!("{number:.*e}", 14);
    let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if number < 0.0 { "-" } else { "" };
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_end_matches('0');
    if !(-4..DIGITS).contains(&exponent) {
        let (first, rest) = digits.split_at_checked(1).unwrap_or((digits, ""));
        let point = if rest.is_empty() { "" } else { "." };
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{rest}E{exponent_sign}{:02}", exponent.abs());
    }
    let Ok(whole) = usize::try_from(exponent + 1) else {
        let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
        return format!("{sign}0.{}{digits}", "0".repeat(zeros));
    };
    match digits.split_at_checked(whole) {
        Some(("", fraction)) => format!("{sign}0.{fraction}"),
        Some((digits, "")) => format!("{sign}{digits}"),
        Some((digits, fraction)) => format!("{sign}{digits}.{fraction}"),
        None => format!("{sign}{digits:0<whole$}"),
    }
}
