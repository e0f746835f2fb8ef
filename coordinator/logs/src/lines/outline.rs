//! The steps of a log: where each begins and ends, and how it ended.

use serde::Serialize;

use super::{
    NumberedLine,
    index::{LogScan, update_index},
    step_mark::StepMark,
};
use crate::Logs;
use domain::id::{JobKey, RunId};

/// Most steps of an outline.
pub const MOST_STEPS: usize = 2000;

/// A step of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepLines {
    /// As its marks name it: `Main cargo test`, `Post actions/cache@v4`, `Set up job`.
    pub name: String,
    /// Index of the step, -1 before the first, -2 after the last.
    pub step: i32,
    /// The line with which it begins.
    pub first: u64,
    /// The line with which it ends; `None`: it goes on, or the log broke off.
    pub last: Option<u64>,
    /// When it began, in milliseconds since the Unix epoch.
    pub begun_at: u64,
    /// How it ended.
    pub conclusion: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<u64>,
}

impl Logs {
    /// The steps of an attempt's log in the order in which they began, at most [`MOST_STEPS`].
    pub async fn outline(&self, run: &RunId, job: &JobKey, attempt: u32) -> anyhow::Result<Vec<StepLines>> {
        let path = self.path(run, job, attempt)?;
        let points = update_index(&path).await?;
        let mut outline = Vec::new();
        for mark in points.iter().flat_map(|point| &point.steps) {
            take(&mut outline, mark);
        }
        let mut scan = LogScan::from(points.last());
        let mut keep = |line: NumberedLine| {
            if let Some(mark) = StepMark::of(line) {
                take(&mut outline, &mark);
            }
        };
        while scan.next(&path, &mut keep).await? {}
        Ok(outline)
    }
}

fn take(outline: &mut Vec<StepLines>, mark: &StepMark) {
    let Some((conclusion, duration_ms)) = &mark.ended else {
        if outline.len() < MOST_STEPS {
            outline.push(StepLines {
                name: mark.name.clone(),
                step: mark.step,
                first: mark.line,
                last: None,
                begun_at: mark.time_ms,
                conclusion: None,
                duration_ms: None,
            });
        }
        return;
    };
    let is_it = |step: &&mut StepLines| step.last.is_none() && step.step == mark.step && step.name == mark.name;
    if let Some(step) = outline.iter_mut().rev().find(is_it) {
        step.last = Some(mark.line);
        step.conclusion = Some(conclusion.clone());
        step.duration_ms = Some(*duration_ms);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use bytes::Bytes;
    use proto::worker::{LogRecord, LogStream, Mark};

    use super::*;
    use crate::record;

    fn mark(step: i32, name: &str, ended: Option<(&str, u64)>) -> LogRecord {
        let (conclusion, duration_ms) = ended.unwrap_or_default();
        let mark = Mark {
            name: name.into(),
            ended: ended.is_some(),
            conclusion: conclusion.into(),
            duration_ms,
            ..Mark::default()
        };
        LogRecord { time_ms: 7, step, stream: LogStream::Mark.into(), text: Bytes::new(), mark: Some(mark) }
    }

    fn printed(step: i32, lines: usize) -> LogRecord {
        let text = "a line of some length that fills the log\n".repeat(lines);
        LogRecord { time_ms: 7, step, stream: LogStream::Stdout.into(), text: text.into(), mark: None }
    }

    #[tokio::test]
    async fn each_step_has_its_lines_and_its_end_also_where_steps_run_at_once_and_logs_are_long() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path());
        let mut records = vec![mark(0, "Main server", None), mark(1, "Main tests", None)];
        records.extend((0..600).map(|_| printed(1, 50)));
        records.extend([mark(1, "Main tests", Some(("failure", 40))), printed(0, 1), mark(2, "Main last", None)]);
        let bytes = Bytes::from(record::encode(&records));
        logs.append(&"run".into(), &"job".into(), 1, 0, bytes).await.unwrap();
        // The first time from the log, the second from its index.
        for _ in 0..2 {
            let outline = logs.outline(&"run".into(), &"job".into(), 1).await.unwrap();
            let seen: Vec<_> = outline
                .iter()
                .map(|step| (step.name.as_str(), step.first, step.last, step.conclusion.as_deref(), step.duration_ms))
                .collect();
            let expected = [
                ("Main server", 1, None, None, None),
                ("Main tests", 2, Some(30_003), Some("failure"), Some(40)),
                ("Main last", 30_005, None, None, None),
            ];
            assert_eq!(seen, expected);
        }
        assert_eq!(logs.outline(&"run".into(), &"none".into(), 1).await.unwrap(), []);
    }
}
