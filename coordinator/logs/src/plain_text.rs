//! The complete log as plain text: every attempt, a time before every line. Pure.

use std::borrow::Cow;

use proto::worker::{LogRecord, LogStream};

use domain::id::JobKey;

use super::{
    concurrent::ConcurrentSteps,
    steps::{Joiners, returned},
};

/// Renders the records of one attempt as they come. Colours are kept as printed.
#[derive(Debug, Default)]
pub(super) struct PlainTextWriter {
    joiners: Joiners,
    concurrent: ConcurrentSteps,
    stamp: Timestamp,
}

impl PlainTextWriter {
    /// The line before an attempt's first record.
    pub(super) fn heading(job: &JobKey, attempt: u32) -> String {
        format!("==== {job}, attempt {attempt}\n")
    }

    /// The lines that these records complete.
    pub(super) fn write(&mut self, records: &[LogRecord]) -> String {
        let mut text = String::new();
        let Self { joiners, concurrent, stamp } = self;
        let mut line = |time_ms, content: &str| stamp.line(&mut text, time_ms, content);
        for record in records {
            if let Some(mark) = &record.mark {
                concurrent.mark(record.step, &mark.name, mark.ended);
            }
            match (&record.mark, record.stream()) {
                (Some(mark), LogStream::Mark) if mark.ended => {
                    let end = format!("---- {}: {} after {} ms", mark.name, mark.conclusion, mark.duration_ms);
                    line(record.time_ms, &end);
                }
                (Some(mark), LogStream::Mark) => line(record.time_ms, &format!("---- {}", mark.name)),
                _ => {
                    let name = concurrent.name(record.step);
                    joiners.push(record, |time_ms, content| {
                        returned(&content).for_each(|part| line(time_ms, &with_step(name, part)));
                    });
                }
            }
        }
        text
    }

    /// The output that has no line end.
    pub(super) fn finish(&mut self) -> String {
        let mut text = String::new();
        let Self { joiners, concurrent, stamp } = self;
        joiners.flush(|step, time_ms, content| {
            let name = concurrent.name(step);
            returned(&content).for_each(|part| stamp.line(&mut text, time_ms, &with_step(name, part)));
        });
        text
    }
}

/// A line, preceded by its step where several run at the same time.
fn with_step<'a>(step: Option<&str>, line: &'a str) -> Cow<'a, str> {
    match step {
        Some(step) => format!("[{step}] {line}").into(),
        None => line.into(),
    }
}

/// The time before a line. Formatting it costs more than the line, so lines of the same millisecond share it.
#[derive(Debug, Default)]
struct Timestamp {
    time_ms: u64,
    text: String,
}

impl Timestamp {
    fn line(&mut self, text: &mut String, time_ms: u64, content: &str) {
        if self.text.is_empty() || self.time_ms != time_ms {
            let time = i64::try_from(time_ms).ok().and_then(|time| jiff::Timestamp::from_millisecond(time).ok());
            self.text = time.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S.%3fZ ").to_string();
            self.time_ms = time_ms;
        }
        text.push_str(&self.text);
        text.push_str(content);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::worker::Mark;

    fn record(time_ms: u64, stream: LogStream, text: &str) -> LogRecord {
        LogRecord { time_ms, step: 0, stream: stream.into(), text: text.to_owned().into(), mark: None }
    }

    #[test]
    fn lines_of_steps_that_print_at_once_stay_whole_and_carry_their_step() {
        let of = |step: i32, record: LogRecord| LogRecord { step, ..record };
        let begin = |step: i32, name: &str| LogRecord {
            mark: Some(Mark { name: format!("Main {name}"), ..Mark::default() }),
            ..of(step, record(1000, LogStream::Mark, ""))
        };
        let mut writer = PlainTextWriter::default();
        let text = writer.write(&[
            begin(0, "a"),
            of(0, record(1000, LogStream::Stdout, "of ")),
            begin(1, "b"),
            of(1, record(1000, LogStream::Stdout, "of b\n")),
            of(0, record(1000, LogStream::Stdout, "a\nrest")),
        ]);
        let lines: Vec<_> = text.lines().filter_map(|line| line.split_once(' ')).map(|(_, line)| line).collect();
        assert_eq!(lines, ["---- Main a", "---- Main b", "[b] of b", "[a] of a"]);
        assert!(writer.finish().ends_with(" [a] rest\n"));
    }

    #[test]
    fn every_line_has_the_time_of_its_first_byte_and_streams_do_not_mix() {
        let mark = |ended, conclusion: &str| LogRecord {
            mark: Some(Mark {
                name: "Main x".into(),
                ended,
                conclusion: conclusion.into(),
                duration_ms: 7,
                ..Mark::default()
            }),
            ..record(1000, LogStream::Mark, "")
        };
        let mut writer = PlainTextWriter::default();
        let text = writer.write(&[
            mark(false, ""),
            record(1001, LogStream::Stdout, "out "),
            record(1002, LogStream::Stderr, "err\n"),
            record(1003, LogStream::Stdout, "put\r\n50%\r100%"),
            mark(true, "success"),
        ]);
        let expected = "1970-01-01T00:00:01.000Z ---- Main x\n\
                        1970-01-01T00:00:01.002Z err\n\
                        1970-01-01T00:00:01.001Z out put\n\
                        1970-01-01T00:00:01.000Z ---- Main x: success after 7 ms\n";
        assert_eq!(text, expected);
        assert_eq!(writer.finish(), "1970-01-01T00:00:01.003Z 50%\n1970-01-01T00:00:01.003Z 100%\n");
    }
}
