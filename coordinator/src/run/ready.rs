//! Which jobs start: needs, conditions, matrices, `max-parallel`.

use std::collections::BTreeSet;

use serde_json::Value;
use workflow::{
    github,
    plan::{self, Conclusion, Leg, Plan, Reason, Work},
};

use super::{
    Claim, Effect, Job, JobPhase, Phase, Planned, Standing, State,
    advance::Turn,
    evaluate::{Known, Status},
};

impl Turn {
    /// Enters the plan's jobs, none of them started.
    pub(super) fn lay_out(&mut self, planned: &Planned) {
        for (id, job) in &planned.plan.jobs {
            let blocked = Job {
                id: id.clone(),
                leg: Leg { total: 1, ..Leg::default() },
                name: job.name.clone().unwrap_or_else(|| id.clone()),
                labels: Vec::new(),
                timeout_ms: 0,
                tolerated: false,
                fail_fast: true,
                max_parallel: None,
                claim: None,
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
            let open = self.state.result(id).is_none();
            self.release(id);
            ended |= (blocked || open) && self.state.result(id).is_some();
        }
        ended
    }

    /// A job whose needs are done: skipped, refused, or laid out as its legs.
    fn open(&mut self, planned: &Planned, id: &str, job: &plan::Job) {
        if self.state.expired_at.is_some() {
            return self.conclude(id, Conclusion::Skipped, Some(Reason::Timeout), None);
        }
        let known = known(&self.state, planned, id, job);
        match known.ask(|scope| github::job::decide(job, scope)) {
            Ok(true) => {}
            Ok(false) => return self.conclude(id, Conclusion::Skipped, None, None),
            Err(why) => return self.conclude(id, Conclusion::Failure, Some(invalid(id, "if", &why)), None),
        }
        match legs(id, job, &known) {
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
                JobPhase::Waiting { .. }
                | JobPhase::Queued { .. }
                | JobPhase::Running { .. }
                | JobPhase::Cancelling { .. } => busy += 1,
                JobPhase::Blocked | JobPhase::Done { .. } => {}
            }
        }
        for (key, limit) in held {
            if busy < limit {
                self.enter(&key);
                let ended = self.state.jobs.get(&key).is_some_and(|job| job.conclusion().is_some());
                busy += usize::from(!ended);
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
        let known = known(&self.state, planned, id, job);
        known.ask(|scope| github::job::decide(job, scope)).unwrap_or(false)
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
fn known(state: &State, planned: &Planned, id: &str, job: &plan::Job) -> Known {
    let cancelled = state.cancelled.is_some();
    let results: Vec<_> =
        ancestors(&planned.plan, job).into_iter().filter_map(|ancestor| state.result(ancestor)).collect();
    let status = Status {
        success: !cancelled && results.iter().all(|&result| result == Conclusion::Success),
        failure: results.contains(&Conclusion::Failure),
        cancelled,
    };
    Known { contexts: state.contexts(planned, id, job), status }
}

/// The legs of a job with their keys; a job without a matrix is its only leg, under its id.
fn legs(id: &str, job: &plan::Job, known: &Known) -> Result<Vec<(String, Job)>, Reason> {
    let fail_fast =
        known.ask(|scope| github::job::fail_fast(job, scope)).map_err(|why| invalid(id, "strategy.fail-fast", &why))?;
    let max_parallel = known
        .ask(|scope| github::job::max_parallel(job, scope))
        .map_err(|why| invalid(id, "strategy.max-parallel", &why))?;
    let legs =
        known.ask(|scope| github::matrix::expand(&job.strategy, scope)).map_err(|why| invalid(id, "strategy", &why))?;
    let keyed = legs.into_iter().map(|leg| {
        let key = if job.strategy.matrix.is_some() { format!("{id}/{}", leg.index) } else { id.to_owned() };
        (key, self::leg(id, job, known, leg, fail_fast, max_parallel))
    });
    Ok(keyed.collect())
}

/// One leg, its own keys evaluated. What can't be evaluated fails this leg alone.
fn leg(id: &str, job: &plan::Job, outer: &Known, leg: Leg, fail_fast: bool, max_parallel: Option<usize>) -> Job {
    let mut known = outer.clone();
    known.contexts.insert("matrix".into(), Value::Object(leg.matrix.clone()));
    known.contexts.insert("strategy".into(), super::order::strategy(&leg, fail_fast, max_parallel));
    let mut made = Job {
        id: id.to_owned(),
        name: id.to_owned(),
        labels: Vec::new(),
        timeout_ms: 0,
        tolerated: false,
        fail_fast,
        max_parallel,
        claim: None,
        phase: JobPhase::Held,
        attempts: Vec::new(),
        leg,
    };
    if let Err(reason) = fill(&mut made, id, job, &known) {
        made.phase = JobPhase::Done { conclusion: Conclusion::Failure, reason: Some(reason), report: None };
    }
    made
}

fn fill(made: &mut Job, id: &str, job: &plan::Job, known: &Known) -> Result<(), Reason> {
    let wrong = |key: &'static str| move |why: String| invalid(id, key, &why);
    made.name =
        known.ask(|scope| Ok::<_, String>(github::naming::leg(id, job, &made.leg, scope))).map_err(wrong("name"))?;
    made.tolerated =
        known.ask(|scope| github::job::continue_on_error(job, scope)).map_err(wrong("continue-on-error"))?;
    let minutes = known.ask(|scope| github::job::timeout_minutes(job, scope)).map_err(wrong("timeout-minutes"))?;
    made.timeout_ms = (minutes * 60_000.0) as u64;
    made.labels = known.ask(|scope| github::labels::of(job, scope)).map_err(wrong("runs-on"))?;
    if let Some(concurrency) = &job.concurrency {
        let ask = known.ask(|scope| github::job::concurrency(concurrency, scope)).map_err(wrong("concurrency"))?;
        made.claim = Some(Claim { ask, standing: Standing::Outside });
    }
    if made.labels.is_empty() {
        return Err(wrong("runs-on")("it names no label".into()));
    }
    Ok(())
}
