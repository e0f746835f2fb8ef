//! Form 1 of a stored run: one JSON document with the whole run, and with the report of each job inside its phase.
//!
//! Earlier versions stored runs so. Nothing writes this form any more.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use workflow::plan::JobReport;

use crate::id::JobKey;

use super::{Job, JobOutcome, RunState};

/// A run that was read from a document, and what is no part of its state any more.
#[derive(Debug)]
pub struct RunDocument {
    /// The run.
    pub state: RunState,
    /// Reports of its jobs: job key, attempt and report.
    pub reports: Vec<(JobKey, u32, JobReport)>,
}

impl RunDocument {
    /// Reads a document.
    ///
    /// # Errors
    /// It is no document of form 1.
    pub fn read(document: Value) -> Result<Self, serde_json::Error> {
        let Value::Object(mut document) = document else { return serde_json::from_value(document).map(Self::bare) };
        let mut reports = Vec::new();
        let mut jobs = IndexMap::new();
        for (key, job) in entries(document.remove("jobs")) {
            let (job, report) = with_outcome(job)?;
            let job: Job = serde_json::from_value(job)?;
            if let (Some(report), Some(outcome)) = (report, job.outcome()) {
                reports.push((key.as_str().into(), outcome.attempt, report));
            }
            jobs.insert(JobKey::from(key), Arc::new(job));
        }
        let mut calls = IndexMap::new();
        for (key, call) in entries(document.remove("calls")) {
            calls.insert(JobKey::from(key), Arc::new(serde_json::from_value(call)?));
        }
        let request = Arc::new(value(document.remove("request"))?);
        let planned = value::<Option<_>>(document.remove("planned"))?.map(Arc::new);
        let rerun = match document.remove("rerun") {
            Some(Value::Object(mut rerun)) => {
                let reused = entries(rerun.remove("carried")).map(|(key, job)| Ok((key, with_outcome(job)?.0)));
                let reused = reused.collect::<Result<Map<String, Value>, serde_json::Error>>()?;
                rerun.insert("carried".into(), reused.into());
                Some(Arc::new(serde_json::from_value(rerun.into())?))
            }
            _ => None,
        };
        let head: RunState = serde_json::from_value(document.into())?;
        Ok(Self { state: RunState { request, planned, rerun, jobs, calls, ..head }, reports })
    }

    fn bare(state: RunState) -> Self {
        Self { state, reports: Vec::new() }
    }
}

fn entries(map: Option<Value>) -> impl Iterator<Item = (String, Value)> {
    let map = match map {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    map.into_iter()
}

fn value<T: DeserializeOwned>(value: Option<Value>) -> Result<T, serde_json::Error> {
    serde_json::from_value(value.unwrap_or_default())
}

/// Puts the outcome where the report stood, and returns the report.
fn with_outcome(mut job: Value) -> Result<(Value, Option<JobReport>), serde_json::Error> {
    let attempt = job["attempts"].as_array().and_then(|attempts| attempts.last()?["number"].as_u64());
    let Some(phase) = job.get_mut("phase").and_then(Value::as_object_mut) else { return Ok((job, None)) };
    let report: Option<JobReport> = value(phase.remove("report"))?;
    let outcome = report.as_ref().map(|report| JobOutcome {
        attempt: attempt.and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(1),
        exit_code: report.exit_code,
        outputs: report.outputs.clone(),
        started_at: report.started_at_ms,
        finished_at: report.finished_at_ms,
        failed_step: None,
    });
    phase.insert("outcome".into(), serde_json::to_value(outcome)?);
    Ok((job, report))
}
