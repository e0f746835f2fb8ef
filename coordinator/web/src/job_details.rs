//! Details of a run's jobs that are stored apart from the run: reports, and why queued jobs wait.

use std::collections::HashMap;

use domain::id::JobKey;
use domain::run::{JobPhase, RunState};
use store::{Store, StoreError};
use workflow::plan::JobReport;

/// Details of a run's jobs, by job key.
#[derive(Debug, Default)]
pub(super) struct JobDetails {
    /// Accepted reports.
    pub(super) reports: HashMap<JobKey, JobReport>,
    /// Why queued jobs still wait, for people.
    pub(super) wait_reasons: HashMap<JobKey, String>,
}

impl JobDetails {
    /// Reads them for a run.
    pub(super) async fn read(store: &Store, state: &RunState) -> Result<Self, StoreError> {
        let is_queued = state.jobs.values().any(|job| matches!(job.phase, JobPhase::Queued { .. }));
        Ok(Self {
            reports: store.reports_of(state).await?,
            wait_reasons: if is_queued { store.wait_reasons(&state.id).await? } else { HashMap::new() },
        })
    }
}
