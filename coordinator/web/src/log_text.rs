//! What others wrote, for people who read it: text without control sequences and without letters that turn it around, and
//! whether a line of a log is an error. Pure.

use std::borrow::Cow;

use logs::{
    line_text::{self, LineKind},
    strip_control_sequences,
};

/// The class that a line has on a page, and its text without the marker.
pub(super) fn classified(text: &str) -> (&'static str, &str) {
    let (kind, text) = line_text::classified(text);
    let class = match kind {
        LineKind::Output => "",
        LineKind::Error => "error",
        LineKind::Warning => "warning",
        LineKind::Notice | LineKind::Debug | LineKind::Command => "remark",
        LineKind::Group => "group",
        LineKind::EndGroup => "end",
    };
    (class, text)
}

/// A text of a bounded length.
pub(super) fn cut(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

/// A text without control sequences; characters that turn the text around them become visible.
pub(super) fn strip_ansi(text: &str) -> String {
    straight(&strip_control_sequences(text))
}

/// Characters that change the direction of the text around them (attack: Trojan Source).
fn turns(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text for people who judge it by its looks: such characters become visible.
pub(super) fn straight(text: &str) -> String {
    text.chars().map(|letter| if turns(letter) { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_class_and_long_texts_are_cut_between_letters() {
        assert_eq!(classified("##[error]it broke"), ("error", "it broke"));
        assert_eq!(classified("a ##[error]"), ("", "a ##[error]"));
        assert_eq!((cut("äöü", 2).as_ref(), cut("äöü", 3).as_ref()), ("äö…", "äöü"));
    }

    #[test]
    fn attack_49_control_sequences_leave_no_trace_and_turned_text_is_shown_to_be() {
        let cases = [
            ("\u{1b}[1;31mred\u{1b}[0m and plain", "red and plain"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("cut \u{1b}[31", "cut "),
            ("a\u{8}b\tc", "ab\tc"),
            ("\u{1b}]8;;javascript:alert(1)\u{1b}\\link\u{1b}]8;;\u{7}", "link"),
            ("\u{1b}]52;c;aGk=\u{7}\u{1b}[2K\u{1b}[1Aover", "over"),
            ("safe\u{202e}gnp.exe", "safe\u{fffd}gnp.exe"),
        ];
        assert!(cases.iter().all(|(text, plain)| strip_ansi(text) == *plain));
    }
}
