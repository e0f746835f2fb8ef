//! What a run and its jobs do about concurrency groups: ask, wait, make room, give back.

use std::sync::Arc;

use workflow::plan::{Conclusion, Reason};

use crate::id::JobKey;

use super::{
    ClaimState, GroupClaim, Job, JobPhase, Planned, RunEffect, RunPhase, RunRefusal, RunState, RunUpdate,
    WaitCondition, transition::Transition,
};

/// Why something waits for a concurrency group, for people.
pub fn describe_group_wait(group: &str, holder: Option<u64>) -> String {
    match holder {
        Some(serial) => format!("held by run {serial} of the concurrency group {group}"),
        None => format!("waits for the concurrency group {group}"),
    }
}

impl RunState {
    /// Groups that something waits for before this run, or a call of it, gives its own group back. A job with steps
    /// waits for none while it holds one.
    pub fn waits_below(&self, holder: Option<&JobKey>) -> Vec<String> {
        let is_below = |key: &JobKey| holder.is_none_or(|holder| key.is_within(holder));
        let jobs = self.jobs.iter().filter(|(key, _)| is_below(key));
        jobs.filter_map(|(_, job)| job.waits_for()).map(str::to_owned).collect()
    }

    /// Whether a member of a group, the run or a call, holds it until this job has ended.
    pub fn is_around(&self, holder: Option<&JobKey>, job: &JobKey) -> bool {
        holder.is_none_or(|holder| job.is_within(holder))
    }
}

impl Job {
    /// The concurrency group that it waits for now.
    pub fn waits_for(&self) -> Option<&str> {
        match &self.phase {
            JobPhase::Waiting { on: WaitCondition::Concurrency { group, .. }, .. } => Some(group),
            _ => None,
        }
    }
}

impl Transition {
    /// A run whose workflow names a group waits for it before any of its jobs is looked at.
    pub(super) fn claim_for_run(&mut self, planned: &Planned) {
        let Some(run) = self.state.run_context(planned, &JobKey::default()) else { return };
        match run.file.dialect.run_concurrency(&run) {
            Ok(None) => {}
            Ok(Some(ask)) => {
                self.state.phase =
                    RunPhase::Waiting { on: WaitCondition::Concurrency { group: ask.group.clone(), holder: None } };
                self.effects.push(RunEffect::Join { job: None, ask: ask.clone() });
                self.state.claim = Some(GroupClaim { ask, state: ClaimState::Joined });
            }
            Err(why) => self.refuse(format!("concurrency: {why}")),
        }
    }

    /// A job that may start: it asks for its group, or starts where it has none.
    pub(super) fn acquire_group(&mut self, planned: &Planned, key: &JobKey) {
        let now = self.now;
        let around = self.state.groups_around(key);
        let Some(job) = self.job_mut(key) else { return };
        let Some(claim) = job.claim.as_mut().filter(|claim| claim.state == ClaimState::NotRequested) else {
            return self.start(planned, key);
        };
        let group = claim.ask.group.clone();
        if around.contains(&group.to_lowercase()) {
            let why = format!("cancelled: it waits for the concurrency group {group}, which its own run holds");
            return self.conclude(key, Conclusion::Cancelled, Some(Reason::Cancelled(why)), None);
        }
        claim.state = ClaimState::Joined;
        let ask = claim.ask.clone();
        job.phase = JobPhase::Waiting { since: now, on: WaitCondition::Concurrency { group, holder: None } };
        self.effects.push(RunEffect::Join { job: Some(key.clone()), ask });
    }

    pub(super) fn granted(&mut self, job: Option<&JobKey>) -> Result<(), RunRefusal> {
        match (job, self.waits_for_group(job)) {
            (_, None) => return Err(RunRefusal::Stale),
            (None, Some(_)) => self.state.phase = RunPhase::Active,
            (Some(key), Some(_)) => {
                let Some(planned) = self.state.planned.clone() else { return Err(RunRefusal::Stale) };
                match (self.state.calls_workflow(&planned, key), self.job_mut(key)) {
                    // Its workflow is laid out as soon as a slot is free.
                    (true, Some(job)) => job.phase = JobPhase::Held,
                    _ => self.pass_gate(&planned, key),
                }
            }
        }
        Ok(())
    }

    pub(super) fn held_by(&mut self, job: Option<&JobKey>, serial: u64) -> Result<(), RunRefusal> {
        let Some(WaitCondition::Concurrency { group, holder }) = self.waits_for_group(job) else {
            return Err(RunRefusal::Stale);
        };
        let before = holder.replace(serial);
        if before == Some(serial) {
            return Err(RunRefusal::Repeated);
        }
        let reason = describe_group_wait(group, Some(serial));
        // Relays hear of the wait once; the pages follow every change of the holder.
        if before.is_none() {
            self.publish_wait(reason);
        }
        Ok(())
    }

    /// Tells the author why a run that has not begun waits; of one that has, the pages say it.
    pub(super) fn publish_wait(&mut self, reason: String) {
        if self.state.started_at.is_none() {
            let stamp = self.stamp();
            self.effects.push(RunEffect::Publish(RunUpdate::Waiting { stamp, reason }));
        }
    }

    pub(super) fn preempted(&mut self, key: &JobKey, to: &str) -> Result<(), RunRefusal> {
        if self.over() {
            return Err(RunRefusal::Terminal);
        }
        match self.state.jobs.get(key).map(|job| &job.phase) {
            Some(JobPhase::Waiting { .. } | JobPhase::Queued { .. } | JobPhase::Running { .. }) => {
                self.stop(key, Reason::Cancelled(format!("cancelled by {to}")));
                Ok(())
            }
            None if self.state.calls.contains_key(key) && self.state.call_result(key).is_none() => {
                let Some(planned) = self.state.planned.clone() else { return Err(RunRefusal::Stale) };
                self.end_call(&planned, key, &Reason::Cancelled(format!("cancelled by {to}")));
                Ok(())
            }
            _ => Err(RunRefusal::Stale),
        }
    }

    /// What the run, or a job, waits for, if it is a group.
    fn waits_for_group(&mut self, job: Option<&JobKey>) -> Option<&mut WaitCondition> {
        let on = match job {
            None => match &mut self.state.phase {
                RunPhase::Waiting { on } => on,
                _ => return None,
            },
            Some(key) => match &mut self.job_mut(key)?.phase {
                JobPhase::Waiting { on, .. } => on,
                _ => return None,
            },
        };
        matches!(on, WaitCondition::Concurrency { .. }).then_some(on)
    }

    /// Gives back the groups of what has ended, however it did.
    pub(super) fn leave_groups(&mut self) {
        let over = self.over();
        let joined = |claim: &Option<GroupClaim>| claim.as_ref().is_some_and(|claim| claim.state == ClaimState::Joined);
        let done = |job: &Job| over || matches!(job.phase, JobPhase::Done { .. });
        let jobs = self.state.jobs.iter().filter(|(_, job)| joined(&job.claim) && done(job));
        let jobs: Vec<JobKey> = jobs.map(|(key, _)| key.clone()).collect();
        let ended = |key: &JobKey| over || self.state.call_result(key).is_some();
        let calls = self.state.calls.iter().filter(|(key, call)| joined(&call.claim) && ended(key));
        let calls: Vec<JobKey> = calls.map(|(key, _)| key.clone()).collect();
        let mut left = Vec::new();
        for key in jobs {
            let claim = self.job_mut(&key).and_then(|job| job.claim.as_mut());
            left.extend(claim.map(|claim| (Some(key), leave(claim))));
        }
        for key in calls {
            let claim = self.state.calls.get_mut(&key).and_then(|call| Arc::make_mut(call).claim.as_mut());
            left.extend(claim.map(|claim| (Some(key), leave(claim))));
        }
        if over && joined(&self.state.claim) {
            left.extend(self.state.claim.as_mut().map(|claim| (None, leave(claim))));
        }
        self.effects.extend(left.into_iter().map(|(job, group)| RunEffect::Leave { job, group }));
    }
}

/// Marks a claim as given back, and returns the group's name.
fn leave(claim: &mut GroupClaim) -> String {
    claim.state = ClaimState::Left;
    claim.ask.group.clone()
}

#[cfg(test)]
mod tests;
