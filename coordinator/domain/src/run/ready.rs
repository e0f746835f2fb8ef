//! Which jobs start: needs, conditions, matrices, `max-parallel`.

use std::{collections::BTreeSet, sync::Arc};

use workflow::{
    github,
    plan::{self, Conclusion, JobContent, Reason},
};

use super::{
    ClaimState, GroupClaim, Job, JobPhase, Planned, RunEffect, RunPhase,
    evaluate::{EvalContext, eval_context, invalid},
    job_key::{job_id, job_key},
    rerun::ReusedEntries,
    transition::Transition,
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
            self.state.jobs.insert(id.clone(), Arc::new(Job::blocked(id.clone(), "", name)));
        }
    }

    /// Carries every job as far as it goes without news from outside, and ends the run where all have ended.
    pub(super) fn advance_ready(&mut self) {
        if !matches!(self.state.phase, RunPhase::Active) {
            return;
        }
        let Some(planned) = self.state.planned.clone() else { return };
        let empty = planned.plan.jobs.is_empty();
        while !empty && self.start_ready(&planned) {}
        if empty {
            return self.refuse("the workflow has no jobs".to_owned());
        }
        self.end_if_done();
    }

    /// One pass over the jobs; whether something happened in it that may let others start.
    fn start_ready(&mut self, planned: &Planned) -> bool {
        self.fail_calls_fast(planned);
        let files: Vec<String> = std::iter::once(String::new()).chain(self.state.calls.keys().cloned()).collect();
        let mut changed = false;
        for parent_call in &files {
            let Some(plan) = self.state.file(planned, parent_call) else { continue };
            for (id, job) in &plan.jobs {
                let key = job_key(parent_call, id);
                let blocked = self.state.jobs.get(&key).is_some_and(|job| matches!(job.phase, JobPhase::Blocked));
                let open = self.state.result(parent_call, id).is_none();
                if blocked && job.needs.iter().all(|need| self.state.result(parent_call, need).is_some()) {
                    self.evaluate_job(planned, parent_call, id, job);
                }
                self.start_held(planned, parent_call, id);
                changed |= open && self.state.result(parent_call, id).is_some();
            }
        }
        changed || self.state.calls.len() + 1 > files.len()
    }

    /// A job whose needs are done: skipped, refused, or laid out as its cells.
    fn evaluate_job(&mut self, planned: &Planned, parent_call: &str, id: &str, job: &plan::Job) {
        let key = job_key(parent_call, id);
        if self.state.expired_at.is_some() {
            return self.conclude(&key, Conclusion::Skipped, Some(Reason::Timeout), None);
        }
        let context = eval_context(&self.state, planned, parent_call, id, job);
        match context.evaluate(|scope| github::job::decide(job, scope)) {
            Ok(true) => {}
            Ok(false) => return self.conclude(&key, Conclusion::Skipped, None, None),
            Err(why) => return self.conclude(&key, Conclusion::Failure, Some(invalid(&key, "if", &why)), None),
        }
        if let Some(reason) = self.lacks_secret(planned, parent_call, id, job) {
            return self.conclude(&key, Conclusion::Failure, Some(reason), None);
        }
        let Some(blocked) = self.state.jobs.get(&key) else { return };
        match cells(blocked, &key, id, job, &context) {
            Ok(cells) => self.replace(&key, cells),
            Err(reason) => self.conclude(&key, Conclusion::Failure, Some(reason), None),
        }
    }

    /// Puts the cells where the job stood.
    fn replace(&mut self, id: &str, cells: Vec<(String, Job)>) {
        let Some((at, _, _)) = self.state.jobs.shift_remove_full(id) else { return };
        for (offset, (key, job)) in cells.into_iter().enumerate() {
            let job = self.reused_cell(&key, job);
            self.state.jobs.shift_insert(at + offset, key, Arc::new(job));
        }
    }

    /// Queues cells that were held, as many as `max-parallel` allows.
    fn start_held(&mut self, planned: &Planned, parent_call: &str, id: &str) {
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
    pub(super) fn start(&mut self, planned: &Planned, key: &str) {
        match self.state.calls_workflow(planned, key) {
            true => self.call(planned, key),
            false => self.pass_gate(planned, key),
        }
    }

    /// Offers a job to workers, those that lost it last.
    pub(super) fn queue(&mut self, key: &str, reason: String) {
        let now = self.now;
        let Some(job) = self.state.jobs.get_mut(key).map(Arc::make_mut) else { return };
        job.phase = JobPhase::Queued { since: now };
        let avoid: BTreeSet<String> = job.attempts.iter().map(|attempt| attempt.worker.clone()).collect();
        self.effects.push(RunEffect::Queue {
            job: key.to_owned(),
            attempt: job.next_attempt(),
            labels: job.labels.clone(),
            avoid: avoid.into_iter().collect(),
            reason,
        });
    }

    /// Whether a job goes on although the run was cancelled: its own condition still holds.
    pub(super) fn wanted_after_cancel(&self, planned: &Planned, key: &str) -> bool {
        let Some(job) = self.state.jobs.get(key) else { return false };
        let Some(written) = self.state.written(planned, job) else { return false };
        let context = eval_context(&self.state, planned, &job.parent_call, job_id(&job.id), written);
        context.evaluate(|scope| github::job::decide(written, scope)).unwrap_or(false)
    }
}

/// The cells of a job with their keys; a job without a matrix is its only cell, under its own key.
fn cells(
    blocked: &Job,
    place: &str,
    id: &str,
    job: &plan::Job,
    context: &EvalContext,
) -> Result<Vec<(String, Job)>, Reason> {
    let wrong = |key: &'static str| move |why: String| invalid(place, key, &why);
    let fail_fast =
        context.evaluate(|scope| github::job::fail_fast(job, scope)).map_err(wrong("strategy.fail-fast"))?;
    let max_parallel =
        context.evaluate(|scope| github::job::max_parallel(job, scope)).map_err(wrong("strategy.max-parallel"))?;
    let cells = context.evaluate(|scope| github::matrix::expand(&job.strategy, scope)).map_err(wrong("strategy"))?;
    // What stands before the job's own name are those of the calls it stands in.
    let own = job.name.as_deref().unwrap_or(id);
    let outer = blocked.name.strip_suffix(own).unwrap_or_default();
    let keyed = cells.into_iter().map(|cell| {
        let key = if job.strategy.matrix.is_some() { format!("{place}/{}", cell.index) } else { place.to_owned() };
        let phase = JobPhase::Held;
        let mut made = Job { cell, fail_fast, max_parallel, phase, ..blocked.clone() };
        let filled = match &job.work {
            JobContent::Steps(_) => fill(&mut made, outer, id, job, context),
            JobContent::Call { .. } => name(&mut made, outer, id, job, context).map(|_| ()),
        };
        if let Err(reason) = filled {
            made.phase = JobPhase::Done { conclusion: Conclusion::Failure, reason: Some(reason), outcome: None };
        }
        (key, made)
    });
    Ok(keyed.collect())
}

/// The keys that steps and calls have alike; what the cell knows. What can't be evaluated fails this cell alone.
fn name(made: &mut Job, outer: &str, id: &str, job: &plan::Job, context: &EvalContext) -> Result<EvalContext, Reason> {
    let mut context = context.clone();
    context.add_matrix(&made.cell, made.fail_fast, made.max_parallel);
    let name = context.evaluate(|scope| Ok::<_, String>(github::display_name::job(id, job, &made.cell, scope)));
    made.name = format!("{outer}{}", name.map_err(|why| invalid(&made.id, "name", &why))?);
    if let Some(concurrency) = &job.concurrency {
        let ask = context.evaluate(|scope| github::job::concurrency(concurrency, scope));
        let ask = ask.map_err(|why| invalid(&made.id, "concurrency", &why))?;
        made.claim = Some(GroupClaim { ask, state: ClaimState::NotRequested });
    }
    Ok(context)
}

/// The keys of a job with steps.
fn fill(made: &mut Job, outer: &str, id: &str, job: &plan::Job, context: &EvalContext) -> Result<(), Reason> {
    let context = name(made, outer, id, job, context)?;
    let place = made.id.clone();
    let wrong = |key: &'static str| {
        let place = place.clone();
        move |why: String| invalid(&place, key, &why)
    };
    made.tolerated =
        context.evaluate(|scope| github::job::continue_on_error(job, scope)).map_err(wrong("continue-on-error"))?;
    let minutes =
        context.evaluate(|scope| github::job::timeout_minutes(job, scope)).map_err(wrong("timeout-minutes"))?;
    made.timeout_ms = (minutes * 60_000.0) as u64;
    made.labels = context.evaluate(|scope| github::labels::of(job, scope)).map_err(wrong("runs-on"))?;
    if made.labels.is_empty() {
        return Err(wrong("runs-on")("it names no label".into()));
    }
    made.environment = context.evaluate(|scope| github::job::environment(job, scope)).map_err(wrong("environment"))?;
    Ok(())
}
