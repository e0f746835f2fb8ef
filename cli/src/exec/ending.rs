//! What stands at the end of a run: its jobs, what they said of it, and why it failed. Pure.

use std::collections::{BTreeMap, VecDeque};

use console::Style;
use domain::run::{Job, JobPhase};
use logs::line_text::step_name;
use workflow::plan::{Conclusion, JobReport, Reason};

use crate::terminal::{
    printable::printable,
    tree::{StatusMark, duration},
};

/// Failed jobs that are shown with their last lines.
pub(super) const SHOWN: usize = 3;
/// Lines that are shown of each.
const LINES: usize = 15;

/// The lines that stand last in the first step of a job that failed.
#[derive(Default)]
pub(super) struct FailedStep {
    /// Of each step that has not ended.
    open: BTreeMap<i32, VecDeque<String>>,
    lines: Option<VecDeque<String>>,
}

impl FailedStep {
    /// A step printed a line.
    pub(super) fn printed(&mut self, step: i32, line: String) {
        if self.lines.is_some() {
            return;
        }
        let last = self.open.entry(step).or_default();
        last.push_back(line);
        if last.len() > LINES {
            last.pop_front();
        }
    }

    /// A step ended.
    pub(super) fn ended(&mut self, step: i32, conclusion: &str) {
        let last = self.open.remove(&step).unwrap_or_default();
        if conclusion == "failure" && self.lines.is_none() {
            self.lines = Some(last);
            self.open.clear();
        }
    }

    /// Empty: none failed.
    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.iter().flatten().cloned().collect()
    }
}

/// Whether the run failed by this job.
pub(super) fn is_failed(job: &Job) -> bool {
    matches!(&job.phase, JobPhase::Done { conclusion: Conclusion::Failure, .. }) && !job.tolerated
}

/// A job with why it was skipped, its annotations and summary. Where a tree shows the jobs, only one that said something
/// is named again.
pub(super) fn job(job: &Job, why: Option<&str>, report: Option<&JobReport>, in_tree: bool) -> String {
    let JobPhase::Done { conclusion, reason, .. } = &job.phase else { return String::new() };
    let remarks = report.map(remarks).unwrap_or_default();
    if in_tree && remarks.is_empty() {
        return String::new();
    }
    let mut text = format!("{} {}", StatusMark::of(conclusion.as_str()).shown(), printable(&job.name));
    if let Some(report) = report.filter(|report| report.started_at_ms > 0) {
        let took = report.finished_at_ms.saturating_sub(report.started_at_ms);
        text.push_str(&format!(" {}", Style::new().dim().apply_to(duration(took))));
    }
    if let Some(reason) = reason.as_ref().filter(|reason| **reason != Reason::Step) {
        text.push_str(&format!(" ({})", printable(&reason.to_string())));
    } else if let Some(why) = why {
        text.push_str(&format!(": {}", printable(why)));
    }
    format!("{text}\n{remarks}")
}

/// A job's annotations and summary.
fn remarks(report: &JobReport) -> String {
    let mut text = String::new();
    for annotation in &report.annotations {
        let line = annotation.line.map(|line| format!(":{line}")).unwrap_or_default();
        let place = annotation.file.as_ref().map(|file| format!(" {file}{line}:")).unwrap_or_default();
        let title = annotation.title.as_ref().map(|title| format!(" {title}:")).unwrap_or_default();
        text.push_str(&format!("  {}:{}", annotation.level, printable(&format!("{place}{title}"))));
        // Of several lines each has to be safe.
        let mut lines = annotation.message.lines();
        text.push_str(&format!(" {}\n", printable(lines.next().unwrap_or_default())));
        lines.for_each(|line| text.push_str(&format!("    {}\n", printable(line))));
    }
    report.summary.lines().for_each(|line| text.push_str(&format!("  | {}\n", printable(line))));
    text
}

/// Why a job failed: the step, its exit code and its last lines.
pub(super) fn failure(job: &Job, report: Option<&JobReport>, lines: &[String]) -> String {
    let step = report.and_then(|report| report.steps.iter().find(|step| step.conclusion == Conclusion::Failure));
    let name = step.map(|step| format!(" › {}", step_name(&step.name))).unwrap_or_default();
    let reason = match &job.phase {
        JobPhase::Done { reason: Some(reason), .. } if *reason != Reason::Step => format!(": {reason}"),
        _ => match step.and_then(|step| step.exit_code).filter(|code| *code != 0) {
            Some(code) => format!(": exit code {code}"),
            None => String::new(),
        },
    };
    let head = printable(&format!("{}{name}{reason}", job.name));
    let mut text = format!("\n{} {}\n", StatusMark::Failure.shown(), Style::new().bold().apply_to(head));
    lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use domain::id::JobKey;
    use workflow::plan::{Annotation, StepReport};

    use super::*;

    fn plain(text: &str) -> String {
        console::strip_ansi_codes(text).into_owned()
    }

    fn job_that(conclusion: Conclusion, reason: Option<Reason>) -> Job {
        let phase = JobPhase::Done { conclusion, reason, outcome: None };
        Job { phase, ..Job::blocked("test".into(), &JobKey::default(), "test (us, 1)".into()) }
    }

    fn report(steps: &[(&str, Conclusion, Option<i32>)]) -> JobReport {
        let step = |(name, conclusion, exit_code): &(&str, Conclusion, Option<i32>)| StepReport {
            id: None,
            name: (*name).to_owned(),
            outcome: *conclusion,
            conclusion: *conclusion,
            exit_code: *exit_code,
            duration_ms: 10,
        };
        JobReport {
            conclusion: Conclusion::Failure,
            steps: steps.iter().map(step).collect(),
            started_at_ms: 1000,
            finished_at_ms: 4400,
            ..JobReport::failed(Reason::Step)
        }
    }

    #[test]
    fn a_failure_names_the_step_its_exit_code_and_the_last_lines() {
        let steps = [("Main Build", Conclusion::Success, Some(0)), ("Main Run tests", Conclusion::Failure, Some(3))];
        let lines = ["FAILED test_a".to_owned(), "Error: Process completed with exit code 3.".to_owned()];
        for (reason, steps, head) in [
            (Some(Reason::Step), &steps[..], "✗ test (us, 1) › Run tests: exit code 3"),
            (Some(Reason::OutOfMemory), &steps[..], &format!("✗ test (us, 1) › Run tests: {}", Reason::OutOfMemory)),
            (
                Some(Reason::PullFailed("image x".into())),
                &[],
                &format!("✗ test (us, 1): {}", Reason::PullFailed("image x".into())),
            ),
        ] {
            let text = plain(&failure(&job_that(Conclusion::Failure, reason), Some(&report(steps)), &lines));
            let expected = format!("\n{head}\n    FAILED test_a\n    Error: Process completed with exit code 3.\n\n");
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_job_ends_with_its_time_what_it_said_and_why() {
        let mut said = report(&[]);
        said.annotations = vec![Annotation {
            level: "warning".into(),
            message: "take care\nof it".into(),
            title: Some("Careful".into()),
            file: Some("a.rs".into()),
            line: Some(3),
            ..Annotation::default()
        }];
        said.summary = "# Done\n".into();
        let ended = job_that(Conclusion::Success, None);
        let remarks = "  warning: a.rs:3: Careful: take care\n    of it\n  | # Done\n";
        assert_eq!(plain(&job(&ended, None, Some(&said), false)), format!("✓ test (us, 1) 3.4 s\n{remarks}"));
        assert_eq!(plain(&job(&ended, None, Some(&said), true)), format!("✓ test (us, 1) 3.4 s\n{remarks}"));
        assert_eq!(plain(&job(&ended, None, Some(&report(&[])), true)), "");
        let skipped = job_that(Conclusion::Skipped, Some(Reason::Timeout));
        assert_eq!(plain(&job(&skipped, None, None, false)), format!("– test (us, 1) ({})\n", Reason::Timeout));
        let skipped = job_that(Conclusion::Skipped, None);
        let why = Some("skipped: build failed");
        assert_eq!(plain(&job(&skipped, why, None, false)), "– test (us, 1): skipped: build failed\n");
    }

    #[test]
    fn the_last_lines_are_those_of_the_first_step_that_failed() {
        let mut step = FailedStep::default();
        (0..20).for_each(|line| step.printed(0, format!("good {line}")));
        step.ended(0, "success");
        assert!(step.lines().is_empty());
        (0..20).for_each(|line| step.printed(1, format!("bad {line}")));
        step.printed(2, "beside it".into());
        step.ended(1, "failure");
        step.printed(2, "more".into());
        step.ended(2, "failure");
        let lines = step.lines();
        assert_eq!(
            (lines.len(), lines.first().map(String::as_str), lines.last().map(String::as_str)),
            (LINES, Some("bad 5"), Some("bad 19"))
        );
    }
}
