//! Lines of one attempt by their number, without reading what is before them.
//!
//! Beside a log stands an index of points, one for each piece that was read: how many lines end before it, and what had
//! begun of the next ones. It is made from the log alone, by whoever reads lines, and may be missing or behind.

use std::path::{Path, PathBuf};

use anyhow::Context;
use proto::worker::{LogRecord, LogStream};
use serde::{Deserialize, Serialize};

use super::{Logs, concurrent::ConcurrentSteps, record, steps::Joiners, tail};

/// Lines given at once.
pub const MOST_LINES: u64 = 5000;
/// Bytes of text given at once, unless a single line has more.
const MOST_BYTES: usize = 2 << 20;
/// Bytes shown of one line.
const LONGEST: usize = 32 << 10;
/// A point that would carry more begun lines than this is left out.
const MOST_PENDING: usize = 64 << 10;
/// Bytes of a log that are searched at once.
const SEARCHED: u64 = 32 << 20;
/// Steps that are remembered between two points.
const MOST_STEPS: usize = 1000;
/// Lines found at once.
const MOST_FOUND: usize = 1000;

/// A whole line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Numbered {
    /// From 1, in the order in which lines were ended.
    pub number: u64,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Index of the step, -1 before the first, -2 after the last.
    pub step: i32,
    /// `stdout`, `stderr`, `notice` or `mark`.
    pub stream: &'static str,
    /// As printed, colours included, without the line's end; a very long line is cut.
    pub text: String,
    /// For a `mark`: how the step ended, and after how many milliseconds; none where it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<(String, u64)>,
    /// Name of the step, where steps print at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

impl Numbered {
    /// A step begins here.
    fn begins(&self) -> bool {
        self.stream == "mark" && self.ended.is_none()
    }
}

/// Some lines.
#[derive(Debug, Default)]
pub struct Range {
    /// Lines there are now.
    pub total: u64,
    /// The first of them that were asked for.
    pub lines: Vec<Numbered>,
}

/// Where a text was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Numbers of lines.
    pub lines: Vec<u64>,
    /// The line to go on from, where not all were looked at.
    pub next: Option<u64>,
}

impl Logs {
    /// Lines `from` to `to`, both included, as many as fit one answer. `ended`: nothing more will be printed, so what
    /// has no line end is a line too.
    pub async fn lines(
        &self,
        run: &str,
        job: &str,
        attempt: u32,
        ended: bool,
        (from, to): (u64, u64),
    ) -> anyhow::Result<Range> {
        let path = self.path(run, job, attempt)?;
        let (points, mut end) = indexed(&path).await?;
        let mut range = Range::default();
        let to = to.min(from.saturating_add(MOST_LINES - 1));
        let mut bytes = 0;
        let mut keep = |line: Numbered| {
            let fits = bytes == 0 || bytes < MOST_BYTES;
            if (from..=to).contains(&line.number) && fits {
                bytes += line.text.len();
                range.lines.push(line);
            }
        };
        let mut scan = Scan::from(points.iter().rfind(|point| point.lines < from.max(1)));
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
    pub async fn step(&self, run: &str, job: &str, attempt: u32, name: &str) -> anyhow::Result<Option<u64>> {
        let path = self.path(run, job, attempt)?;
        let main = format!("Main {name}");
        let is_it = |mark: &str| mark == name || mark == main;
        let points = index(&path).await?;
        let known = points.iter().flat_map(|point| &point.steps).find(|(_, known)| is_it(known));
        if let Some((line, _)) = known {
            return Ok(Some(*line));
        }
        let mut found = None;
        let mut scan = Scan::from(points.last());
        let mut keep = |line: Numbered| {
            if line.begins() && is_it(&line.text) {
                found.get_or_insert(line.number);
            }
        };
        while scan.next(&path, &mut keep).await? {}
        Ok(found)
    }

    /// Lines from `from` on that contain a text, in any case of its letters.
    pub async fn search(&self, run: &str, job: &str, attempt: u32, text: &str, from: u64) -> anyhow::Result<Found> {
        let path = self.path(run, job, attempt)?;
        let wanted = text.to_lowercase();
        let points = index(&path).await?;
        let mut scan = Scan::from(points.iter().rfind(|point| point.lines < from.max(1)));
        let begin = scan.offset;
        let mut found = Found::default();
        let mut keep = |line: Numbered| {
            if line.number >= from && line.text.to_lowercase().contains(&wanted) {
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

/// A place in a log from which lines can be read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Point {
    offset: u64,
    /// Lines that ended before it.
    lines: u64,
    joiners: Joiners,
    concurrent: ConcurrentSteps,
    /// Steps that began since the point before it: line and name.
    steps: Vec<(u64, String)>,
}

/// Reading lines onwards from a point.
struct Scan {
    offset: u64,
    lines: u64,
    joiners: Joiners,
    concurrent: ConcurrentSteps,
}

impl Scan {
    fn from(point: Option<&Point>) -> Self {
        let Point { offset, lines, joiners, concurrent, .. } = point.cloned().unwrap_or_default();
        Self { offset, lines, joiners, concurrent }
    }

    /// Reads one piece. False: there is no more now.
    async fn next(&mut self, path: &Path, emit: &mut impl FnMut(Numbered)) -> anyhow::Result<bool> {
        let piece = tail::whole_records(path, self.offset, u64::MAX).await?;
        for record in record::decode(&piece).records {
            self.take(&record, emit);
        }
        self.offset += piece.len() as u64;
        Ok(!piece.is_empty())
    }

    fn take(&mut self, record: &LogRecord, emit: &mut impl FnMut(Numbered)) {
        let stream = record.stream();
        let Self { lines, joiners, concurrent, .. } = self;
        if let Some(mark) = &record.mark {
            concurrent.mark(record.step, &mark.name, mark.ended);
        }
        let mut line = |time_ms, text: String, ended, within| {
            *lines += 1;
            let stream = record::word(stream);
            emit(Numbered { number: *lines, time_ms, step: record.step, stream, text: cut(text), ended, within });
        };
        match (&record.mark, stream) {
            (Some(mark), LogStream::Mark) => {
                let ended = mark.ended.then(|| (mark.conclusion.clone(), mark.duration_ms));
                line(record.time_ms, mark.name.clone(), ended, None);
            }
            _ => {
                let within = concurrent.name(record.step);
                joiners.push(record, |time_ms, text| line(time_ms, text, None, within.map(str::to_owned)));
            }
        }
    }

    /// Gives what has no line end.
    fn finish(&mut self, emit: &mut impl FnMut(Numbered)) {
        let Self { lines, joiners, concurrent, .. } = self;
        joiners.flush(|step, time_ms, text| {
            *lines += 1;
            emit(Numbered {
                number: *lines,
                time_ms,
                step,
                stream: "stdout",
                text: cut(text),
                ended: None,
                within: concurrent.name(step).map(str::to_owned),
            });
        });
    }
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" … (cut; the whole log has it)");
    }
    text
}

/// The points of a log, those that were missing made and kept.
pub(super) async fn index(path: &Path) -> anyhow::Result<Vec<Point>> {
    Ok(indexed(path).await?.0)
}

/// The points of a log, and the place behind all that is there.
async fn indexed(path: &Path) -> anyhow::Result<(Vec<Point>, Scan)> {
    let stored = index_path(path);
    let length = match tokio::fs::metadata(path).await {
        Ok(found) => found.len(),
        Err(_) => return Ok((Vec::new(), Scan::from(None))),
    };
    // An index that can't be read is made anew.
    let known = tokio::fs::read(&stored).await.ok().and_then(|text| serde_json::from_slice(&text).ok());
    let mut points: Vec<Point> = known.unwrap_or_default();
    points.retain(|point| point.offset <= length);
    let before = points.len();
    let mut scan = Scan::from(points.last());
    let mut steps = Vec::new();
    loop {
        let begin = scan.offset;
        let mut keep = |line: Numbered| {
            if line.begins() && steps.len() < MOST_STEPS {
                steps.push((line.number, line.text));
            }
        };
        if !scan.next(path, &mut keep).await? {
            break;
        }
        // A short piece is the end as it is now: a point for each would pile up while the log grows.
        let whole = scan.offset - begin >= tail::PIECE / 2;
        if whole && scan.joiners.pending() <= MOST_PENDING {
            let steps = std::mem::take(&mut steps);
            points.push(Point {
                offset: scan.offset,
                lines: scan.lines,
                joiners: scan.joiners.clone(),
                concurrent: scan.concurrent.clone(),
                steps,
            });
        }
    }
    if points.len() > before {
        keep(&stored, &points).await.with_context(|| format!("can't keep the index {}", stored.display()))?;
    }
    Ok((points, scan))
}

/// Written aside and moved: a reader sees a whole index, whoever writes it.
async fn keep(stored: &Path, points: &[Point]) -> anyhow::Result<()> {
    let folder = stored.parent().context("a log stands in a folder")?.to_owned();
    let text = serde_json::to_vec(points)?;
    let stored = stored.to_owned();
    let written = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, &text)?;
        file.persist(stored)?;
        Ok(())
    });
    written.await?
}

fn index_path(path: &Path) -> PathBuf {
    path.with_extension("lines")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use bytes::Bytes;

    use super::*;

    fn printed(stream: LogStream, text: &str) -> LogRecord {
        LogRecord { time_ms: 5, step: 0, stream: stream.into(), text: text.to_owned().into(), mark: None }
    }

    async fn write(logs: &Logs, offset: u64, records: &[LogRecord]) -> u64 {
        logs.append("run", "job", 1, offset, Bytes::from(record::encode(records))).await.unwrap()
    }

    /// Chunks of output as a pipe gives them, cut anywhere, with errors between.
    fn chunks(lines: u64) -> Vec<LogRecord> {
        let text: String = (1..=lines).map(|line| format!("line {line} of a long log\n")).collect();
        let cut =
            text.as_bytes().chunks(1009).map(|part| printed(LogStream::Stdout, std::str::from_utf8(part).unwrap()));
        cut.collect()
    }

    #[tokio::test]
    async fn any_lines_are_had_without_reading_the_log_from_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path());
        write(&logs, 0, &chunks(100_000)).await;
        let path = logs.path("run", "job", 1).unwrap();
        let points = index(&path).await.unwrap();
        assert!(points.len() > 5, "{}", points.len());
        assert!(points.windows(2).all(|pair| pair[1].offset - pair[0].offset <= tail::PIECE), "a step is one piece");
        assert_eq!(index(&path).await.unwrap().len(), points.len(), "kept");
        for from in [1, 2, 777, 50_000, 99_999] {
            let range = logs.lines("run", "job", 1, false, (from, from + 1)).await.unwrap();
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
        assert!(!index(&logs.path("run", "job", 1).unwrap()).await.unwrap().is_empty(), "it is read from points");
        let range = logs.lines("run", "job", 1, false, (30_003, 30_004)).await.unwrap();
        let seen: Vec<_> = range.lines.iter().map(|line| (line.within.as_deref(), line.text.as_str())).collect();
        assert_eq!(seen, [(Some("tests"), "test 15000"), (Some("server"), "from the server 15000")]);
    }

    #[tokio::test]
    async fn a_growing_log_keeps_its_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path());
        let end =
            write(&logs, 0, &[printed(LogStream::Stdout, "first\nsec"), printed(LogStream::Stderr, "error\n")]).await;
        let texts = async |ended| {
            let range = logs.lines("run", "job", 1, ended, (1, 10)).await.unwrap();
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
        let found = logs.search("run", "job", 1, "LINE 29999 ", 1).await.unwrap();
        assert_eq!(found, Found { lines: vec![29_999], next: None });
        let many = logs.search("run", "job", 1, "line", 5).await.unwrap();
        assert_eq!((many.lines.len(), many.lines[0], many.next), (MOST_FOUND, 5, Some(5 + MOST_FOUND as u64)));
        let none = logs.lines("run", "other", 1, true, (1, 10)).await.unwrap();
        assert_eq!((none.total, none.lines.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_and_costs_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path());
        write(&logs, 0, &[printed(LogStream::Stdout, &"ä".repeat(200_000))]).await;
        let range = logs.lines("run", "job", 1, true, (1, 10)).await.unwrap();
        assert!(range.total == 1 && range.lines[0].text.len() < LONGEST + 100);
    }
}
