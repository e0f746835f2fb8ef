//! Environments that people or a clock hold a job back for, and runs that a maintainer has to approve: who may let them
//! start, what they said, how long they wait.
//!
//! A job is held back once nothing else keeps it from starting: it has its concurrency group and its place among the
//! cells of its matrix. No worker hears of it before. A run is held back before anything of it is looked at: it takes no
//! group, and evaluates nothing that its author wrote.

use workflow::{
    git_ref,
    name_pattern::NamePatterns,
    plan::{Conclusion, Reason},
    time::DAY_MS,
};

use crate::id::JobKey;

use super::{
    ApprovalDecision, ApprovalError, ApprovalGate, ApprovalVerdict, Approvers, EnvironmentProtection, JobPhase, Millis,
    Planned, RunEffect, RunPhase, RunRefusal, RunState, Visibility, WaitCondition, transition::Transition,
};

/// How long an approval is waited for (GitHub docs: a job that nobody reviewed fails after 30 days).
const PATIENCE: Millis = 30 * DAY_MS;
/// Approvers named in a sentence.
const NAMED: usize = 3;

/// Why a job waits for people, for people; a run, where no environment is named.
pub fn describe_approval_wait(environment: &str, approvers: &[String]) -> String {
    if environment.is_empty() {
        let by = if approvers.is_empty() { "a maintainer".to_owned() } else { names(approvers) };
        return format!("waits for an approval by {by}: its author is no maintainer of the repository");
    }
    let of = format!("waits for an approval of the environment {environment}");
    if approvers.is_empty() { of } else { format!("{of} by {}", names(approvers)) }
}

fn names(approvers: &[String]) -> String {
    let mut said: Vec<String> = approvers.iter().take(NAMED).map(|key| short(key)).collect();
    match approvers.len().saturating_sub(NAMED) {
        0 => {}
        1 => said.push("one other".into()),
        more => said.push(format!("{more} others")),
    }
    said.join(" or ")
}

/// Who said something, and what.
fn describe_decision(by: &str, comment: &str) -> String {
    if comment.is_empty() { short(by) } else { format!("{}: {comment}", short(by)) }
}

fn short(key: &str) -> String {
    key.chars().take(8).collect()
}

impl EnvironmentProtection {
    fn covers(&self, environment: &str) -> bool {
        NamePatterns::new(&[self.name.to_lowercase()]).matches(&environment.to_lowercase())
    }

    /// Why this commit may not be deployed at all.
    fn forbids(&self, environment: &str, planned: &Planned) -> Option<String> {
        if self.branches.is_empty() {
            return None;
        }
        let allowed = self.branches.join(", ");
        // A ref counts only where the maintainers stand for its commit: anybody can claim a branch.
        if !planned.proven {
            return Some(format!(
                "the environment {environment} takes commits of {allowed} only, and this commit is not in the \
                 maintainers' state"
            ));
        }
        let reference = &planned.reference;
        let is_allowed = git_ref::is_branch_or_tag(reference)
            && NamePatterns::new(&self.branches).matches(git_ref::short_name(reference));
        (!is_allowed).then(|| format!("the environment {environment} takes {allowed} only, this is {reference}"))
    }
}

impl RunState {
    /// Keys of the jobs that somebody may decide about: all that wait, or those of one job or environment. The empty key
    /// stands for the run itself.
    ///
    /// # Errors
    /// [`ApprovalError`], for people.
    pub fn decidable(
        &self,
        by: &str,
        job: Option<&str>,
        environment: Option<&str>,
    ) -> Result<Vec<JobKey>, ApprovalError> {
        if let RunPhase::Waiting { on: WaitCondition::Approval { approvers, .. } } = &self.phase
            && job.is_none_or(str::is_empty)
            && environment.is_none_or(str::is_empty)
        {
            return match approvers.iter().any(|key| key == by) {
                true => Ok(vec![JobKey::default()]),
                false => Err(ApprovalError::NotAsked(names(approvers), "this run".into())),
            };
        }
        let mut waiting = Vec::new();
        for (key, found) in &self.jobs {
            let JobPhase::Waiting { on: WaitCondition::Approval { environment: name, approvers }, .. } = &found.phase
            else {
                continue;
            };
            let is_meant = job.is_none_or(|job| key == job || job == found.id)
                && environment.is_none_or(|wanted| wanted.eq_ignore_ascii_case(name));
            if is_meant {
                waiting.push((key, name, approvers));
            }
        }
        let Some((_, name, approvers)) = waiting.first() else {
            let of = environment.map(|name| format!(" of the environment {name}"));
            let of = of.or_else(|| job.map(|job| format!(": {job}"))).unwrap_or_default();
            return Err(ApprovalError::NothingWaits(of));
        };
        let others = || ApprovalError::NotAsked(names(approvers), format!("the environment {name}"));
        let own = waiting.iter().filter(|(_, _, approvers)| approvers.iter().any(|key| key == by));
        let keys: Vec<JobKey> = own.map(|(key, ..)| (*key).clone()).collect();
        if keys.is_empty() { Err(others()) } else { Ok(keys) }
    }

    /// Whether nothing of it begins before somebody approves it.
    pub fn is_held(&self) -> bool {
        self.waits_for_approval().is_some()
    }

    /// Why it is held, for people; `None`: it is not.
    pub fn waits_for_approval(&self) -> Option<String> {
        match &self.phase {
            RunPhase::Waiting { on: WaitCondition::Approval { environment, approvers } } => {
                Some(describe_approval_wait(environment, approvers))
            }
            _ => None,
        }
    }

    /// What the run waits for where nothing of it goes on before somebody decides, or a moment comes.
    pub fn held_back(&self) -> Option<&WaitCondition> {
        if !matches!(self.phase, RunPhase::Active) {
            return None;
        }
        let mut held = None;
        for job in self.jobs.values() {
            match &job.phase {
                JobPhase::Queued { .. } | JobPhase::Running { .. } | JobPhase::Cancelling { .. } => return None,
                JobPhase::Waiting {
                    on: on @ (WaitCondition::Approval { .. } | WaitCondition::Timer { .. }), ..
                } => {
                    held = held.or(Some(on));
                }
                _ => {}
            }
        }
        held
    }

    /// When the run's time is over, where it has a limit and has begun. Waiting for people takes nothing of it.
    pub fn deadline(&self, now: Millis) -> Option<Millis> {
        let limit = Some(self.rules.max_duration_ms).filter(|limit| *limit > 0)?;
        let waits = self.paused_at.map_or(0, |since| now.saturating_sub(since));
        Some(self.started_at?.saturating_add(limit).saturating_add(self.paused_ms).saturating_add(waits))
    }
}

impl Transition {
    /// A run that a maintainer has to approve before anything of it begins.
    pub(super) fn hold(&mut self, planned: &Planned) {
        let approvers = planned.maintainers.clone();
        self.show_to(&approvers);
        let now = self.now;
        let reason = describe_approval_wait("", &approvers);
        self.state.gate = Some(ApprovalGate { approvers: approvers.clone(), until: now, decision: None });
        self.state.phase = RunPhase::Waiting { on: WaitCondition::Approval { environment: String::new(), approvers } };
        self.effects.push(RunEffect::Wake { job: JobKey::default(), at: now.saturating_add(PATIENCE) });
        self.publish_wait(reason);
    }

    /// Who is asked must be able to see for what.
    fn show_to(&mut self, approvers: &[String]) {
        if let Visibility::Readers(readers) = &mut self.state.visibility {
            let unseen: Vec<String> = approvers.iter().filter(|key| !readers.contains(key)).cloned().collect();
            readers.extend(unseen);
        }
    }

    /// A job that nothing else keeps from starting: it waits for what its environment asks for, or is offered to
    /// workers.
    pub(super) fn pass_gate(&mut self, planned: &Planned, key: &JobKey) {
        let named = self.state.jobs.get(key).and_then(|job| job.environment.clone());
        if let Some(reason) = named.as_deref().and_then(|name| planned.refuses_environment(name)) {
            return self.conclude(key, Conclusion::Failure, Some(reason), None);
        }
        let found = named.and_then(|name| {
            let protection = self.state.environments.iter().find(|one| one.covers(&name))?;
            Some((protection.clone(), name))
        });
        let Some((protection, environment)) = found else { return self.queue(key, String::new()) };
        if let Some(why) = protection.forbids(&environment, planned) {
            return self.conclude(key, Conclusion::Failure, Some(Reason::Invalid(why)), None);
        }
        let approvers = match &protection.approvers {
            Approvers::Maintainers => planned.maintainers.clone(),
            Approvers::Keys(keys) => keys.clone(),
            Approvers::Nobody => Vec::new(),
        };
        self.show_to(&approvers);
        let now = self.now;
        let until = now.saturating_add(protection.wait_ms);
        let Some(job) = self.job_mut(key) else { return };
        job.gate = Some(ApprovalGate { approvers: approvers.clone(), until, decision: None });
        if protection.approvers == Approvers::Nobody {
            return self.wait_until(key, &environment, until);
        }
        let reason = describe_approval_wait(&environment, &approvers);
        job.phase = JobPhase::Waiting { since: now, on: WaitCondition::Approval { environment, approvers } };
        self.effects.push(RunEffect::Wake { job: key.clone(), at: now.saturating_add(PATIENCE) });
        self.publish_wait(reason);
    }

    /// Lets a job start once a moment has come.
    fn wait_until(&mut self, key: &JobKey, environment: &str, until: Millis) {
        let now = self.now;
        if until <= now {
            return self.queue(key, String::new());
        }
        let Some(job) = self.job_mut(key) else { return };
        job.phase = JobPhase::Waiting { since: now, on: WaitCondition::Timer { until } };
        self.effects.push(RunEffect::Wake { job: key.clone(), at: until });
        let minutes = (until - now).div_ceil(60_000);
        self.publish_wait(format!("waits {minutes} min, as the environment {environment} asks"));
    }

    pub(super) fn decided(
        &mut self,
        key: &JobKey,
        verdict: ApprovalVerdict,
        by: String,
        comment: String,
    ) -> Result<(), RunRefusal> {
        if self.over() {
            return Err(RunRefusal::Terminal);
        }
        if key.is_empty() {
            return self.decided_run(verdict, by, comment);
        }
        let now = self.now;
        let job = self.job_mut(key).ok_or(RunRefusal::Stale)?;
        let gate = job.gate.as_mut().ok_or(RunRefusal::Stale)?;
        if gate.decision.is_some() {
            return Err(RunRefusal::Repeated);
        }
        let JobPhase::Waiting { on: WaitCondition::Approval { environment, approvers }, .. } = &job.phase else {
            return Err(RunRefusal::Stale);
        };
        if !approvers.contains(&by) {
            return Err(RunRefusal::Stale);
        }
        let (environment, until) = (environment.clone(), gate.until);
        let why = format!("the environment {environment} was refused to it by {}", describe_decision(&by, &comment));
        gate.decision = Some(ApprovalDecision { verdict, by, comment, at: now });
        match verdict {
            ApprovalVerdict::Approved => self.wait_until(key, &environment, until),
            ApprovalVerdict::Rejected => self.conclude(key, Conclusion::Failure, Some(Reason::Invalid(why)), None),
        }
        Ok(())
    }

    fn decided_run(&mut self, verdict: ApprovalVerdict, by: String, comment: String) -> Result<(), RunRefusal> {
        let now = self.now;
        let gate = self.state.gate.as_mut().ok_or(RunRefusal::Stale)?;
        if gate.decision.is_some() {
            return Err(RunRefusal::Repeated);
        }
        if !gate.approvers.contains(&by) {
            return Err(RunRefusal::Stale);
        }
        let why = format!("the run was refused by {}", describe_decision(&by, &comment));
        gate.decision = Some(ApprovalDecision { verdict, by, comment, at: now });
        match (verdict, self.state.planned.clone()) {
            (ApprovalVerdict::Approved, Some(planned)) => {
                self.state.phase = RunPhase::Active;
                self.claim_for_run(&planned);
            }
            _ => self.refuse(why),
        }
        Ok(())
    }

    pub(super) fn due(&mut self, key: &JobKey) -> Result<(), RunRefusal> {
        if self.over() {
            return Err(RunRefusal::Terminal);
        }
        let now = self.now;
        if key.is_empty() {
            let undecided = self.state.gate.as_ref().filter(|gate| gate.decision.is_none());
            let gate = undecided.filter(|gate| now >= gate.until.saturating_add(PATIENCE)).ok_or(RunRefusal::Stale)?;
            let why = format!("{}: nobody decided within 30 days", describe_approval_wait("", &gate.approvers));
            self.refuse(why);
            return Ok(());
        }
        match self.state.jobs.get(key).map(|job| &job.phase) {
            Some(JobPhase::Waiting { since, on: WaitCondition::Approval { environment, approvers } })
                if now >= since.saturating_add(PATIENCE) =>
            {
                let why = format!("{}: nobody decided within 30 days", describe_approval_wait(environment, approvers));
                self.conclude(key, Conclusion::Failure, Some(Reason::Invalid(why)), None);
            }
            Some(JobPhase::Waiting { on: WaitCondition::Timer { until }, .. }) if now >= *until => {
                self.queue(key, String::new());
            }
            _ => return Err(RunRefusal::Stale),
        }
        Ok(())
    }

    /// Stops the run's clock while all that is left of it waits for people, and sets it going again.
    pub(super) fn keep_time(&mut self) {
        let now = self.now;
        // Before the first job begins there is no clock to stop.
        let pauses = self.state.started_at.is_some() && self.state.held_back().is_some();
        match (pauses, self.state.paused_at) {
            (true, None) => self.state.paused_at = Some(now),
            (false, Some(since)) => {
                let waited = now.saturating_sub(since);
                self.state.paused_at = None;
                self.state.paused_ms = self.state.paused_ms.saturating_add(waited);
                if let Some(at) = self.state.deadline(now).filter(|_| waited > 0 && !self.over()) {
                    self.effects.push(RunEffect::Timer { at });
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
