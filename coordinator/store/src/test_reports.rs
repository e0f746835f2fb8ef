//! What the tests of a job said, read from an artifact: counts, and a list that has a row of its own.

use domain::id::{JobKey, RunId};
use serde::{Deserialize, Serialize};

use super::{
    Change, Store, StoreError,
    columns::{integer, natural},
    sql::{Connection, Row, query, query_scalar},
};

/// Most rows of one answer.
const ROWS: i64 = 100;
/// Earlier runs that are looked through for a report.
const SERIES: i64 = 200;

/// The tests of one artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestReport {
    /// Id of the artifact, with which it goes.
    pub artifact: u64,
    /// Run id.
    pub run: RunId,
    /// Job key.
    pub job: JobKey,
    /// Who asked for the run, 64 hex.
    pub author: String,
    /// Name of the artifact.
    pub name: String,
    /// How many tests failed.
    pub failed: u64,
    /// How many were skipped.
    pub skipped: u64,
    /// How many passed.
    pub passed: u64,
    /// Milliseconds that all took.
    pub millis: u64,
    /// Whether the run acts with the maintainers' word: later runs are compared with such ones alone.
    pub trusted: bool,
    /// The tests.
    pub list: TestList,
}

/// The list of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestList {
    /// Those that failed, then those that were skipped, then the others.
    pub tests: Vec<ListedTest>,
    /// How many tests are not in the list.
    #[serde(default)]
    pub omitted: u64,
    /// Files that could not be read to their end, and why; for people.
    #[serde(default)]
    pub unread: Vec<String>,
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TestOutcome {
    /// It failed, or could not be run to its end.
    Failed,
    /// It was not run.
    Skipped,
    /// It passed.
    Passed,
}

impl TestOutcome {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Passed => "passed",
        }
    }
}

/// A test of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedTest {
    /// Its class, or its suite.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suite: String,
    /// Its name.
    pub name: String,
    /// How it ended.
    pub outcome: TestOutcome,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub millis: Option<u64>,
    /// Why it failed, or was skipped.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What it printed, where it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// The run from which on it failed each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<FailedSince>,
}

/// The run from which on a test failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedSince {
    /// Run id.
    pub run: RunId,
    /// Its number among the runs of its workflow.
    pub number: u64,
}

impl From<TestReport> for Change {
    fn from(report: TestReport) -> Self {
        Self::TestReport(report)
    }
}

impl Store {
    /// The reports of a run, those with failures first.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn test_reports(&self, run: &RunId) -> Result<Vec<TestReport>, StoreError> {
        let statement = query(
            "SELECT artifact, run, job, author, name, failed, skipped, passed, millis, trusted, document FROM test_reports
             WHERE run = $1 ORDER BY CASE WHEN failed > 0 THEN 0 ELSE 1 END, name, artifact LIMIT $2",
        );
        statement.bind(run).bind(ROWS).fetch_all(&self.readers).await?.iter().map(report).collect()
    }

    /// The report of this name of the newest earlier run of the same workflow and branch that acted with the maintainers'
    /// word and has one. The last 200 runs are looked through.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn test_report_before(&self, run: &RunId, name: &str) -> Result<Option<TestReport>, StoreError> {
        let statement = query(
            "SELECT t.artifact, t.run, t.job, t.author, t.name, t.failed, t.skipped, t.passed, t.millis, t.trusted,
                 t.document
             FROM (SELECT earlier.id, earlier.serial FROM runs own JOIN runs earlier ON earlier.serial < own.serial
                     AND earlier.repository = own.repository AND earlier.workflow = own.workflow
                     AND earlier.branch = own.branch
                 WHERE own.id = $1 ORDER BY earlier.serial DESC LIMIT $3) series
             JOIN test_reports t ON t.run = series.id
             WHERE t.name = $2 AND t.trusted = 1 ORDER BY series.serial DESC LIMIT 1",
        );
        statement
            .bind(run)
            .bind(name)
            .bind(SERIES)
            .fetch_optional(&self.readers)
            .await?
            .as_ref()
            .map(report)
            .transpose()
    }

    /// Bytes of the lists of a run, and of all runs that an author asked for.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn test_report_bytes(&self, run: &RunId, author: &str) -> Result<(u64, u64), StoreError> {
        // PostgreSQL sums BIGINT to NUMERIC.
        let sum = "SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM test_reports";
        let of_run = query_scalar(format!("{sum} WHERE run = $1")).bind(run);
        let of_author = query_scalar(format!("{sum} WHERE author = $1")).bind(author);
        Ok((of_run.fetch_one(&self.readers).await?, of_author.fetch_one(&self.readers).await?))
    }
}

pub(super) async fn write(connection: &mut Connection, report: &TestReport) -> Result<(), StoreError> {
    let document = serde_json::to_string(&report.list)?;
    let size = integer(document.len() as u64);
    let statement = query(
        "INSERT INTO test_reports (artifact, run, job, author, name, failed, skipped, passed, millis, trusted, document,
             size)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 WHERE EXISTS (SELECT 1 FROM artifacts WHERE id = $1)
         ON CONFLICT (artifact) DO NOTHING",
    )
    .bind(integer(report.artifact))
    .bind(&report.run)
    .bind(&report.job)
    .bind(&report.author)
    .bind(&report.name)
    .bind(integer(report.failed))
    .bind(integer(report.skipped))
    .bind(integer(report.passed))
    .bind(integer(report.millis))
    .bind(report.trusted)
    .bind(document)
    .bind(size);
    statement.execute(connection).await.map(drop)
}

fn report(row: &Row) -> Result<TestReport, StoreError> {
    Ok(TestReport {
        artifact: natural(row, 0)?,
        run: row.get(1)?,
        job: row.get(2)?,
        author: row.get(3)?,
        name: row.get(4)?,
        failed: natural(row, 5)?,
        skipped: natural(row, 6)?,
        passed: natural(row, 7)?,
        millis: natural(row, 8)?,
        trusted: row.get(9)?,
        list: serde_json::from_str(&row.get::<String>(10)?)?,
    })
}
