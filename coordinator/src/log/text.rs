//! The complete log as plain text: every attempt, a time before every line. Pure.

use proto::worker::{LogRecord, LogStream};

use super::steps::Joiner;

/// Writes the records of one attempt as they come. Colours are kept as printed.
#[derive(Debug, Default)]
pub struct Writer {
    joiner: Joiner,
    stamp: Stamp,
}

impl Writer {
    /// The line before an attempt's first record.
    pub fn heading(job: &str, attempt: u32) -> String {
        format!("==== {job}, attempt {attempt}\n")
    }

    /// The lines that these records complete.
    pub fn write(&mut self, records: &[LogRecord]) -> String {
        let mut text = String::new();
        let Self { joiner, stamp } = self;
        let mut line = |time_ms, content: &str| stamp.line(&mut text, time_ms, content);
        for record in records {
            match (&record.mark, record.stream()) {
                (Some(mark), LogStream::Mark) if mark.ended => {
                    let end = format!("---- {}: {} after {} ms", mark.name, mark.conclusion, mark.duration_ms);
                    line(record.time_ms, &end);
                }
                (Some(mark), LogStream::Mark) => line(record.time_ms, &format!("---- {}", mark.name)),
                _ => joiner.push(record, |time_ms, content| line(time_ms, &content)),
            }
        }
        text
    }

    /// What was left without a line end.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.joiner.flush(|time_ms, content| self.stamp.line(&mut text, time_ms, &content));
        text
    }
}

/// The time before a line. Lines printed together share it, and making it costs more than the line.
#[derive(Debug, Default)]
struct Stamp {
    time_ms: u64,
    text: String,
}

impl Stamp {
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
        let mut writer = Writer::default();
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
