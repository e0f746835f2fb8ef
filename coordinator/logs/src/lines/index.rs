//! The index of a log: points from which its lines can be counted, so that line N is found without reading all before it.
//!
//! Each point holds how many lines end before it, and the output that has no line end yet. The index is a file beside the
//! log. It is built from the log by whoever reads lines, and may be missing or behind.

use std::path::{Path, PathBuf};

use anyhow::Context;
use proto::worker::{LogRecord, LogStream};
use serde::{Deserialize, Serialize};

use super::{NumberedLine, step_mark::StepMark};
use crate::{
    concurrent::ConcurrentSteps,
    record,
    steps::{Joiners, last_state},
    tail,
};

/// Most bytes of one line's text.
pub(super) const LONGEST: usize = 32 << 10;
/// Most bytes of incomplete lines in one point; a point with more is left out.
const MOST_PENDING: usize = 64 << 10;
/// Most marks of one point.
const MOST_MARKS: usize = 2000;

/// A position in a log from which lines can be read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct IndexPoint {
    pub(super) offset: u64,
    /// Lines completed before it.
    pub(super) lines: u64,
    joiners: Joiners,
    concurrent: ConcurrentSteps,
    /// Where steps began and ended since the point before it.
    pub(super) steps: Vec<StepMark>,
}

/// Reads lines onwards from a point.
pub(super) struct LogScan {
    pub(super) offset: u64,
    pub(super) lines: u64,
    joiners: Joiners,
    concurrent: ConcurrentSteps,
}

impl LogScan {
    pub(super) fn from(point: Option<&IndexPoint>) -> Self {
        let IndexPoint { offset, lines, joiners, concurrent, .. } = point.cloned().unwrap_or_default();
        Self { offset, lines, joiners, concurrent }
    }

    /// Reads the next piece of the log. False: there is no more now.
    pub(super) async fn next(&mut self, path: &Path, emit: &mut impl FnMut(NumberedLine)) -> anyhow::Result<bool> {
        let piece = tail::whole_records(path, self.offset, u64::MAX).await?;
        for record in record::decode(&piece).records {
            self.take(&record, emit);
        }
        self.offset += piece.len() as u64;
        Ok(!piece.is_empty())
    }

    fn take(&mut self, record: &LogRecord, emit: &mut impl FnMut(NumberedLine)) {
        let stream = record.stream();
        let Self { lines, joiners, concurrent, .. } = self;
        if let Some(mark) = &record.mark {
            concurrent.mark(record.step, &mark.name, mark.ended);
        }
        let mut line = |time_ms, text: String, ended, within| {
            *lines += 1;
            let stream = record::stream_name(stream);
            emit(NumberedLine { number: *lines, time_ms, step: record.step, stream, text: cut(text), ended, within });
        };
        match (&record.mark, stream) {
            (Some(mark), LogStream::Mark) => {
                let ended = mark.ended.then(|| (mark.conclusion.clone(), mark.duration_ms));
                line(record.time_ms, mark.name.clone(), ended, None);
            }
            _ => {
                let within = concurrent.name(record.step);
                joiners.push(record, |time_ms, text| {
                    line(time_ms, last_state(&text).to_owned(), None, within.map(str::to_owned));
                });
                if record.text.contains(&b'\r') {
                    joiners.forget_overwritten(record.step);
                }
            }
        }
    }

    /// Emits output without a line end as lines.
    pub(super) fn finish(&mut self, emit: &mut impl FnMut(NumberedLine)) {
        let Self { lines, joiners, concurrent, .. } = self;
        joiners.flush(|step, time_ms, text| {
            *lines += 1;
            emit(NumberedLine {
                number: *lines,
                time_ms,
                step,
                stream: "stdout",
                text: cut(last_state(&text).to_owned()),
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

/// Brings the index of a log up to date and returns its points.
pub(crate) async fn update_index(path: &Path) -> anyhow::Result<Vec<IndexPoint>> {
    Ok(indexed(path).await?.0)
}

/// As [`update_index`], with a scan at the end of the log.
pub(super) async fn indexed(path: &Path) -> anyhow::Result<(Vec<IndexPoint>, LogScan)> {
    let stored = index_path(path);
    let length = match tokio::fs::metadata(path).await {
        Ok(found) => found.len(),
        Err(_) => return Ok((Vec::new(), LogScan::from(None))),
    };
    // An unreadable index is built again.
    let known = tokio::fs::read(&stored).await.ok().and_then(|text| serde_json::from_slice(&text).ok());
    let mut points: Vec<IndexPoint> = known.unwrap_or_default();
    points.retain(|point| point.offset <= length);
    let before = points.len();
    let mut scan = LogScan::from(points.last());
    let mut steps = Vec::new();
    loop {
        let begin = scan.offset;
        let mut keep = |line: NumberedLine| {
            if steps.len() < MOST_MARKS {
                steps.extend(StepMark::of(line));
            }
        };
        if !scan.next(path, &mut keep).await? {
            break;
        }
        // A short piece is the current end: while the log grows there would be a point for each of its pieces.
        let whole = scan.offset - begin >= tail::PIECE / 2;
        if whole && scan.joiners.pending() <= MOST_PENDING {
            let steps = std::mem::take(&mut steps);
            points.push(IndexPoint {
                offset: scan.offset,
                lines: scan.lines,
                joiners: scan.joiners.clone(),
                concurrent: scan.concurrent.clone(),
                steps,
            });
        }
    }
    if points.len() > before {
        write(&stored, &points).await.with_context(|| format!("can't write the index {}", stored.display()))?;
    }
    Ok((points, scan))
}

/// Writes a temporary file and renames it, so that a reader never sees a part of an index.
async fn write(stored: &Path, points: &[IndexPoint]) -> anyhow::Result<()> {
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
    // Another name than that of earlier versions, which counted other lines.
    path.with_extension("index")
}
