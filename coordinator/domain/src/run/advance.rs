//! What each event changes.

use indexmap::IndexMap;
use workflow::plan::{Conclusion, JobReport, Reason};

use super::{
    AttemptRecord, Cancel, Effect, Event, JobPhase, Millis, Phase, Planned, Protection, Request, Rerun, Rules,
    SealedLog, State, Update, Visibility,
};

/// Attempts of one job before its start is given up (a start, a pull or a worker failed).
const ATTEMPTS: usize = 3;

/// What a new run is made of.
#[derive(Debug, Clone)]
pub struct New {
    /// UUID v7.
    pub id: String,
    /// `github.run_id`.
    pub serial: u64,
    /// `github.run_number`; a rerun keeps that of the earlier run.
    pub number: u64,
    /// The run this one repeats.
    pub rerun: Option<Rerun>,
    /// What asked for it.
    pub request: Request,
    /// Names of the secrets that came with it.
    pub secrets: Vec<String>,
    /// The operator's rules.
    pub rules: Rules,
    /// Environments of its repository that the operator protects.
    pub environments: Vec<Protection>,
    /// Who may read it.
    pub visibility: Visibility,
    /// When its data may be removed.
    pub expires_at: Millis,
}

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is about an attempt or a phase that is not current.
    #[error("not current")]
    Stale,
    /// It was taken before.
    #[error("known already")]
    Repeated,
    /// The run has ended.
    #[error("the run has ended")]
    Terminal,
}

/// A new run and what is to be done first.
pub fn create(new: New, now: Millis) -> (State, Vec<Effect>) {
    let state = State {
        id: new.id,
        version: 0,
        serial: new.serial,
        number: new.rerun.as_ref().map_or(new.number, |rerun| rerun.number),
        attempt: new.rerun.as_ref().map_or(1, |rerun| rerun.attempt),
        rerun: new.rerun,
        request: new.request,
        planned: None,
        phase: Phase::Planning,
        claim: None,
        jobs: IndexMap::new(),
        calls: IndexMap::new(),
        cancelled: None,
        expired_at: None,
        message: None,
        delayed: None,
        secrets: !new.secrets.is_empty(),
        secret_names: new.secrets,
        rules: new.rules,
        environments: new.environments,
        visibility: new.visibility,
        expires_at: new.expires_at,
        created_at: now,
        started_at: None,
        paused_at: None,
        paused_ms: 0,
        stamped_at: 0,
    };
    let mut turn = Turn { state, now, effects: Vec::new() };
    let stamp = turn.stamp();
    turn.effects.push(Effect::Publish(Update::Queued { stamp }));
    turn.effects.push(Effect::Plan);
    (turn.state, turn.effects)
}

/// The run after an event, and what is to be done about it.
///
/// # Errors
/// [`Refused`] where the event changes nothing: nothing is to be stored or done.
pub fn advance(state: &State, event: Event, now: Millis) -> Result<(State, Vec<Effect>), Refused> {
    let mut turn = Turn { state: state.clone(), now, effects: Vec::new() };
    turn.take(event)?;
    turn.settle();
    turn.leave_groups();
    turn.keep_time();
    turn.state.version += 1;
    Ok((turn.state, turn.effects))
}

/// One change under way.
pub(super) struct Turn {
    pub(super) state: State,
    pub(super) now: Millis,
    pub(super) effects: Vec<Effect>,
}

impl Turn {
    fn take(&mut self, event: Event) -> Result<(), Refused> {
        match event {
            Event::Planned(planned) => self.planned(*planned),
            Event::Unplannable { message } => self.unplannable(message),
            Event::Delayed { reason } => self.delayed(reason),
            Event::Accepted { job, worker } => self.accepted(&job, worker),
            Event::Begun { job, attempt } => self.begun(&job, attempt),
            Event::Finished { job, attempt, report } => self.finished(&job, attempt, report),
            Event::Lost { job, attempt, reason } => self.lost(&job, attempt, reason),
            Event::Waits { job, reason } => self.waits(&job, reason),
            Event::Unmatched { job } => self.unmatched(&job),
            Event::Cancel { by } => self.cancel(&by),
            Event::Granted { job } => self.granted(job.as_deref()),
            Event::HeldBy { job, serial } => self.held_by(job.as_deref(), serial),
            Event::GivesWay { job, to } => self.gives_way(&job, &to),
            Event::Decided { job, verdict, by, comment } => self.decided(&job, verdict, by, comment),
            Event::Due { job } => self.due(&job),
            Event::Expired => self.expire(),
            Event::Sealed { log } => self.sealed(log),
        }
    }

    /// Seconds for the next status event: they grow even where the clock doesn't.
    pub(super) fn stamp(&mut self) -> u64 {
        self.state.stamped_at = (self.now / 1000).max(self.state.stamped_at + 1);
        self.state.stamped_at
    }

    /// Whether nothing more is to be tried: somebody cancelled, or the time is over.
    pub(super) fn halted(&self) -> bool {
        self.state.cancelled.is_some() || self.state.expired_at.is_some()
    }

    pub(super) fn over(&self) -> bool {
        matches!(self.state.phase, Phase::Sealing { .. } | Phase::Done { .. })
    }

    fn planned(&mut self, planned: Planned) -> Result<(), Refused> {
        if !matches!(self.state.phase, Phase::Planning) {
            return Err(if self.over() { Refused::Terminal } else { Refused::Repeated });
        }
        self.lay_out(&planned);
        if let (Visibility::Readers(keys), true) = (&mut self.state.visibility, self.state.rules.maintainers_read) {
            keys.extend(planned.maintainers.iter().cloned());
        }
        self.state.phase = Phase::Active;
        self.claim_for_run(&planned);
        self.state.planned = Some(planned);
        Ok(())
    }

    fn unplannable(&mut self, message: String) -> Result<(), Refused> {
        if !matches!(self.state.phase, Phase::Planning) {
            return Err(if self.over() { Refused::Terminal } else { Refused::Stale });
        }
        self.refuse(message);
        Ok(())
    }

    fn delayed(&mut self, reason: String) -> Result<(), Refused> {
        if !matches!(self.state.phase, Phase::Planning) {
            return Err(if self.over() { Refused::Terminal } else { Refused::Stale });
        }
        if self.state.delayed.as_ref() == Some(&reason) {
            return Err(Refused::Repeated);
        }
        self.state.delayed = Some(reason);
        Ok(())
    }

    fn accepted(&mut self, key: &str, worker: String) -> Result<(), Refused> {
        let now = self.now;
        let job = self.state.jobs.get_mut(key).ok_or(Refused::Stale)?;
        if !matches!(job.phase, JobPhase::Queued { .. }) {
            return Err(Refused::Stale);
        }
        let number = job.next_attempt();
        job.attempts.push(AttemptRecord { number, worker, accepted_at: now, begun_at: None, lost: None });
        job.phase = JobPhase::Running { since: now };
        self.effects.push(Effect::Unqueue { job: key.to_owned(), attempt: number });
        Ok(())
    }

    /// The record of an attempt that is running now.
    fn current(&mut self, key: &str, attempt: u32) -> Result<&mut AttemptRecord, Refused> {
        let job = self.state.jobs.get_mut(key).ok_or(Refused::Stale)?;
        let last = job.attempts.last_mut().filter(|a| a.number == attempt && a.lost.is_none()).ok_or(Refused::Stale)?;
        match job.phase {
            JobPhase::Running { .. } | JobPhase::Cancelling { .. } => Ok(last),
            JobPhase::Done { report: Some(_), .. } => Err(Refused::Repeated),
            _ => Err(Refused::Stale),
        }
    }

    fn begun(&mut self, key: &str, attempt: u32) -> Result<(), Refused> {
        let now = self.now;
        let record = self.current(key, attempt)?;
        if record.begun_at.is_some() {
            return Err(Refused::Repeated);
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
        self.effects.push(Effect::Publish(Update::Running { stamp }));
        if let Some(at) = self.state.deadline(self.now) {
            self.effects.push(Effect::Timer { at });
        }
    }

    fn finished(&mut self, key: &str, attempt: u32, report: Box<JobReport>) -> Result<(), Refused> {
        let now = self.now;
        let record = self.current(key, attempt)?;
        if report.started {
            record.begun_at.get_or_insert(now);
            self.started();
        }
        if let Some(reason) = report.reason.clone().filter(|reason| self.tries_again(key, reason)) {
            self.again(key, reason);
            return Ok(());
        }
        let ended_by_us = match self.state.jobs.get(key).map(|job| &job.phase) {
            Some(JobPhase::Cancelling { reason, .. }) if report.conclusion != Conclusion::Success => {
                Some(reason.clone())
            }
            _ => None,
        };
        match ended_by_us {
            Some(reason) => self.conclude(key, super::ending::conclusion_of(&reason), Some(reason), Some(report)),
            None => self.conclude(key, report.conclusion, report.reason.clone(), Some(report)),
        }
        Ok(())
    }

    fn lost(&mut self, key: &str, attempt: u32, text: String) -> Result<(), Refused> {
        self.current(key, attempt)?;
        let reason = Reason::WorkerLost(text);
        if self.tries_again(key, &reason) {
            self.again(key, reason);
            return Ok(());
        }
        let job = self.state.jobs.get_mut(key).ok_or(Refused::Stale)?;
        if let Some(last) = job.attempts.last_mut() {
            last.lost = Some(reason.clone());
        }
        let reason = match &job.phase {
            JobPhase::Cancelling { reason, .. } => reason.clone(),
            _ => reason,
        };
        self.conclude(key, super::ending::conclusion_of(&reason), Some(reason), None);
        Ok(())
    }

    /// Whether a job is handed out again after its current attempt ended for this reason.
    fn tries_again(&self, key: &str, reason: &Reason) -> bool {
        let Some(job) = self.state.jobs.get(key) else { return false };
        if self.halted() || !matches!(job.phase, JobPhase::Running { .. }) || job.attempts.len() >= ATTEMPTS {
            return false;
        }
        let started = job.attempts.last().is_some_and(|a| a.begun_at.is_some());
        match reason {
            Reason::StartFailed(_) => !started,
            Reason::PullFailed(_) => !started && !self.state.rules.one_worker,
            Reason::WorkerLost(_) | Reason::SandboxLost(_) => !started || self.state.repeatable(),
            _ => false,
        }
    }

    fn again(&mut self, key: &str, reason: Reason) {
        let waits = format!("attempt lost ({}), trying again", super::ending::sentence(&reason));
        if let Some(last) = self.state.jobs.get_mut(key).and_then(|job| job.attempts.last_mut()) {
            last.lost = Some(reason);
        }
        self.queue(key, waits);
    }

    fn waits(&mut self, key: &str, text: String) -> Result<(), Refused> {
        match self.state.jobs.get_mut(key).map(|job| &mut job.phase) {
            Some(JobPhase::Queued { reason, .. }) if *reason != text => {
                *reason = text;
                Ok(())
            }
            Some(JobPhase::Queued { .. }) => Err(Refused::Repeated),
            _ => Err(Refused::Stale),
        }
    }

    fn unmatched(&mut self, key: &str) -> Result<(), Refused> {
        let job = self.state.jobs.get(key).ok_or(Refused::Stale)?;
        if !matches!(job.phase, JobPhase::Queued { .. }) {
            return Err(Refused::Stale);
        }
        let text = format!("no worker of this pool has the labels {}", job.labels.join(", "));
        self.effects.push(Effect::Unqueue { job: key.to_owned(), attempt: job.next_attempt() });
        self.conclude(key, Conclusion::Failure, Some(Reason::NoWorker(text)), None);
        Ok(())
    }

    fn cancel(&mut self, by: &str) -> Result<(), Refused> {
        if self.over() {
            return Err(Refused::Terminal);
        }
        if self.state.cancelled.is_some() {
            return Err(Refused::Repeated);
        }
        self.state.cancelled = Some(Cancel { by: by.to_owned(), at: self.now });
        let reason = Reason::Cancelled(format!("cancelled by {by}"));
        if matches!(self.state.phase, Phase::Planning | Phase::Waiting { .. }) {
            self.seal(Conclusion::Cancelled, Some(reason), 130);
            return Ok(());
        }
        // GitHub docs, "Workflow cancellation reference": the condition of every job is evaluated once more, and a job
        // whose condition still holds (`always()`, `cancelled()`) goes on.
        let keys: Vec<String> = self.state.jobs.keys().cloned().collect();
        // Taken out for the loop: the plan is large and only read.
        let planned = self.state.planned.take();
        for key in keys {
            if !planned.as_ref().is_some_and(|planned| self.wanted_after_cancel(planned, &key)) {
                self.stop(&key, reason.clone());
            }
        }
        self.state.planned = planned;
        Ok(())
    }

    fn expire(&mut self) -> Result<(), Refused> {
        if self.over() {
            return Err(Refused::Terminal);
        }
        if self.state.expired_at.is_some() {
            return Err(Refused::Repeated);
        }
        let due = self.state.deadline(self.now);
        if due.is_none_or(|due| self.now < due) {
            return Err(Refused::Stale);
        }
        self.state.expired_at = Some(self.now);
        let keys: Vec<String> = self.state.jobs.keys().cloned().collect();
        for key in keys {
            self.stop(&key, Reason::Timeout);
        }
        Ok(())
    }

    fn sealed(&mut self, log: SealedLog) -> Result<(), Refused> {
        let end = match &self.state.phase {
            Phase::Sealing { end } => end.clone(),
            Phase::Done { .. } => return Err(Refused::Repeated),
            _ => return Err(Refused::Stale),
        };
        let duration_s = self.state.started_at.map_or(0, |at| end.at.saturating_sub(at) / 1000);
        let stamp = self.stamp();
        let supplied = self.state.planned.as_ref().map(|planned| planned.supplied.clone()).unwrap_or_default();
        let (ended, sealed) = (end.clone(), log.clone());
        self.effects.push(Effect::Publish(Update::Finished { stamp, end: ended, log: sealed, duration_s, supplied }));
        self.effects.push(Effect::EraseSecrets);
        self.state.phase = Phase::Done { end, log };
        Ok(())
    }
}
