//! Lines of an attempt's log by their number, by the step that begins with them, and by a text that they contain.

mod index;
mod outline;
mod step_mark;

use std::borrow::Cow;

use serde::Serialize;

pub(super) use self::index::update_index;
use self::index::{LogScan, indexed};
pub use self::outline::{MOST_STEPS, StepLines};
use domain::id::{JobKey, RunId};

use super::{Logs, strip_control_sequences};

/// Most lines of one answer.
pub const MOST_LINES: u64 = 5000;
/// Most bytes of one answer as JSON, unless its first line alone has more.
const MOST_BYTES: usize = 2 << 20;
/// Bytes of a log that one search reads, at least.
const SEARCHED: u64 = 32 << 20;
/// Most lines that one search returns.
const MOST_FOUND: usize = 1000;

/// A complete line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NumberedLine {
    /// From 1, in the order in which lines were completed.
    pub number: u64,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Index of the step, -1 before the first, -2 after the last.
    pub step: i32,
    /// `stdout`, `stderr`, `notice` or `mark`.
    pub stream: &'static str,
    /// As printed, colours included, without the line end; cut after 32 KiB.
    pub text: String,
    /// For a `mark` that ends a step: its conclusion and its milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<(String, u64)>,
    /// Name of the step, where steps print at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

impl NumberedLine {
    /// Bytes that it takes as JSON, at most.
    fn encoded_size(&self) -> usize {
        // Names, numbers and punctuation.
        const AROUND: usize = 160;
        let escaped = |text: &str| {
            let longer = text.bytes().filter(|byte| *byte < b' ' || matches!(byte, b'"' | b'\\')).count();
            text.len() + 5 * longer
        };
        AROUND + escaped(&self.text) + self.within.as_deref().map_or(0, escaped)
    }

    /// Whether a step begins with it.
    fn begins(&self) -> bool {
        self.stream == "mark" && self.ended.is_none()
    }
}

/// Consecutive lines of a log.
#[derive(Debug, Default)]
pub struct LineRange {
    /// Lines of the whole log so far.
    pub total: u64,
    /// The requested lines, or the first of them.
    pub lines: Vec<NumberedLine>,
}

/// The lines that contain a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LineMatches {
    /// Their numbers.
    pub lines: Vec<u64>,
    /// The line to continue the search from; `None`: the end was reached.
    pub next: Option<u64>,
}

impl Logs {
    /// Lines `from` to `to`, both included, as many as fit one answer. `ended`: nothing more will be printed, so output
    /// without a line end counts as a line.
    pub async fn lines(
        &self,
        run: &RunId,
        job: &JobKey,
        attempt: u32,
        ended: bool,
        (from, to): (u64, u64),
    ) -> anyhow::Result<LineRange> {
        let path = self.path(run, job, attempt)?;
        let (points, mut end) = indexed(&path).await?;
        let mut range = LineRange::default();
        let to = to.min(from.saturating_add(MOST_LINES - 1));
        let mut bytes = 0;
        let mut keep = |line: NumberedLine| {
            let fits = bytes == 0 || bytes < MOST_BYTES;
            if (from..=to).contains(&line.number) && fits {
                bytes += line.encoded_size();
                range.lines.push(line);
            }
        };
        let mut scan = LogScan::from(points.iter().rfind(|point| point.lines < from.max(1)));
        while scan.lines < to && scan.next(&path, &mut keep).await? {}
        if scan.offset >= end.offset {
            end = scan;
        }
        if ended {
            end.finish(&mut keep);
        }
        range.total = end.lines;
        Ok(range)
    }

    /// The line with which a step begins, named as its report or its mark names it; `None`: the log has no such step.
    pub async fn step(&self, run: &RunId, job: &JobKey, attempt: u32, name: &str) -> anyhow::Result<Option<u64>> {
        let path = self.path(run, job, attempt)?;
        let main = format!("Main {name}");
        let is_it = |mark: &str| mark == name || mark == main;
        let points = update_index(&path).await?;
        let mut marks = points.iter().flat_map(|point| &point.steps).filter(|mark| mark.ended.is_none());
        if let Some(known) = marks.find(|mark| is_it(&mark.name)) {
            return Ok(Some(known.line));
        }
        let mut found = None;
        let mut scan = LogScan::from(points.last());
        let mut keep = |line: NumberedLine| {
            if line.begins() && is_it(&line.text) {
                found.get_or_insert(line.number);
            }
        };
        while scan.next(&path, &mut keep).await? {}
        Ok(found)
    }

    /// Lines from `from` on that contain a text, ignoring case.
    pub async fn search(
        &self,
        run: &RunId,
        job: &JobKey,
        attempt: u32,
        text: &str,
        from: u64,
    ) -> anyhow::Result<LineMatches> {
        let path = self.path(run, job, attempt)?;
        let wanted = text.to_lowercase();
        let points = update_index(&path).await?;
        let mut scan = LogScan::from(points.iter().rfind(|point| point.lines < from.max(1)));
        let begin = scan.offset;
        let mut found = LineMatches::default();
        let mut keep = |line: NumberedLine| {
            if line.number >= from && visible(&line.text).to_lowercase().contains(&wanted) {
                found.lines.push(line.number);
            }
        };
        let mut more = true;
        while more && scan.offset - begin < SEARCHED {
            more = scan.next(&path, &mut keep).await?;
        }
        if !more {
            scan.finish(&mut keep);
        }
        if found.lines.len() > MOST_FOUND {
            found.next = found.lines.get(MOST_FOUND).copied();
            found.lines.truncate(MOST_FOUND);
        } else if more {
            found.next = Some(scan.lines + 1);
        }
        Ok(found)
    }
}

/// What of a line people see: programs put control sequences between its letters.
fn visible(text: &str) -> Cow<'_, str> {
    if text.contains('\u{1b}') { strip_control_sequences(text).into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use bytes::Bytes;
    use proto::worker::{LogRecord, LogStream};

    use super::{index::LONGEST, *};
    use crate::{record, tail};

    fn printed(stream: LogStream, text: &str) -> LogRecord {
        LogRecord { time_ms: 5, step: 0, stream: stream.into(), text: text.to_owned().into(), mark: None }
    }

    async fn write(logs: &Logs, offset: u64, records: &[LogRecord]) -> u64 {
        logs.append(&"run".into(), &"job".into(), 1, offset, Bytes::from(record::encode(records))).await.unwrap()
    }

    /// Chunks of output as a pipe gives them, cut anywhere, with errors between.
    fn chunks(lines: u64) -> Vec<LogRecord> {
        let text: String = (1..=lines).map(|line| format!("line {line} of a long log\n")).collect();
        let cut =
            text.as_bytes().chunks(1009).map(|part| printed(LogStream::Stdout, std::str::from_utf8(part).unwrap()));
        cut.collect()
    }

    #[tokio::test]
    async fn a_search_finds_what_people_see_between_the_colours_of_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path());
        write(&logs, 0, &[printed(LogStream::Stdout, "\u{1b}[31mFAILED\u{1b}[0m case \u{1b}[1m10\u{1b}[0m\n")]).await;
        let search = async |text: &str| logs.search(&"run".into(), &"job".into(), 1, text, 1).await.unwrap().lines;
        assert_eq!(search("failed case 10").await, [1]);
        assert!(search("31m").await.is_empty());
    }

    #[tokio::test]
    async fn any_lines_are_had_without_reading_the_log_from_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path());
        write(&logs, 0, &chunks(100_000)).await;
        let path = logs.path(&"run".into(), &"job".into(), 1).unwrap();
        let points = update_index(&path).await.unwrap();
        assert!(points.len() > 5, "{}", points.len());
        assert!(points.windows(2).all(|pair| pair[1].offset - pair[0].offset <= tail::PIECE), "a step is one piece");
        assert_eq!(update_index(&path).await.unwrap().len(), points.len(), "kept");
        for from in [1, 2, 777, 50_000, 99_999] {
            let range = logs.lines(&"run".into(), &"job".into(), 1, false, (from, from + 1)).await.unwrap();
            let texts: Vec<_> = range.lines.iter().map(|line| (line.number, line.text.as_str())).collect();
            let expected = [from, from + 1].map(|line| (line, format!("line {line} of a long log")));
            assert_eq!(texts, expected.each_ref().map(|(line, text)| (*line, text.as_str())));
            assert_eq!(range.total, 100_000);
        }
    }

    #[tokio::test]
    async fn lines_of_steps_that_print_at_once_stay_whole_and_name_their_step_from_any_line_on() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path());
        let begin = |step: i32, name: &str| LogRecord {
            step,
            mark: Some(proto::worker::Mark { name: format!("Main {name}"), ..Default::default() }),
            ..printed(LogStream::Mark, "")
        };
        let of = |step: i32, text: &str| LogRecord { step, ..printed(LogStream::Stdout, text) };
        let mut records = vec![begin(0, "server"), begin(1, "tests")];
        for round in 0..20_000 {
            records.extend([
                of(0, "from the "),
                of(1, &format!("test {round}\n")),
                of(0, &format!("server {round}\n")),
            ]);
        }
        write(&logs, 0, &records).await;
        assert!(
            !update_index(&logs.path(&"run".into(), &"job".into(), 1).unwrap()).await.unwrap().is_empty(),
            "it is read from points"
        );
        let range = logs.lines(&"run".into(), &"job".into(), 1, false, (30_003, 30_004)).await.unwrap();
        let seen: Vec<_> = range.lines.iter().map(|line| (line.within.as_deref(), line.text.as_str())).collect();
        assert_eq!(seen, [(Some("tests"), "test 15000"), (Some("server"), "from the server 15000")]);
    }

    #[tokio::test]
    async fn a_progress_bar_is_one_line_in_its_last_state_however_long_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path());
        let mut records = vec![printed(LogStream::Stdout, "windows\r"), printed(LogStream::Stdout, "\nbegin 0%\r")];
        // More than a line may have, and a state that is cut anywhere.
        records.extend((0..20_000).map(|step| printed(LogStream::Stderr, &format!("\r{step} of 20000"))));
        records.extend([
            printed(LogStream::Stdout, "begin 50%\rbegin 1"),
            printed(LogStream::Stdout, "00%\ncleared\r\u{1b}[Kafter\n"),
            printed(LogStream::Stderr, "\nstays\r"),
        ]);
        write(&logs, 0, &records).await;
        let range = logs.lines(&"run".into(), &"job".into(), 1, true, (1, 100)).await.unwrap();
        let texts: Vec<_> = range.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["windows", "begin 100%", "\u{1b}[Kafter", "19999 of 20000", "stays"]);
        assert_eq!(range.total, 5);
    }

    #[tokio::test]
    async fn a_growing_log_keeps_its_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path());
        let end =
            write(&logs, 0, &[printed(LogStream::Stdout, "first\nsec"), printed(LogStream::Stderr, "error\n")]).await;
        let texts = async |ended| {
            let range = logs.lines(&"run".into(), &"job".into(), 1, ended, (1, 10)).await.unwrap();
            range.lines.into_iter().map(|line| line.text).collect::<Vec<_>>()
        };
        assert_eq!(texts(false).await, ["first", "error"]);
        write(&logs, end, &[printed(LogStream::Stdout, "ond\nlast")]).await;
        assert_eq!(texts(false).await, ["first", "error", "second"]);
        assert_eq!(texts(true).await, ["first", "error", "second", "last"]);
    }

    #[tokio::test]
    async fn a_text_is_found_by_line_and_nothing_comes_of_a_log_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path());
        write(&logs, 0, &chunks(30_000)).await;
        let found = logs.search(&"run".into(), &"job".into(), 1, "LINE 29999 ", 1).await.unwrap();
        assert_eq!(found, LineMatches { lines: vec![29_999], next: None });
        let many = logs.search(&"run".into(), &"job".into(), 1, "line", 5).await.unwrap();
        assert_eq!((many.lines.len(), many.lines[0], many.next), (MOST_FOUND, 5, Some(5 + MOST_FOUND as u64)));
        let none = logs.lines(&"run".into(), &"other".into(), 1, true, (1, 10)).await.unwrap();
        assert_eq!((none.total, none.lines.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_and_costs_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path());
        write(&logs, 0, &[printed(LogStream::Stdout, &"ä".repeat(200_000))]).await;
        let range = logs.lines(&"run".into(), &"job".into(), 1, true, (1, 10)).await.unwrap();
        assert!(range.total == 1 && range.lines[0].text.len() < LONGEST + 100);
    }
}
