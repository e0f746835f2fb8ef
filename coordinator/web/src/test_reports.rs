//! What the tests of a run said, as the API and its page show it.

use serde::Serialize;
use utoipa::ToSchema;

use super::log_text::strip_ansi;
use domain::{
    id::{JobKey, RunId},
    run::Millis,
};
use store::{ListedTest, TestOutcome, TestReport};

/// Tests that failed, and others, of one report on a page.
const FAILURES: usize = 200;
const OTHERS: usize = 300;

/// The tests of one artifact.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TestReportView {
    /// Id of the artifact.
    pub(super) artifact: u64,
    /// Its name.
    pub(super) name: String,
    /// Key of the job that uploaded it.
    #[schema(value_type = String)]
    pub(super) job: JobKey,
    pub(super) failed: u64,
    skipped: u64,
    passed: u64,
    /// Milliseconds that all tests took.
    pub(super) millis: Millis,
    /// Those that failed first, then those that were skipped.
    tests: Vec<TestView>,
    /// How many tests are not in the list.
    omitted: u64,
    /// Files that were not read, or not to their end, and why; for people.
    pub(super) unread: Vec<String>,
}

/// A test.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TestView {
    /// Its class, or its suite.
    pub(super) suite: String,
    pub(super) name: String,
    /// `failed`, `skipped` or `passed`.
    #[schema(value_type = String)]
    outcome: TestOutcome,
    pub(super) millis: Option<Millis>,
    /// Why it failed, or was skipped.
    pub(super) message: String,
    /// What it printed, where it failed.
    pub(super) output: String,
    /// The run from which on it failed each time.
    pub(super) since: Option<FailedSinceView>,
}

/// The run from which on a test failed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FailedSinceView {
    #[schema(value_type = String)]
    pub(super) run: RunId,
    /// Its number among the runs of its workflow.
    pub(super) number: u64,
}

/// How many tests of all reports ended how, each with the class of its colour.
pub(super) fn tallies(reports: &[TestReportView]) -> Vec<(&'static str, String)> {
    let sum = |of: fn(&TestReportView) -> u64| reports.iter().map(of).sum::<u64>();
    let counts = [
        ("failure", sum(|report| report.failed), "failed"),
        ("skipped", sum(|report| report.skipped), "skipped"),
        ("success", sum(|report| report.passed), "passed"),
    ];
    let text = |(class, count, word): (_, u64, &str)| (class, format!("{count} {word}"));
    counts.into_iter().filter(|(_, count, _)| *count > 0).map(text).collect()
}

impl TestReportView {
    pub(super) fn word(&self) -> &'static str {
        if self.failed > 0 { "failure" } else { "success" }
    }

    pub(super) fn counts(&self) -> String {
        counted(&[(self.failed, "failed"), (self.skipped, "skipped"), (self.passed, "passed")])
    }

    pub(super) fn others_counted(&self) -> String {
        counted(&[(self.skipped, "skipped"), (self.passed, "passed")])
    }

    pub(super) fn failures(&self) -> impl Iterator<Item = &TestView> {
        self.tests.iter().filter(|test| test.outcome == TestOutcome::Failed).take(FAILURES)
    }

    pub(super) fn others(&self) -> impl Iterator<Item = &TestView> {
        self.tests.iter().filter(|test| test.outcome != TestOutcome::Failed).take(OTHERS)
    }

    /// How many tests the page does not have.
    pub(super) fn hidden(&self) -> u64 {
        let shown = self.failures().count() + self.others().count();
        (self.failed + self.skipped + self.passed).saturating_sub(shown as u64)
    }
}

fn counted(counts: &[(u64, &str)]) -> String {
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, word)| format!("{count} {word}")).collect();
    if counts.is_empty() { "no tests".to_owned() } else { counts.join(", ") }
}

impl TestView {
    pub(super) fn word(&self) -> &'static str {
        match self.outcome {
            TestOutcome::Failed => "failure",
            TestOutcome::Skipped => "skipped",
            TestOutcome::Passed => "success",
        }
    }
}

impl From<TestReport> for TestReportView {
    fn from(report: TestReport) -> Self {
        let TestReport { artifact, job, name, failed, skipped, passed, millis, list, .. } = report;
        Self {
            artifact,
            name,
            job,
            failed,
            skipped,
            passed,
            millis,
            tests: list.tests.into_iter().map(TestView::from).collect(),
            omitted: list.omitted,
            unread: list.unread.iter().map(|text| shown(text)).collect(),
        }
    }
}

impl From<ListedTest> for TestView {
    fn from(test: ListedTest) -> Self {
        Self {
            suite: shown(&test.suite),
            name: shown(&test.name),
            outcome: test.outcome,
            millis: test.millis,
            message: shown(&test.message),
            output: shown(&test.output),
            since: test.since.map(|since| FailedSinceView { run: since.run, number: since.number }),
        }
    }
}

/// Text that a job wrote, without control sequences, and with what turns it around made visible.
fn shown(text: &str) -> String {
    text.lines().map(strip_ansi).collect::<Vec<_>>().join("\n")
}
