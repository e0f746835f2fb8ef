//! Details of a run's jobs that are stored apart from the run: reports, and why queued jobs wait.

use std::collections::{HashMap, HashSet};

use domain::id::JobKey;
use domain::run::{JobPhase, RunState};
use store::{Store, StoreError};
use workflow::plan::JobReport;

/// Characters of all reports of a run that one answer shows.
pub(super) const SHOWN: u64 = 4 << 20;
/// Those that each change of a run brings again to who follows it.
pub(super) const FOLLOWED: u64 = 256 << 10;

/// Details of a run's jobs, by job key.
#[derive(Debug, Default)]
pub(super) struct JobDetails {
    /// Accepted reports.
    pub(super) reports: HashMap<JobKey, JobReport>,
    /// Jobs whose reports are too much for one answer.
    pub(super) left_out: HashSet<JobKey>,
    /// Why queued jobs still wait, for people.
    pub(super) wait_reasons: HashMap<JobKey, String>,
}

impl JobDetails {
    /// Reads them for a run, reports of `most` characters among them.
    pub(super) async fn read(store: &Store, state: &RunState, most: u64) -> Result<Self, StoreError> {
        let is_queued = state.jobs.values().any(|job| matches!(job.phase, JobPhase::Queued { .. }));
        let reports = store.reports_of(state, most).await?;
        Ok(Self {
            reports: reports.found,
            left_out: reports.left_out,
            wait_reasons: if is_queued { store.wait_reasons(&state.id).await? } else { HashMap::new() },
        })
    }
}
