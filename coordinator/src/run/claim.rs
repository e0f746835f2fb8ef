//! What a run and its jobs do about concurrency groups: ask, wait, make room, give back.

use workflow::{
    github,
    plan::{Conclusion, Reason},
};

use super::{
    Claim, Effect, JobPhase, Phase, Planned, Refused, Standing, Update, Wait,
    advance::Turn,
    evaluate::{Known, Status},
};

/// Why something waits for a concurrency group, for people.
pub fn held_by(group: &str, holder: Option<u64>) -> String {
    match holder {
        Some(serial) => format!("held by run {serial} of the concurrency group {group}"),
        None => format!("waits for the concurrency group {group}"),
    }
}

impl Turn {
    /// A run whose workflow names a group waits for it before any of its jobs is looked at.
    pub(super) fn claim_for_run(&mut self, planned: &Planned) {
        let Some(concurrency) = &planned.plan.concurrency else { return };
        let status = Status { success: true, failure: false, cancelled: false };
        let known = Known { contexts: self.state.contexts_of_run(planned), status };
        match known.ask(|scope| github::job::concurrency(concurrency, scope)) {
            Ok(ask) => {
                self.state.phase = Phase::Waiting { on: Wait::Concurrency { group: ask.group.clone(), holder: None } };
                self.effects.push(Effect::Join { job: None, ask: ask.clone() });
                self.state.claim = Some(Claim { ask, standing: Standing::Inside });
            }
            Err(why) => self.refuse(format!("concurrency: {why}")),
        }
    }

    /// A job that may start: it asks for its group, or for a worker where it has none.
    pub(super) fn enter(&mut self, key: &str) {
        let now = self.now;
        let runs = self.state.claim.as_ref().map(|claim| claim.ask.group.to_lowercase());
        let Some(job) = self.state.jobs.get_mut(key) else { return };
        let Some(claim) = job.claim.as_mut().filter(|claim| claim.standing == Standing::Outside) else {
            return self.queue(key, String::new());
        };
        let group = claim.ask.group.clone();
        if runs == Some(group.to_lowercase()) {
            let why = format!("cancelled: it waits for the concurrency group {group}, which its own run holds");
            return self.conclude(key, Conclusion::Cancelled, Some(Reason::Cancelled(why)), None);
        }
        claim.standing = Standing::Inside;
        let ask = claim.ask.clone();
        job.phase = JobPhase::Waiting { since: now, on: Wait::Concurrency { group, holder: None } };
        self.effects.push(Effect::Join { job: Some(key.to_owned()), ask });
    }

    pub(super) fn granted(&mut self, job: Option<&str>) -> Result<(), Refused> {
        match (job, self.waits_for_group(job)) {
            (_, None) => return Err(Refused::Stale),
            (None, Some(_)) => self.state.phase = Phase::Active,
            (Some(key), Some(_)) => self.queue(key, String::new()),
        }
        Ok(())
    }

    pub(super) fn held_by(&mut self, job: Option<&str>, serial: u64) -> Result<(), Refused> {
        let Some(Wait::Concurrency { group, holder }) = self.waits_for_group(job) else { return Err(Refused::Stale) };
        let before = holder.replace(serial);
        if before == Some(serial) {
            return Err(Refused::Repeated);
        }
        let reason = held_by(group, Some(serial));
        // Relays hear of the wait once; the pages follow every change of the holder.
        if before.is_none() && self.state.started_at.is_none() {
            let stamp = self.stamp();
            self.effects.push(Effect::Publish(Update::Waiting { stamp, reason }));
        }
        Ok(())
    }

    pub(super) fn gives_way(&mut self, key: &str, to: &str) -> Result<(), Refused> {
        if self.over() {
            return Err(Refused::Terminal);
        }
        match self.state.jobs.get(key).map(|job| &job.phase) {
            Some(JobPhase::Waiting { .. } | JobPhase::Queued { .. } | JobPhase::Running { .. }) => {
                self.stop(key, Reason::Cancelled(format!("cancelled by {to}")));
                Ok(())
            }
            _ => Err(Refused::Stale),
        }
    }

    /// What the run, or a job, waits for, if it is a group.
    fn waits_for_group(&mut self, job: Option<&str>) -> Option<&mut Wait> {
        let on = match job {
            None => match &mut self.state.phase {
                Phase::Waiting { on } => on,
                _ => return None,
            },
            Some(key) => match &mut self.state.jobs.get_mut(key)?.phase {
                JobPhase::Waiting { on, .. } => on,
                _ => return None,
            },
        };
        matches!(on, Wait::Concurrency { .. }).then_some(on)
    }

    /// Gives back the groups of what has ended, however it did.
    pub(super) fn leave_groups(&mut self) {
        let over = matches!(self.state.phase, Phase::Sealing { .. } | Phase::Done { .. });
        let jobs = self
            .state
            .jobs
            .iter_mut()
            .map(|(key, job)| (Some(key), over || matches!(job.phase, JobPhase::Done { .. }), job.claim.as_mut()));
        for (key, ended, claim) in jobs.chain(std::iter::once((None, over, self.state.claim.as_mut()))) {
            if let Some(claim) = claim.filter(|claim| ended && claim.standing == Standing::Inside) {
                claim.standing = Standing::Left;
                self.effects.push(Effect::Leave { job: key.cloned(), group: claim.ask.group.clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests;
