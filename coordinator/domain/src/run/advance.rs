//! What each event changes.

use std::sync::Arc;

use workflow::plan::{Conclusion, JobReport, Reason};

use crate::id::JobKey;

use super::{
    AttemptRecord, Cancellation, FinalizedLog, JobPhase, Millis, Planned, RunEffect, RunEvent, RunPhase, RunRefusal,
    RunState, RunUpdate, Visibility, ending::conclusion_of, report_size, transition::Transition,
};

/// The run after an event, and what is to be done about it.
///
/// # Errors
/// [`RunRefusal`] where the event changes nothing: nothing is to be stored or done.
pub fn advance(state: &RunState, event: RunEvent, now: Millis) -> Result<(RunState, Vec<RunEffect>), RunRefusal> {
    workflow::dialect::within_budget(|| advance_within(state, event, now))
}

fn advance_within(state: &RunState, event: RunEvent, now: Millis) -> Result<(RunState, Vec<RunEffect>), RunRefusal> {
    let mut transition = Transition { state: state.clone(), now, effects: Vec::new() };
    transition.take(event)?;
    transition.advance_ready();
    transition.leave_groups();
    transition.keep_time();
    transition.state.version += 1;
    Ok((transition.state, transition.effects))
}

impl Transition {
    fn take(&mut self, event: RunEvent) -> Result<(), RunRefusal> {
        match event {
            RunEvent::Planned(planned) => self.planned(*planned),
            RunEvent::Unplannable { message } => self.unplannable(message),
            RunEvent::Delayed { reason } => self.delayed(reason),
            RunEvent::Accepted { job, worker } => self.accepted(&job, worker),
            RunEvent::Begun { job, attempt } => self.begun(&job, attempt),
            RunEvent::Finished { job, attempt, report } => self.finished(&job, attempt, report),
            RunEvent::Lost { job, attempt, reason } => self.lost(&job, attempt, reason),
            RunEvent::Unmatched { job } => self.unmatched(&job),
            RunEvent::Cancel { by } => self.cancel(&by),
            RunEvent::Granted { job } => self.granted(job.as_ref()),
            RunEvent::HeldBy { job, serial } => self.held_by(job.as_ref(), serial),
            RunEvent::Preempted { job, to } => self.preempted(&job, &to),
            RunEvent::Decided { job, verdict, by, comment } => self.decided(&job, verdict, by, comment),
            RunEvent::Due { job } => self.due(&job),
            RunEvent::Expired => self.expire(),
            RunEvent::LogFinalized { log } => self.log_finalized(log),
        }
    }

    fn planned(&mut self, planned: Planned) -> Result<(), RunRefusal> {
        if !matches!(self.state.phase, RunPhase::Planning) {
            return Err(if self.over() { RunRefusal::Terminal } else { RunRefusal::Repeated });
        }
        self.expand_matrix(&planned);
        if let (Visibility::Readers(keys), true) = (&mut self.state.visibility, self.state.rules.maintainers_read) {
            keys.extend(planned.maintainers.iter().cloned());
        }
        self.state.phase = RunPhase::Active;
        match planned.held {
            true => self.hold(&planned),
            false => self.claim_for_run(&planned),
        }
        self.state.planned = Some(Arc::new(planned));
        Ok(())
    }

    fn unplannable(&mut self, message: String) -> Result<(), RunRefusal> {
        if !matches!(self.state.phase, RunPhase::Planning) {
            return Err(if self.over() { RunRefusal::Terminal } else { RunRefusal::Stale });
        }
        self.refuse(message);
        Ok(())
    }

    fn delayed(&mut self, reason: String) -> Result<(), RunRefusal> {
        if !matches!(self.state.phase, RunPhase::Planning) {
            return Err(if self.over() { RunRefusal::Terminal } else { RunRefusal::Stale });
        }
        if self.state.delayed.as_ref() == Some(&reason) {
            return Err(RunRefusal::Repeated);
        }
        self.state.delayed = Some(reason);
        Ok(())
    }

    fn accepted(&mut self, key: &JobKey, worker: String) -> Result<(), RunRefusal> {
        let now = self.now;
        let job = self.job_mut(key).ok_or(RunRefusal::Stale)?;
        if !matches!(job.phase, JobPhase::Queued { .. }) {
            return Err(RunRefusal::Stale);
        }
        let number = job.next_attempt();
        let record = AttemptRecord { number, worker: worker.clone(), accepted_at: now, begun_at: None, lost: None };
        job.attempts.push(record);
        job.phase = JobPhase::Running { since: now };
        self.effects.push(RunEffect::Unqueue { job: key.clone(), attempt: number });
        self.effects.push(RunEffect::Lease { job: key.clone(), attempt: number, worker });
        Ok(())
    }

    /// The record of an attempt that is running now.
    fn current(&mut self, key: &JobKey, attempt: u32) -> Result<&mut AttemptRecord, RunRefusal> {
        let job = self.job_mut(key).ok_or(RunRefusal::Stale)?;
        #[cfg(any(test, feature = "testing"))]
        if !super::testing::is_fenced() {
            return job.attempts.iter_mut().find(|a| a.number == attempt).ok_or(RunRefusal::Stale);
        }
        let last =
            job.attempts.last_mut().filter(|a| a.number == attempt && a.lost.is_none()).ok_or(RunRefusal::Stale)?;
        match job.phase {
            JobPhase::Running { .. } | JobPhase::Cancelling { .. } => Ok(last),
            JobPhase::Done { outcome: Some(_), .. } => Err(RunRefusal::Repeated),
            _ => Err(RunRefusal::Stale),
        }
    }

    fn begun(&mut self, key: &JobKey, attempt: u32) -> Result<(), RunRefusal> {
        let now = self.now;
        let record = self.current(key, attempt)?;
        if record.begun_at.is_some() {
            return Err(RunRefusal::Repeated);
        }
        record.begun_at = Some(now);
        self.started();
        Ok(())
    }

    /// The run's clock starts, and its author hears so, with the first step of its first job.
    fn started(&mut self) {
        if self.state.started_at.is_some() {
            return;
        }
        self.state.started_at = Some(self.now);
        let stamp = self.stamp();
        self.effects.push(RunEffect::Publish(RunUpdate::Running { stamp }));
        if let Some(at) = self.state.deadline(self.now) {
            self.effects.push(RunEffect::Timer { at });
        }
    }

    fn finished(&mut self, key: &JobKey, attempt: u32, mut report: Box<JobReport>) -> Result<(), RunRefusal> {
        let now = self.now;
        let record = self.current(key, attempt)?;
        if report.started {
            record.begun_at.get_or_insert(now);
            self.started();
        }
        self.effects.push(RunEffect::EndLease { job: key.clone(), attempt });
        if let Some(reason) = report.reason.clone().filter(|reason| self.is_retried(key, reason)) {
            self.retry(key, reason);
            return Ok(());
        }
        let ended_by_us = match self.state.jobs.get(key).map(|job| &job.phase) {
            Some(JobPhase::Cancelling { reason, .. }) if report.conclusion != Conclusion::Success => {
                Some(reason.clone())
            }
            _ => None,
        };
        let (conclusion, reason) = match ended_by_us {
            Some(reason) => (conclusion_of(&reason), Some(reason)),
            None => (report.conclusion, report.reason.clone()),
        };
        let (outcome, too_large) = self.outcome_of(key, attempt, &report);
        let (conclusion, reason) = match too_large {
            Some(why) => {
                // It is the run that has too much: a job that may fail does not save it.
                if let Some(job) = self.job_mut(key) {
                    job.tolerated = false;
                }
                (Conclusion::Failure, Some(why))
            }
            None => (conclusion, reason),
        };
        self.conclude(key, conclusion, reason, Some(Box::new(outcome)));
        self.state.report_bytes = report_size::bound(&mut report, self.state.report_bytes);
        self.effects.push(RunEffect::StoreReport { job: key.clone(), attempt, report });
        Ok(())
    }

    fn lost(&mut self, key: &JobKey, attempt: u32, text: String) -> Result<(), RunRefusal> {
        self.current(key, attempt)?;
        self.effects.push(RunEffect::EndLease { job: key.clone(), attempt });
        let reason = Reason::WorkerLost(text);
        if self.is_retried(key, &reason) {
            self.retry(key, reason);
            return Ok(());
        }
        let job = self.job_mut(key).ok_or(RunRefusal::Stale)?;
        if let Some(last) = job.attempts.last_mut() {
            last.lost = Some(reason.clone());
        }
        let reason = match &job.phase {
            JobPhase::Cancelling { reason, .. } => reason.clone(),
            _ => reason,
        };
        self.conclude(key, conclusion_of(&reason), Some(reason), None);
        Ok(())
    }

    fn unmatched(&mut self, key: &JobKey) -> Result<(), RunRefusal> {
        let job = self.state.jobs.get(key).ok_or(RunRefusal::Stale)?;
        if !matches!(job.phase, JobPhase::Queued { .. }) {
            return Err(RunRefusal::Stale);
        }
        let text = format!("no worker of this pool has the labels {}", job.labels.join(", "));
        self.effects.push(RunEffect::Unqueue { job: key.clone(), attempt: job.next_attempt() });
        self.conclude(key, Conclusion::Failure, Some(Reason::NoWorker(text)), None);
        Ok(())
    }

    fn cancel(&mut self, by: &str) -> Result<(), RunRefusal> {
        if self.over() {
            return Err(RunRefusal::Terminal);
        }
        if self.state.cancelled.is_some() {
            return Err(RunRefusal::Repeated);
        }
        self.state.cancelled = Some(Cancellation { by: by.to_owned(), at: self.now });
        let reason = Reason::Cancelled(format!("cancelled by {by}"));
        if matches!(self.state.phase, RunPhase::Planning | RunPhase::Waiting { .. }) {
            self.finalize(Conclusion::Cancelled, Some(reason), 130);
            return Ok(());
        }
        // GitHub docs, "Workflow cancellation reference": the condition of every job is evaluated once more, and a job
        // whose condition still holds (`always()`, `cancelled()`) goes on.
        let keys: Vec<JobKey> = self.state.jobs.keys().cloned().collect();
        let planned = self.state.planned.clone();
        for key in keys {
            if !planned.as_ref().is_some_and(|planned| self.wanted_after_cancel(planned, &key)) {
                self.stop(&key, reason.clone());
            }
        }
        Ok(())
    }

    fn expire(&mut self) -> Result<(), RunRefusal> {
        if self.over() {
            return Err(RunRefusal::Terminal);
        }
        if self.state.expired_at.is_some() {
            return Err(RunRefusal::Repeated);
        }
        let due = self.state.deadline(self.now);
        if due.is_none_or(|due| self.now < due) {
            return Err(RunRefusal::Stale);
        }
        self.state.expired_at = Some(self.now);
        let keys: Vec<JobKey> = self.state.jobs.keys().cloned().collect();
        for key in keys {
            self.stop(&key, Reason::Timeout);
        }
        Ok(())
    }

    fn log_finalized(&mut self, log: FinalizedLog) -> Result<(), RunRefusal> {
        let end = match &self.state.phase {
            RunPhase::Finalizing { end } => end.clone(),
            RunPhase::Done { .. } => return Err(RunRefusal::Repeated),
            _ => return Err(RunRefusal::Stale),
        };
        let duration_s = self.state.started_at.map_or(0, |at| end.at.saturating_sub(at) / 1000);
        let stamp = self.stamp();
        let definitions = self.state.planned.as_ref().map(|planned| planned.definitions.clone()).unwrap_or_default();
        let (ended, sealed) = (end.clone(), log.clone());
        self.effects.push(RunEffect::Publish(RunUpdate::Finished {
            stamp,
            end: ended,
            log: sealed,
            duration_s,
            definitions,
        }));
        self.effects.push(RunEffect::EraseSecrets);
        self.state.phase = RunPhase::Done { end, log };
        Ok(())
    }
}
