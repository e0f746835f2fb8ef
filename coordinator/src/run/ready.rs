//! Which jobs start: needs, conditions, matrices, `max-parallel`.

use std::collections::BTreeSet;

use serde_json::Value;
use workflow::plan::{self, Conclusion, Leg, Plan, Reason, Work};

use super::{
    Effect, Job, JobPhase, Phase, Planned, State,
    advance::Turn,
    evaluate::{self, Scope, Status},
};

/// Milliseconds a job may take where it names no `timeout-minutes` (GitHub docs: 360 minutes).
const JOB_TIMEOUT_MS: u64 = 360 * 60_000;

impl Turn {
    /// Enters the plan's jobs, none of them started.
    pub(super) fn lay_out(&mut self, planned: &Planned) {
        for (id, job) in &planned.plan.jobs {
            let blocked = Job {
                id: id.clone(),
                leg: Leg { total: 1, ..Leg::default() },
                name: job.name.clone().unwrap_or_else(|| id.clone()),
                labels: Vec::new(),
                timeout_ms: JOB_TIMEOUT_MS,
                tolerated: false,
                fail_fast: true,
                max_parallel: None,
                phase: JobPhase::Blocked,
                attempts: Vec::new(),
            };
            self.state.jobs.insert(id.clone(), blocked);
        }
    }

    /// Carries every job as far as it goes without news from outside, and ends the run where all have ended.
    pub(super) fn settle(&mut self) {
        if !matches!(self.state.phase, Phase::Active) {
            return;
        }
        // Taken out for the loop: the plan is large and only read.
        let Some(planned) = self.state.planned.take() else { return };
        let called = planned.plan.jobs.iter().find_map(|(id, job)| match &job.work {
            Work::Call { uses, .. } => Some((id, uses)),
            Work::Steps(_) => None,
        });
        let message = match called {
            Some((id, uses)) => Some(format!(
                "job \"{id}\" calls the workflow {uses}: reusable workflows are not supported yet\n\
                 Copy the called jobs into this workflow to run them here."
            )),
            None if planned.plan.jobs.is_empty() => Some("the workflow has no jobs".to_owned()),
            None => None,
        };
        if message.is_none() {
            while self.start_ready(&planned) {}
        }
        self.state.planned = Some(planned);
        match message {
            Some(message) => {
                self.state.jobs.clear();
                self.refuse(message);
            }
            None => self.end_if_done(),
        }
    }

    /// One pass over the jobs; whether one ended in it, so that others may start.
    fn start_ready(&mut self, planned: &Planned) -> bool {
        let mut ended = false;
        for (id, job) in &planned.plan.jobs {
            let blocked = self.state.jobs.get(id).is_some_and(|job| matches!(job.phase, JobPhase::Blocked));
            if blocked && job.needs.iter().all(|need| self.state.result(need).is_some()) {
                self.open(planned, id, job);
            }
            self.release(id);
            ended |= blocked && self.state.result(id).is_some();
        }
        ended
    }

    /// A job whose needs are done: skipped, refused, or laid out as its legs.
    fn open(&mut self, planned: &Planned, id: &str, job: &plan::Job) {
        if self.state.expired_at.is_some() {
            return self.conclude(id, Conclusion::Skipped, Some(Reason::Timeout), None);
        }
        let scope = scope(&self.state, planned, id, job);
        match evaluate::condition(job.condition.as_deref(), &scope) {
            Ok(true) => {}
            Ok(false) => return self.conclude(id, Conclusion::Skipped, None, None),
            Err(why) => return self.conclude(id, Conclusion::Failure, Some(invalid(id, "if", &why)), None),
        }
        match legs(id, job, &scope) {
            Ok(legs) => self.replace(id, legs),
            Err(reason) => self.conclude(id, Conclusion::Failure, Some(reason), None),
        }
    }

    /// Puts the legs where the job stood.
    fn replace(&mut self, id: &str, legs: Vec<(String, Job)>) {
        let Some((at, _, _)) = self.state.jobs.shift_remove_full(id) else { return };
        for (offset, (key, job)) in legs.into_iter().enumerate() {
            self.state.jobs.shift_insert(at + offset, key, job);
        }
    }

    /// Queues legs that were held, as many as `max-parallel` allows.
    fn release(&mut self, id: &str) {
        let mut busy = 0;
        let mut held = Vec::new();
        for (key, job) in self.state.jobs.iter().filter(|(_, job)| job.id == id) {
            match job.phase {
                JobPhase::Held => held.push((key.clone(), job.max_parallel.unwrap_or(usize::MAX))),
                JobPhase::Queued { .. } | JobPhase::Running { .. } | JobPhase::Cancelling { .. } => busy += 1,
                JobPhase::Blocked | JobPhase::Done { .. } => {}
            }
        }
        for (key, limit) in held {
            if busy < limit {
                self.queue(&key, String::new());
                busy += 1;
            }
        }
    }

    /// Offers a job to workers, those that lost it last.
    pub(super) fn queue(&mut self, key: &str, reason: String) {
        let now = self.now;
        let Some(job) = self.state.jobs.get_mut(key) else { return };
        job.phase = JobPhase::Queued { since: now, reason };
        let avoid: BTreeSet<String> = job.attempts.iter().map(|attempt| attempt.worker.clone()).collect();
        self.effects.push(Effect::Queue {
            job: key.to_owned(),
            attempt: job.next_attempt(),
            labels: job.labels.clone(),
            avoid: avoid.into_iter().collect(),
        });
    }

    /// Whether a job goes on although the run was cancelled: its own condition still holds.
    pub(super) fn wanted_after_cancel(&self, key: &str) -> bool {
        let Some(planned) = &self.state.planned else { return false };
        let Some(id) = self.state.jobs.get(key).map(|job| &job.id) else { return false };
        let Some(job) = planned.plan.jobs.get(id) else { return false };
        let scope = scope(&self.state, planned, id, job);
        evaluate::condition(job.condition.as_deref(), &scope).unwrap_or(false)
    }
}

fn invalid(id: &str, key: &str, why: &str) -> Reason {
    Reason::Invalid(format!("jobs.{id}.{key}: {why}"))
}

/// Every job that must end before this one, at any distance.
fn ancestors<'a>(plan: &'a Plan, job: &'a plan::Job) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = job.needs.iter().map(String::as_str).collect();
    while let Some(id) = open.pop() {
        if found.insert(id) {
            open.extend(plan.jobs.get(id).into_iter().flat_map(|job| job.needs.iter().map(String::as_str)));
        }
    }
    found
}

/// What the job-level keys of a job may see (GitHub docs: context availability).
fn scope(state: &State, planned: &Planned, id: &str, job: &plan::Job) -> Scope {
    let cancelled = state.cancelled.is_some();
    let results: Vec<_> =
        ancestors(&planned.plan, job).into_iter().filter_map(|ancestor| state.result(ancestor)).collect();
    let status = Status {
        success: !cancelled && results.iter().all(|&result| result == Conclusion::Success),
        failure: results.contains(&Conclusion::Failure),
        cancelled,
    };
    Scope { contexts: state.contexts(planned, id, job), status }
}

/// The legs of a job with their keys; a job without a matrix is its only leg, under its id.
fn legs(id: &str, job: &plan::Job, scope: &Scope) -> Result<Vec<(String, Job)>, Reason> {
    let fail_fast = evaluate::flag(job.strategy.fail_fast.as_ref(), true, scope)
        .map_err(|why| invalid(id, "strategy.fail-fast", &why))?;
    let max_parallel = evaluate::number(job.strategy.max_parallel.as_ref(), scope)
        .map_err(|why| invalid(id, "strategy.max-parallel", &why))?
        .map(|number| (number as usize).max(1));
    let matrix = match &job.strategy.matrix {
        Some(matrix) => Some(evaluate::matrix(matrix, scope).map_err(|why| invalid(id, "strategy.matrix", &why))?),
        None => None,
    };
    let expanded = matrix.is_some();
    let rows = matrix.unwrap_or_else(|| vec![serde_json::Map::new()]);
    if rows.is_empty() {
        return Err(invalid(id, "strategy.matrix", "the matrix has no combination"));
    }
    let total = rows.len();
    let legs = rows.into_iter().enumerate().map(|(index, matrix)| {
        let key = if expanded { format!("{id}/{index}") } else { id.to_owned() };
        (key, leg(id, job, scope, Leg { matrix, index, total }, fail_fast, max_parallel))
    });
    Ok(legs.collect())
}

/// One leg, its own keys evaluated. What can't be evaluated fails this leg alone.
fn leg(id: &str, job: &plan::Job, outer: &Scope, leg: Leg, fail_fast: bool, max_parallel: Option<usize>) -> Job {
    let mut scope = outer.clone();
    scope.contexts.insert("matrix".into(), Value::Object(leg.matrix.clone()));
    scope.contexts.insert("strategy".into(), super::order::strategy(&leg, fail_fast, max_parallel));
    let mut made = Job {
        id: id.to_owned(),
        name: String::new(),
        labels: Vec::new(),
        timeout_ms: JOB_TIMEOUT_MS,
        tolerated: false,
        fail_fast,
        max_parallel,
        phase: JobPhase::Held,
        attempts: Vec::new(),
        leg,
    };
    if let Err(reason) = fill(&mut made, id, job, &scope) {
        made.phase = JobPhase::Done { conclusion: Conclusion::Failure, reason: Some(reason), report: None };
    }
    made
}

fn fill(made: &mut Job, id: &str, job: &plan::Job, scope: &Scope) -> Result<(), Reason> {
    made.name = evaluate::name(id, job, &made.leg, scope).map_err(|why| invalid(id, "name", &why))?;
    made.tolerated = evaluate::flag(job.continue_on_error.as_ref(), false, scope)
        .map_err(|why| invalid(id, "continue-on-error", &why))?;
    let minutes =
        evaluate::number(job.timeout_minutes.as_ref(), scope).map_err(|why| invalid(id, "timeout-minutes", &why))?;
    if let Some(minutes) = minutes {
        made.timeout_ms = (minutes * 60_000.0) as u64;
    }
    made.labels = evaluate::labels(&job.runs_on, scope).map_err(|why| invalid(id, "runs-on", &why))?;
    if made.labels.is_empty() {
        return Err(invalid(id, "runs-on", "no label is named"));
    }
    Ok(())
}
