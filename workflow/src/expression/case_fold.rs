//! Text without case, as GitHub compares it.

use std::borrow::Cow;

/// Text in the form in which GitHub compares it: each character in upper case where that is one character. No letter
/// outside ASCII becomes one inside, so `ı` is not `I`.
pub(super) fn fold(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_lowercase()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(fold_char).collect())
}

/// One character in the form of [`fold`].
pub(super) fn fold_char(character: char) -> char {
    if character.is_ascii() {
        return character.to_ascii_uppercase();
    }
    let mut upper = character.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(upper), None) if !upper.is_ascii() => upper,
        _ => character,
    }
}
