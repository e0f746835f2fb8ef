//! Which jobs start: needs, conditions, matrices, `max-parallel`.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use workflow::{
    dialect::job_instance::JobInstance,
    plan::{Conclusion, Reason},
};

use crate::id::JobKey;

use super::{
    ClaimState, GroupClaim, Job, JobPhase, Planned, RunEffect, RunPhase, RunState, job_context::invalid,
    job_id::job_id, rerun::ReusedEntries, transition::Transition,
};

impl Transition {
    /// Enters the plan's jobs, none of them started.
    pub(super) fn expand_matrix(&mut self, planned: &Planned) {
        for (id, job) in &planned.plan.jobs {
            let ReusedEntries { jobs, calls } = self.reused_entries(id);
            if !jobs.is_empty() {
                self.state.jobs.extend(jobs.into_iter().map(|(key, job)| (key, Arc::new(job))));
                self.state.calls.extend(calls.into_iter().map(|(key, call)| (key, Arc::new(call))));
                continue;
            }
            let name = job.name.clone().unwrap_or_else(|| id.clone());
            let job = Job::blocked(id.clone(), &JobKey::default(), name);
            self.state.jobs.insert(id.as_str().into(), Arc::new(job));
        }
    }

    /// Carries every job as far as it goes without news from outside, and ends the run where all have ended.
    pub(super) fn advance_ready(&mut self) {
        if !matches!(self.state.phase, RunPhase::Active) {
            return;
        }
        let Some(planned) = self.state.planned.clone() else { return };
        let empty = planned.plan.jobs.is_empty();
        if !empty {
            self.start_all_ready(&planned);
        }
        if empty {
            return self.refuse("the workflow has no jobs".to_owned());
        }
        self.end_if_done();
    }

    /// Passes over the jobs until nothing more happens.
    fn start_all_ready(&mut self, planned: &Planned) {
        loop {
            let mut seen = SeenJobs::of(&self.state);
            if !self.start_ready(planned, &mut seen, true) {
                return;
            }
            // What one job does to others of its own file is seen at once, what it does to another file in the next round.
            while self.start_ready(planned, &mut seen, false) {}
        }
    }

    /// One pass over the jobs; whether something happened in it that may let others start. `held`: what was held before may
    /// start too.
    fn start_ready(&mut self, planned: &Planned, seen: &mut SeenJobs, held: bool) -> bool {
        self.fail_calls_fast(planned);
        let files: Vec<JobKey> = std::iter::once(JobKey::default()).chain(self.state.calls.keys().cloned()).collect();
        let mut changed = false;
        for parent_call in &files {
            let Some(plan) = self.state.file(planned, parent_call) else { continue };
            let done = seen.done.entry(parent_call.clone()).or_default();
            for (id, job) in plan.jobs.iter() {
                if done.contains(id) {
                    continue;
                }
                let key = parent_call.child(id);
                let blocked = self.state.jobs.get(&key).is_some_and(|job| matches!(job.phase, JobPhase::Blocked));
                let ready = blocked && job.needs.iter().all(|need| done.contains(need));
                if ready {
                    self.evaluate_job(planned, parent_call, id);
                } else if !(held && seen.held.contains(&(parent_call.clone(), id.clone()))) {
                    continue;
                }
                self.start_held(planned, parent_call, id);
                if self.state.result(parent_call, id).is_some() {
                    changed = true;
                    done.insert(id.clone());
                }
            }
        }
        changed || self.state.calls.len() + 1 > files.len()
    }

    /// A job whose needs are done: skipped, refused, or laid out as its instances.
    fn evaluate_job(&mut self, planned: &Planned, parent_call: &JobKey, id: &str) {
        let key = parent_call.child(id);
        if self.state.expired_at.is_some() {
            return self.conclude(&key, Conclusion::Skipped, Some(Reason::Timeout), None);
        }
        match self.instances(planned, parent_call, id, &key) {
            Ok(Some(instances)) => self.replace(&key, instances),
            Ok(None) => self.conclude(&key, Conclusion::Skipped, None, None),
            Err(reason) => self.conclude(&key, Conclusion::Failure, Some(reason), None),
        }
    }

    /// The instances of a job with their keys. `None`: it is skipped.
    fn instances(
        &self,
        planned: &Planned,
        parent_call: &JobKey,
        id: &str,
        key: &JobKey,
    ) -> Result<Option<Vec<(JobKey, Job)>>, Reason> {
        if let Some(reason) = self.state.needs_too_much(planned, parent_call, id) {
            return Err(reason);
        }
        let context = self.state.job_context(planned, parent_call, id);
        let (Some(context), Some(blocked)) = (context, self.state.jobs.get(key)) else { return Ok(None) };
        let dialect = context.run.file.dialect;
        if !dialect.decide_job(&context).map_err(|error| invalid(key.as_str(), &error))? {
            return Ok(None);
        }
        if let Some(reason) = self.lacks_secret(planned, parent_call, id, context.job) {
            return Err(reason);
        }
        let expansion = dialect.expand_job(&context).map_err(|error| invalid(key.as_str(), &error))?;
        let (fail_fast, max_parallel) = (expansion.fail_fast, expansion.max_parallel);
        // What stands before the job's own name are those of the calls it stands in.
        let own = context.job.name.as_deref().unwrap_or(id);
        let outer = blocked.name.strip_suffix(own).unwrap_or_default();
        let keyed = expansion.instances.into_iter().map(|instance| {
            let key = if expansion.numbered { format!("{key}/{}", instance.cell.index).into() } else { key.clone() };
            let blocked = Job { fail_fast, max_parallel, ..Job::clone(blocked) };
            (key, held(blocked, outer, instance))
        });
        let keyed: Vec<_> = keyed.collect();
        self.state.room_for_cells(key.as_str(), &keyed)?;
        Ok(Some(keyed))
    }

    /// Puts the cells where the job stood.
    fn replace(&mut self, key: &JobKey, cells: Vec<(JobKey, Job)>) {
        let Some((at, _, _)) = self.state.jobs.shift_remove_full(key) else { return };
        for (offset, (key, job)) in cells.into_iter().enumerate() {
            let job = self.reused_cell(&key, job);
            self.state.jobs.shift_insert(at + offset, key, Arc::new(job));
        }
    }

    /// Queues cells that were held, as many as `max-parallel` allows.
    fn start_held(&mut self, planned: &Planned, parent_call: &JobKey, id: &str) {
        let mut busy =
            self.state.calls_of(parent_call, id).filter(|(key, _)| self.state.call_result(key).is_none()).count();
        let mut held = Vec::new();
        for (key, job) in self.state.jobs_of(parent_call, id) {
            match job.phase {
                JobPhase::Held => {
                    let holds = job.claim.as_ref().is_some_and(|claim| claim.state == ClaimState::Joined);
                    held.push((!holds, key.clone(), job.max_parallel.unwrap_or(usize::MAX)));
                }
                JobPhase::Waiting { .. }
                | JobPhase::Queued { .. }
                | JobPhase::Running { .. }
                | JobPhase::Cancelling { .. } => busy += 1,
                JobPhase::Blocked | JobPhase::Done { .. } => {}
            }
        }
        // What holds its group already goes first: it must not wait for one that waits for the group.
        held.sort_by_key(|(holds_none, ..)| *holds_none);
        for (_, key, limit) in held {
            if busy < limit {
                self.acquire_group(planned, &key);
                let ended = self.state.jobs.get(&key).is_some_and(|job| job.conclusion().is_some());
                busy += usize::from(!ended);
            }
        }
    }

    /// A job that nothing keeps from starting: its workflow is laid out, or workers are asked.
    pub(super) fn start(&mut self, planned: &Planned, key: &JobKey) {
        match self.state.calls_workflow(planned, key) {
            true => self.call(planned, key),
            false => self.pass_gate(planned, key),
        }
    }

    /// Offers a job to workers, those that lost it last.
    pub(super) fn queue(&mut self, key: &JobKey, reason: String) {
        let now = self.now;
        let Some(job) = self.state.jobs.get_mut(key).map(Arc::make_mut) else { return };
        job.phase = JobPhase::Queued { since: now };
        let avoid: BTreeSet<String> = job.attempts.iter().map(|attempt| attempt.worker.clone()).collect();
        self.effects.push(RunEffect::Queue {
            job: key.clone(),
            attempt: job.next_attempt(),
            labels: job.labels.clone(),
            avoid: avoid.into_iter().collect(),
            reason,
        });
    }

    /// Whether a job goes on although the run was cancelled: its own condition still holds.
    pub(super) fn wanted_after_cancel(&self, planned: &Planned, key: &JobKey) -> bool {
        let Some(job) = self.state.jobs.get(key) else { return false };
        if self.state.needs_too_much(planned, &job.parent_call, job_id(&job.id)).is_some() {
            return false;
        }
        let context = self.state.job_context(planned, &job.parent_call, job_id(&job.id));
        context.is_some_and(|context| context.run.file.dialect.decide_job(&context) == Ok(true))
    }
}

/// Jobs, by their file and id, as they were looked at last. Looking at all of them for each of them takes too long.
struct SeenJobs {
    /// Those that ended, by file.
    done: HashMap<JobKey, HashSet<String>>,
    /// Those with instances that are held.
    held: HashSet<(JobKey, String)>,
}

impl SeenJobs {
    fn of(state: &RunState) -> Self {
        let mut done: HashMap<JobKey, HashSet<String>> = HashMap::new();
        for ((parent_call, id), result) in state.results() {
            if result.is_some() {
                done.entry(parent_call.clone()).or_default().insert(id.to_owned());
            }
        }
        let held = state.jobs.values().filter(|job| matches!(job.phase, JobPhase::Held));
        let held = held.map(|job| (job.parent_call.clone(), job_id(&job.id).to_owned())).collect();
        Self { done, held }
    }
}

/// An instance that waits for its turn; one that can't run has ended.
fn held(blocked: Job, outer: &str, instance: JobInstance) -> Job {
    let phase = match &instance.invalid {
        None => JobPhase::Held,
        Some(error) => {
            let reason = Some(invalid(&blocked.id, error));
            JobPhase::Done { conclusion: Conclusion::Failure, reason, outcome: None }
        }
    };
    Job {
        cell: instance.cell,
        name: format!("{outer}{}", instance.name),
        labels: instance.labels,
        timeout_ms: instance.timeout_ms,
        tolerated: instance.tolerated,
        claim: instance.concurrency.map(|ask| GroupClaim { ask, state: ClaimState::NotRequested }),
        environment: instance.environment,
        phase,
        ..blocked
    }
}
