//! How much memory a relay's message takes once it is read, by its text alone.
//!
//! Five bytes, `[""],`, become a tag of a hundred and more: what is bounded in bytes counts these, not those that came.

/// Bytes that one value of JSON takes beside its text, while it is read and in an event: a tag is two values at least.
const VALUE: usize = 96;
/// Most memory of one message; a larger one is not read. An event has 40,000 values then at most.
pub(super) const MOST: usize = 4 << 20;

/// Size of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageSize {
    /// Bytes, as it came.
    pub(super) text: usize,
    /// Bytes, once it is read: no less than it takes.
    pub(super) memory: usize,
}

impl MessageSize {
    pub(super) fn of(text: &str) -> Self {
        Self { text: text.len(), memory: text.len().saturating_add(values(text).saturating_mul(VALUE)) }
    }
}

/// Values in a text of JSON: no less than a reader would find.
fn values(text: &str) -> usize {
    let (mut values, mut in_string, mut escaped) = (1, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' | b',' | b':' if !in_string => values += 1,
            _ => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_count_whatever_their_text_is() {
        for (text, expected) in [
            (r#"["EVENT","jobs",{"tags":[["e","x"],[""]],"content":"[,,:{\",[\\"}]"#, 4 + 7 + 2),
            ("[[[[", 5),
            ("[0,0,0]", 4),
            ("", 1),
            (r#"["unfinished [,,,"#, 2),
        ] {
            assert_eq!(values(text), expected, "{text}");
        }
    }

    #[test]
    fn attack_58_an_event_of_empty_tags_counts_as_what_it_becomes() {
        let text = format!("[\"EVENT\",\"q1\",{{\"tags\":[{}]}}]", "[\"\"],".repeat(200_000));
        let size = MessageSize::of(&text);
        assert!(size.text < 1_100_000 && size.memory > 8 * MOST, "{size:?}");
        let usual = MessageSize::of(&format!("[\"EVENT\",\"q1\",{{\"content\":\"{}\"}}]", "x".repeat(500_000)));
        assert!(usual.memory < usual.text + 2000, "{usual:?}");
    }
}
