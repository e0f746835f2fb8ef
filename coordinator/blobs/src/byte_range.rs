//! The part of stored bytes that an HTTP `Range` header selects (RFC 9110, 14.2).

use std::ops::Range;

/// What of some bytes is requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ByteRange {
    /// All of them: there is no header, or one with several parts or another unit, which a server may ignore.
    Whole,
    /// A part that is not empty. Answered with 206 and [`content_range`].
    Part(Range<u64>),
    /// Nothing that exists. Answered with 416.
    Unsatisfiable,
}

impl ByteRange {
    /// Reads the value of the header for `size` bytes.
    pub fn parse(header: Option<&str>, size: u64) -> Self {
        let Some(range) = header.and_then(|text| text.strip_prefix("bytes=")) else { return Self::Whole };
        let Some((first, last)) = range.split_once('-') else { return Self::Whole };
        let (first, last) = (first.trim(), last.trim());
        let part = match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size),
            (Ok(first), Err(_)) if last.is_empty() => first..size,
            (Err(_), Ok(count)) if first.is_empty() => size.saturating_sub(count)..size,
            _ => return Self::Whole,
        };
        if part.is_empty() { Self::Unsatisfiable } else { Self::Part(part) }
    }
}

/// The `Content-Range` header of an answer with a part of `size` bytes.
pub fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_one_part_within_the_bytes() {
        let cases = [
            ("bytes=0-4", ByteRange::Part(0..5)),
            ("bytes=5-", ByteRange::Part(5..10)),
            ("bytes=-3", ByteRange::Part(7..10)),
            ("bytes=-99", ByteRange::Part(0..10)),
            ("bytes=8-99", ByteRange::Part(8..10)),
            ("bytes=10-", ByteRange::Unsatisfiable),
            ("bytes=-0", ByteRange::Unsatisfiable),
            ("bytes=5-2", ByteRange::Whole),
            ("bytes=0-1,3-4", ByteRange::Whole),
            ("lines=0-1", ByteRange::Whole),
            ("bytes=0-18446744073709551615", ByteRange::Part(0..10)),
        ];
        for (text, expected) in cases {
            assert_eq!(ByteRange::parse(Some(text), 10), expected, "{text}");
        }
        assert_eq!(ByteRange::parse(None, 10), ByteRange::Whole);
        assert_eq!(content_range(&(7..10), 10), "bytes 7-9/10");
    }
}
