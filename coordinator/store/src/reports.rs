//! Reports of jobs, beside their runs: pages and the API read them, transitions of a run don't.

use std::collections::{HashMap, HashSet};

use domain::id::{JobKey, RunId};
use domain::run::{RunDocument, RunState};
use workflow::plan::JobReport;

use super::{
    Store, StoreError,
    sql::{Connection, query, query_scalar},
};

/// The report of a job's attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredReport {
    /// Run id.
    pub run: RunId,
    /// Job key.
    pub job: JobKey,
    /// From 1.
    pub attempt: u32,
    /// The report, as the worker sent it.
    pub report: Box<JobReport>,
}

/// Reports of a run's jobs.
#[derive(Debug, Default)]
pub struct RunReports {
    /// By job key.
    pub found: HashMap<JobKey, JobReport>,
    /// Jobs whose reports would have been too much.
    pub left_out: HashSet<JobKey>,
}

impl Store {
    /// Reports of a run's jobs, those of reused jobs among them, as many as have `most` characters together.
    pub async fn reports_of(&self, state: &RunState, most: u64) -> Result<RunReports, StoreError> {
        let reported = state.jobs.iter().filter_map(|(key, job)| {
            let run = job.reused.as_ref().map_or(&state.id, |reused| &reused.run);
            Some((run.clone(), key.clone(), job.outcome()?.attempt))
        });
        let wanted: HashSet<(RunId, JobKey, u32)> = reported.collect();
        let runs: HashSet<&RunId> = wanted.iter().map(|(run, ..)| run).collect();
        let (mut reports, mut left) = (RunReports::default(), most);
        for run in runs {
            let statement =
                query_scalar("SELECT CAST(coalesce(sum(length(report)), 0) AS BIGINT) FROM job_reports WHERE run = $1");
            let all: u64 = statement.bind(run).fetch_one(&self.readers).await?;
            if all <= left {
                left -= all;
                for (job, attempt, report) in self.reports_of_run(run).await? {
                    if wanted.contains(&(run.clone(), job.clone(), attempt)) {
                        reports.found.insert(job, report);
                    }
                }
                continue;
            }
            let statement =
                query("SELECT job, attempt, length(report) FROM job_reports WHERE run = $1 ORDER BY job, attempt");
            for row in statement.bind(run).fetch_all(&self.readers).await? {
                let (job, attempt, length): (JobKey, u32, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                if !wanted.contains(&(run.clone(), job.clone(), attempt)) {
                    continue;
                }
                let Some(rest) = left.checked_sub(length) else {
                    reports.left_out.insert(job);
                    continue;
                };
                left = rest;
                if let Some(report) = self.report(run, &job, attempt).await? {
                    reports.found.insert(job, report);
                }
            }
        }
        Ok(reports)
    }

    /// The report of one attempt.
    pub async fn report(&self, run: &RunId, job: &JobKey, attempt: u32) -> Result<Option<JobReport>, StoreError> {
        let statement = query_scalar("SELECT report FROM job_reports WHERE run = $1 AND job = $2 AND attempt = $3");
        let text: Option<String> = statement.bind(run).bind(job).bind(attempt).fetch_optional(&self.readers).await?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    async fn reports_of_run(&self, run: &RunId) -> Result<Vec<(JobKey, u32, JobReport)>, StoreError> {
        let statement = query("SELECT job, attempt, report FROM job_reports WHERE run = $1").bind(run);
        let mut found = Vec::new();
        for row in statement.fetch_all(&self.readers).await? {
            found.push((row.get(0)?, row.get(1)?, serde_json::from_str(&row.get::<String>(2)?)?));
        }
        if found.is_empty() {
            // A run that ended before reports had a table of their own.
            let statement = query_scalar("SELECT state FROM runs WHERE id = $1 AND state_version = 1").bind(run);
            let whole: Option<String> = statement.fetch_optional(&self.readers).await?;
            found.extend(
                whole
                    .map(|text| serde_json::from_str(&text).and_then(RunDocument::read))
                    .transpose()?
                    .into_iter()
                    .flat_map(|of| of.reports),
            );
        }
        Ok(found)
    }
}

/// Stores the report of an attempt.
pub(super) async fn write(
    connection: &mut Connection,
    run: &RunId,
    job: &JobKey,
    attempt: u32,
    report: &JobReport,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO job_reports (run, job, attempt, report) VALUES ($1, $2, $3, $4)
         ON CONFLICT (run, job, attempt) DO UPDATE SET report = excluded.report",
    )
    .bind(run)
    .bind(job)
    .bind(attempt)
    .bind(serde_json::to_string(report)?)
    .execute(connection)
    .await?;
    Ok(())
}
