//! When a job whose attempt was lost is tried again.

use workflow::plan::Reason;

use crate::id::JobKey;

use super::{JobPhase, RetryStarted, RunState, transition::Transition};

/// Attempts of one job before its start is given up (a start, a pull or a worker failed).
const ATTEMPTS: usize = 3;
/// Attempts of one job that may end with their workers: a third worker is not risked for a job that may be the cause.
const LOST_WORKERS: usize = 2;

impl RunState {
    /// Whether a job may run twice: nothing it was given lets it change the world, or the operator allows it.
    fn repeatable(&self, key: &JobKey) -> bool {
        match self.rules.retry_started {
            RetryStarted::Always => true,
            RetryStarted::Never => false,
            RetryStarted::Harmless => !self.gives_job_secrets(key),
        }
    }
}

impl Transition {
    /// Whether a job is handed out again after its current attempt ended for this reason.
    pub(super) fn is_retried(&self, key: &JobKey, reason: &Reason) -> bool {
        let Some(job) = self.state.jobs.get(key) else { return false };
        if self.halted() || !matches!(job.phase, JobPhase::Running { .. }) || job.attempts.len() >= ATTEMPTS {
            return false;
        }
        let started = job.attempts.last().is_some_and(|a| a.begun_at.is_some());
        // This one, and those before it.
        let lost_workers = 1 + job.attempts.iter().filter(|a| matches!(a.lost, Some(Reason::WorkerLost(_)))).count();
        match reason {
            Reason::WorkerLost(_) if lost_workers >= LOST_WORKERS => false,
            Reason::StartFailed(_) => !started,
            Reason::PullFailed(_) => !started && !self.state.rules.one_worker,
            Reason::WorkerLost(_) | Reason::SandboxLost(_) | Reason::ProcessLost(_) => {
                !started || self.state.repeatable(key)
            }
            _ => false,
        }
    }

    /// Notes why the current attempt was lost, and queues the job again.
    pub(super) fn retry(&mut self, key: &JobKey, reason: Reason) {
        let waits = format!("attempt lost ({}), trying again", reason);
        if let Some(last) = self.job_mut(key).and_then(|job| job.attempts.last_mut()) {
            last.lost = Some(reason);
        }
        self.queue(key, waits);
    }
}
