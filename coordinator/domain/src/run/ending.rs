//! How jobs and runs end: conclusions, stops, exit codes.

use std::{collections::HashMap, sync::Arc};

use indexmap::IndexMap;
use workflow::plan::{Conclusion, JobReport, MatrixCell, Reason};

use crate::id::JobKey;

use super::{
    Job, JobOutcome, JobPhase, MAX_JOB_OUTPUTS, MAX_OUTPUTS, RunEffect, RunEnd, RunPhase, RunState, job_id::job_id,
    transition::Transition,
};

/// Characters of the name of a step that failed.
const STEP_NAME: usize = 100;

impl RunState {
    /// Whether this run's jobs are given its secrets: only code the maintainers stand for gets them.
    pub fn gives_secrets(&self) -> bool {
        self.secrets && self.planned.as_ref().is_some_and(|planned| planned.proven)
    }

    /// Whether another job, or the caller of its workflow, may read a job's outputs.
    fn outputs_are_read(&self, key: &JobKey) -> bool {
        let (Some(planned), Some(job)) = (&self.planned, self.jobs.get(key)) else { return false };
        let id = job_id(&job.id);
        let file = self.file(planned, &job.parent_call);
        !job.parent_call.is_empty()
            || file.is_some_and(|plan| plan.jobs.values().any(|other| other.needs.iter().any(|need| need == id)))
    }

    /// Result of a job of the file `parent_call` over all its cells, as `needs.<id>.result` shows it; `None` while one is not
    /// done. A tolerated failure counts as success (GitHub docs: `jobs.<job_id>.continue-on-error`).
    pub(super) fn result(&self, parent_call: &JobKey, id: &str) -> Option<Conclusion> {
        let jobs = self.jobs_of(parent_call, id).map(|(_, job)| job.conclusion());
        let calls = self.calls_of(parent_call, id).map(|(key, _)| self.call_result(key));
        let mut result = None;
        for one in jobs.chain(calls) {
            let one = one?;
            result = Some(result.map_or(one, |other| worse(one, other)));
        }
        result
    }

    /// As [`Self::result`], of all jobs of all files: what is asked of many at once.
    pub(super) fn results(&self) -> HashMap<(&JobKey, &str), Option<Conclusion>> {
        let calls = self.call_results();
        let of_jobs = self.jobs.values().map(|job| ((&job.parent_call, job_id(&job.id)), job.conclusion()));
        let of_calls = self
            .calls
            .iter()
            .map(|(key, call)| ((&call.parent_call, job_id(&call.id)), calls.get(key).copied().flatten()));
        let mut results = HashMap::with_capacity(self.jobs.len());
        for (of, one) in of_jobs.chain(of_calls) {
            let known = results.entry(of).or_insert(one);
            *known = known.zip(one).map(|(known, one)| worse(one, known));
        }
        results
    }
}

impl Job {
    /// How it ended, a tolerated failure as success; `None` while it has not.
    pub fn conclusion(&self) -> Option<Conclusion> {
        match self.phase {
            JobPhase::Done { conclusion: Conclusion::Failure, .. } if self.tolerated => Some(Conclusion::Success),
            JobPhase::Done { conclusion, .. } => Some(conclusion),
            _ => None,
        }
    }

    /// What is kept of the accepted report, where a worker sent one.
    pub fn outcome(&self) -> Option<&JobOutcome> {
        match &self.phase {
            JobPhase::Done { outcome, .. } => outcome.as_deref(),
            _ => None,
        }
    }

    /// An entry that waits for its needs.
    pub fn blocked(id: String, parent_call: &JobKey, name: String) -> Self {
        Self {
            id,
            parent_call: parent_call.clone(),
            cell: MatrixCell { total: 1, ..MatrixCell::default() },
            name,
            labels: Vec::new(),
            timeout_ms: 0,
            tolerated: false,
            fail_fast: true,
            max_parallel: None,
            reused: None,
            claim: None,
            environment: None,
            gate: None,
            phase: JobPhase::Blocked,
            attempts: Vec::new(),
        }
    }

    /// Number of the attempt that would begin next.
    pub(super) fn next_attempt(&self) -> u32 {
        self.attempts.last().map_or(1, |last| last.number.saturating_add(1))
    }
}

/// The result that counts of two cells: one failure fails the job, one success keeps it from being skipped.
pub(super) fn worse(a: Conclusion, b: Conclusion) -> Conclusion {
    let rank = |c| match c {
        Conclusion::Failure => 3,
        Conclusion::Cancelled => 2,
        Conclusion::Success => 1,
        Conclusion::Skipped => 0,
    };
    if rank(a) >= rank(b) { a } else { b }
}

/// How a job ends for a reason that comes from us, not from its worker.
pub(super) fn conclusion_of(reason: &Reason) -> Conclusion {
    match reason {
        Reason::Cancelled(_) => Conclusion::Cancelled,
        _ => Conclusion::Failure,
    }
}

/// Bytes of outputs, names and values.
pub(super) fn size(outputs: &IndexMap<String, String>) -> usize {
    outputs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// Exit code of a failed job: the failed step's, 124 after a timeout, 125 where nothing was started.
fn exit_code(job: &Job) -> i32 {
    let JobPhase::Done { reason, outcome, .. } = &job.phase else { return 1 };
    match reason {
        Some(Reason::Timeout) => 124,
        Some(Reason::StartFailed(_) | Reason::PullFailed(_) | Reason::NoWorker(_) | Reason::Invalid(_)) => 125,
        _ => outcome.as_ref().map(|outcome| outcome.exit_code).filter(|&code| code != 0).unwrap_or(1),
    }
}

/// The first step that failed, its name no longer than a line.
fn failed_step(report: &JobReport) -> Option<String> {
    let failed = report.steps.iter().find(|step| step.conclusion == Conclusion::Failure)?;
    Some(failed.name.chars().take(STEP_NAME).collect())
}

impl Transition {
    /// Returns what the run keeps of a report: outputs only where another job may read them. With it comes why the job
    /// fails, where the run's outputs would be larger than [`MAX_OUTPUTS`].
    pub(super) fn outcome_of(&self, key: &JobKey, attempt: u32, report: &JobReport) -> (JobOutcome, Option<Reason>) {
        let mut outcome = JobOutcome {
            attempt,
            exit_code: report.exit_code,
            outputs: IndexMap::new(),
            started_at: report.started_at_ms,
            finished_at: report.finished_at_ms,
            failed_step: failed_step(report),
        };
        if !self.state.outputs_are_read(key) {
            return (outcome, None);
        }
        if size(&report.outputs) > MAX_JOB_OUTPUTS {
            let why = format!("its worker reported outputs of more than {} MiB", MAX_JOB_OUTPUTS >> 20);
            return (outcome, Some(Reason::Invalid(why)));
        }
        let kept = self.state.jobs.values().filter_map(|job| job.outcome()).map(|outcome| size(&outcome.outputs));
        if kept.sum::<usize>() + size(&report.outputs) <= MAX_OUTPUTS {
            outcome.outputs.clone_from(&report.outputs);
            return (outcome, None);
        }
        let why = format!(
            "its outputs and those of the run's other jobs are larger than {} MiB together: hand large values on as \
             artifacts",
            MAX_OUTPUTS >> 20
        );
        (outcome, Some(Reason::Invalid(why)))
    }

    /// Ends a job for good, and with it the other cells where `fail-fast` says so.
    pub(super) fn conclude(
        &mut self,
        key: &JobKey,
        conclusion: Conclusion,
        reason: Option<Reason>,
        outcome: Option<Box<JobOutcome>>,
    ) {
        let Some(job) = self.job_mut(key) else { return };
        job.phase = JobPhase::Done { conclusion, reason, outcome };
        if conclusion != Conclusion::Failure || job.tolerated || !job.fail_fast || job.cell.total < 2 {
            return;
        }
        let (parent_call, id, name) = (job.parent_call.clone(), job_id(&job.id).to_owned(), job.name.clone());
        let others: Vec<JobKey> = self
            .state
            .jobs_of(&parent_call, &id)
            .filter(|(other, _)| *other != key)
            .map(|(other, _)| other.clone())
            .collect();
        for other in others {
            self.stop(&other, Reason::Cancelled(format!("\"{name}\" failed, and its matrix fails fast")));
        }
    }

    /// Sees to it that a job ends: at once where no worker has it. What has not begun to wait for its needs is left to
    /// its own condition.
    pub(super) fn stop(&mut self, key: &JobKey, reason: Reason) {
        let now = self.now;
        let ends = |job: &Arc<Job>| {
            !matches!(job.phase, JobPhase::Blocked | JobPhase::Cancelling { .. } | JobPhase::Done { .. })
        };
        // What stays as it is must stay shared.
        let Some(job) = self.state.jobs.get_mut(key).filter(|job| ends(job)).map(Arc::make_mut) else { return };
        match &job.phase {
            JobPhase::Blocked | JobPhase::Cancelling { .. } | JobPhase::Done { .. } => {}
            JobPhase::Running { .. } => {
                if let Some(last) = job.attempts.last() {
                    self.effects.push(RunEffect::Stop {
                        job: key.clone(),
                        attempt: last.number,
                        worker: last.worker.clone(),
                        reason: reason.to_string(),
                    });
                }
                job.phase = JobPhase::Cancelling { since: now, reason };
            }
            JobPhase::Queued { .. } => {
                self.effects.push(RunEffect::Unqueue { job: key.clone(), attempt: job.next_attempt() });
                job.phase = JobPhase::Done { conclusion: Conclusion::Cancelled, reason: Some(reason), outcome: None };
            }
            JobPhase::Held | JobPhase::Waiting { .. } => {
                job.phase = JobPhase::Done { conclusion: Conclusion::Cancelled, reason: Some(reason), outcome: None };
            }
        }
    }

    /// The run can't be planned: its author reads why in its log.
    pub(super) fn refuse(&mut self, message: String) {
        let summary = message.lines().next().unwrap_or_default().to_owned();
        self.state.message = Some(message);
        self.finalize(Conclusion::Failure, Some(Reason::Invalid(summary)), 125);
    }

    /// Nothing runs any more: the log is closed, and the end is final.
    pub(super) fn finalize(&mut self, conclusion: Conclusion, reason: Option<Reason>, exit_code: i32) {
        self.state.phase = RunPhase::Finalizing { end: RunEnd { conclusion, reason, exit_code, at: self.now } };
        self.effects.push(RunEffect::FinalizeLog);
    }

    /// Ends the run where all its jobs have.
    pub(super) fn end_if_done(&mut self) {
        let jobs = &self.state.jobs;
        if !jobs.values().all(|job| matches!(job.phase, JobPhase::Done { .. })) {
            return;
        }
        if self.state.expired_at.is_some() {
            return self.finalize(Conclusion::Failure, Some(Reason::Timeout), 124);
        }
        let ended = |wanted| jobs.values().find(|job| job.conclusion() == Some(wanted));
        let reason = |job: &Job| match &job.phase {
            JobPhase::Done { reason, .. } => reason.clone(),
            _ => None,
        };
        let cancelled = ended(Conclusion::Cancelled);
        if let (Some(cancel), Some(_)) = (&self.state.cancelled, cancelled) {
            let reason = Reason::Cancelled(format!("cancelled by {}", cancel.by));
            return self.finalize(Conclusion::Cancelled, Some(reason), 130);
        }
        if let Some(job) = ended(Conclusion::Failure) {
            let (reason, code) = (reason(job), exit_code(job));
            return self.finalize(Conclusion::Failure, reason, code);
        }
        if let Some(job) = cancelled {
            let reason = reason(job);
            let code = if reason == Some(Reason::Timeout) { 124 } else { 130 };
            return self.finalize(Conclusion::Cancelled, reason, code);
        }
        let skipped = jobs.values().all(|job| job.conclusion() == Some(Conclusion::Skipped));
        self.finalize(if skipped { Conclusion::Skipped } else { Conclusion::Success }, None, 0);
    }
}
