//! Encodes and decodes log records. The bytes come from workers, which may be hostile.

use prost::Message;
use proto::worker::{LogRecord, LogStream};
use serde::Serialize;

/// Longest record, in bytes.
const LONGEST: usize = proto::MESSAGE_LIMIT;
/// Bytes of a step's name that are read: it stands before each of its lines where steps print at the same time.
const NAME: usize = 1024;

/// Records read from bytes.
#[derive(Debug, Default, PartialEq)]
pub struct Decoded {
    /// The records.
    pub records: Vec<LogRecord>,
    /// Bytes they took; a cut record at the end is left for later.
    pub taken: usize,
}

/// Reads whole records from the front. Bytes that can't be a record end the log: they and everything after them count as
/// taken and are ignored.
pub fn decode(bytes: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut body = rest;
        let length = match prost::decode_length_delimiter(&mut body) {
            Ok(length) if length <= LONGEST => length,
            // A varint has at most ten bytes: fewer may only be cut.
            Err(_) if rest.len() < 10 => break,
            _ => return Decoded { taken: bytes.len(), ..decoded },
        };
        let Some((message, after)) = body.split_at_checked(length) else { break };
        match LogRecord::decode(message) {
            Ok(mut record) => {
                if let Some(mark) = &mut record.mark {
                    mark.name.truncate(mark.name.floor_char_boundary(NAME));
                }
                // One that says nothing would still take a hundred bytes of memory and of every answer.
                if !record.text.is_empty() || record.mark.is_some() {
                    decoded.records.push(record);
                }
            }
            Err(_) => return Decoded { taken: bytes.len(), ..decoded },
        }
        rest = after;
        decoded.taken = bytes.len() - rest.len();
    }
    decoded
}

/// Records in the form of a log file.
pub fn encode(records: &[LogRecord]) -> Vec<u8> {
    records.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
}

/// A stream as the API names it.
pub(super) fn stream_name(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout | LogStream::Unspecified => "stdout",
        LogStream::Stderr => "stderr",
        LogStream::Notice => "notice",
        LogStream::Mark => "mark",
    }
}

/// A record as the API shows it.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Index of the step, -1 before the first, -2 after the last.
    pub step: i32,
    /// `stdout`, `stderr`, `notice` or `mark`.
    pub stream: &'static str,
    /// As printed, colours included; bytes that are no UTF-8 are U+FFFD.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub text: std::borrow::Cow<'a, str>,
    /// The start or end of a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark<'a>>,
}

/// The start or end of a step, as the API shows it.
#[derive(Debug, Serialize)]
pub struct Mark<'a> {
    /// Name of the step.
    pub name: &'a str,
    /// Whether it ended.
    pub ended: bool,
    /// How it ended.
    pub conclusion: &'a str,
    /// How it ended, before `continue-on-error`.
    pub outcome: &'a str,
    /// Milliseconds.
    pub duration_ms: u64,
}

impl<'a> From<&'a LogRecord> for Line<'a> {
    fn from(record: &'a LogRecord) -> Self {
        Self {
            time_ms: record.time_ms,
            step: record.step,
            stream: stream_name(record.stream()),
            text: String::from_utf8_lossy(&record.text),
            mark: record.mark.as_ref().map(|mark| Mark {
                name: &mark.name,
                ended: mark.ended,
                conclusion: &mark.conclusion,
                outcome: &mark.outcome,
                duration_ms: mark.duration_ms,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use proptest::prelude::*;

    use super::*;

    fn record(text: &[u8]) -> LogRecord {
        LogRecord { time_ms: 5, step: -1, stream: 1, text: text.to_vec().into(), mark: None }
    }

    proptest! {
        #[test]
        fn records_come_back_however_the_bytes_are_cut(texts in prop::collection::vec(".{1,40}", 0..20), cut in 0usize..400) {
            let records: Vec<_> = texts.iter().map(|text| record(text.as_bytes())).collect();
            let bytes = encode(&records);
            let cut = cut.min(bytes.len());
            let first = decode(&bytes[..cut]);
            let second = decode(&bytes[first.taken..]);
            prop_assert_eq!([first.records, second.records].concat(), records);
            prop_assert_eq!(first.taken + second.taken, bytes.len());
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).taken <= bytes.len());
        }
    }

    #[test]
    fn attack_30_records_that_say_nothing_take_nothing() {
        let mut bytes = vec![0; 10_000];
        bytes.extend(encode(&[record(b""), record(b"said")]));
        assert_eq!(decode(&bytes), Decoded { records: vec![record(b"said")], taken: bytes.len() });
    }

    #[test]
    fn a_length_beyond_the_limit_ends_the_log() {
        let mut bytes = encode(&[record(b"before")]);
        bytes.extend([0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2]);
        let decoded = decode(&bytes);
        assert_eq!(decoded.records, [record(b"before")]);
        assert_eq!(decoded.taken, bytes.len());
    }
}
