//! Called workflows: their jobs are jobs of the run, each in the file it stands in.
//!
//! A job that calls a workflow is one entry until its needs are done and its condition holds. Then a [`Call`] takes its
//! place, one for each leg, and the called workflow's jobs are laid out below it. `within` is the key of the call that
//! a job belongs to; empty: the run's own file.

use indexmap::IndexMap;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use workflow::{
    expression,
    github::{call, naming},
    plan::{self, Conclusion, Leg, Plan, Reason, Work},
};

use super::{
    Job, JobPhase, Planned, State,
    advance::Turn,
    ending::worse,
    evaluate::Known,
    ready::{Spread, invalid, known},
};

/// Jobs of a run. What is called can be counted before, matrices around it can't.
const MAX_JOBS: usize = 4096;
/// Bytes of a key, which names folders and files.
const MAX_KEY: usize = 180;

/// A called workflow whose jobs are laid out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Id of the job that calls, behind those of the calls it stands in: `outer/inner`.
    pub id: String,
    /// Key of the call it stands in; empty: none.
    pub within: String,
    /// Which of [`Planned::called`].
    pub workflow: String,
    /// Display name.
    pub name: String,
    /// The caller's leg.
    pub leg: Leg,
    /// Whether its failure ends the other legs.
    pub fail_fast: bool,
    /// How many legs may be under way at a time; `None`: all.
    pub max_parallel: Option<usize>,
    /// The `inputs` context of the called workflow.
    pub inputs: Map<String, Value>,
    /// It waits for other legs (`max-parallel`).
    pub held: bool,
    /// Why its jobs were ended before they all had run.
    pub ended: Option<Reason>,
}

/// Key of a job, or of a call, in the file `within`.
pub(super) fn key(within: &str, id: &str) -> String {
    if within.is_empty() { id.to_owned() } else { format!("{within}/{id}") }
}

/// An id as it stands in its own file.
pub(super) fn local(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

impl State {
    /// The job as its file has it.
    pub fn written<'p>(&self, planned: &'p Planned, job: &Job) -> Option<&'p plan::Job> {
        self.file(planned, &job.within)?.jobs.get(local(&job.id))
    }

    /// The workflow that a job belongs to.
    pub(super) fn file<'p>(&self, planned: &'p Planned, within: &str) -> Option<&'p Plan> {
        if within.is_empty() {
            return Some(&planned.plan);
        }
        planned.called.get(&self.calls.get(within)?.workflow)
    }

    pub(super) fn inputs<'p>(&'p self, planned: &'p Planned, within: &str) -> &'p Map<String, Value> {
        self.calls.get(within).map_or(&planned.inputs, |call| &call.inputs)
    }

    /// Calls by a job of the file `within`, with their keys.
    pub(super) fn calls_of(&self, within: &str, id: &str) -> impl Iterator<Item = (&String, &Call)> {
        self.calls.iter().filter(move |(_, call)| call.within == within && local(&call.id) == id)
    }

    /// Entries of a job of the file `within`, with their keys.
    pub(super) fn jobs_of(&self, within: &str, id: &str) -> impl Iterator<Item = (&String, &Job)> {
        self.jobs.iter().filter(move |(_, job)| job.within == within && local(&job.id) == id)
    }

    /// Entries at any depth below a call.
    pub(super) fn below(&self, call: &str) -> impl Iterator<Item = (&String, &Job)> {
        self.jobs.iter().filter(move |(key, _)| key.strip_prefix(call).is_some_and(|rest| rest.starts_with('/')))
    }

    /// How a call ended: as its jobs did. `None`: one of them has not.
    pub(super) fn call_result(&self, key: &str) -> Option<Conclusion> {
        let mut result = Conclusion::Skipped;
        for (_, job) in self.below(key) {
            result = worse(job.conclusion()?, result);
        }
        let ended = self.calls.get(key).is_some_and(|call| call.ended.is_some());
        Some(if ended && result == Conclusion::Skipped { Conclusion::Cancelled } else { result })
    }

    /// Whether the jobs of a file are being ended: the run was cancelled, or a call they stand in.
    pub(super) fn is_ending(&self, within: &str) -> bool {
        let mut at = within;
        while let Some(call) = self.calls.get(at) {
            if call.ended.is_some() {
                return true;
            }
            at = &call.within;
        }
        self.cancelled.is_some()
    }

    /// Outputs of a called workflow. One that can't be evaluated is empty, as one whose job did not run.
    pub(super) fn call_outputs(&self, planned: &Planned, key: &str) -> IndexMap<String, String> {
        let called = self.calls.get(key).and_then(|call| planned.called.get(&call.workflow));
        let Some((plan, trigger)) = called.and_then(|plan| Some((plan, call::trigger(plan)?))) else {
            return IndexMap::new();
        };
        if call::outputs(trigger).next().is_none() {
            return IndexMap::new();
        }
        let jobs: Map<String, Value> = plan.jobs.keys().map(|id| (id.clone(), self.need(planned, key, id))).collect();
        let mut contexts = self.common(planned, key);
        contexts.insert("jobs".into(), jobs.into());
        let known = Known { contexts, ..Known::default() };
        let value = |(name, text): (&str, &String)| {
            let value = known.ask(|scope| expression::interpolate_text(text, scope)).unwrap_or_default();
            (name.to_owned(), value)
        };
        call::outputs(trigger).map(value).collect()
    }

    /// Which of the run's secrets a job sees, and under which names: a called workflow has those its caller hands on.
    pub fn secrets_of(&self, key: &str, all: Vec<(String, SecretString)>) -> Vec<(String, SecretString)> {
        let (Some(planned), Some(job)) = (&self.planned, self.jobs.get(key)) else { return Vec::new() };
        let mut chain = Vec::new();
        let mut at = job.within.as_str();
        while let Some(call) = self.calls.get(at) {
            chain.push(call);
            at = &call.within;
        }
        chain.into_iter().rev().fold(all, |secrets, call| self.handed_on(planned, call, secrets))
    }

    fn handed_on(
        &self,
        planned: &Planned,
        call: &Call,
        secrets: Vec<(String, SecretString)>,
    ) -> Vec<(String, SecretString)> {
        let job = self.file(planned, &call.within).and_then(|plan| plan.jobs.get(local(&call.id)));
        let Some((job, Work::Call { secrets: Some(mapping), .. })) = job.map(|job| (job, &job.work)) else {
            return Vec::new();
        };
        let Some(mapping) = mapping.as_object() else { return secrets };
        let mut known = known(self, planned, &call.within, local(&call.id), job);
        known.take_leg(&call.leg, call.fail_fast, call.max_parallel);
        let values = secrets.iter().map(|(name, value)| (name.clone(), value.expose_secret().into()));
        known.contexts.insert("secrets".into(), values.collect::<Map<_, _>>().into());
        let one = |(name, tree): (&String, &Value)| {
            let value = known.ask(|scope| expression::interpolate_tree(tree, scope)).ok()?;
            // A secret that is not there is empty, and an empty one is none.
            let text = Some(value.as_text().into_owned()).filter(|text| !text.is_empty())?;
            Some((name.clone(), SecretString::from(text)))
        };
        mapping.iter().filter_map(one).collect()
    }
}

impl Turn {
    /// Puts a call for each leg where the job stood, with the called workflow's jobs below.
    pub(super) fn call(&mut self, planned: &Planned, within: &str, id: &str, job: &plan::Job, known: &Known) {
        let place = key(within, id);
        let Work::Call { uses, with, .. } = &job.work else { return };
        let spread = Spread::of(&place, job, known);
        let (called, spread) = match (planned.called.get(uses), spread) {
            (Some(called), Ok(spread)) => (called, spread),
            (_, Err(reason)) => return self.conclude(&place, Conclusion::Failure, Some(reason), None),
            (None, _) => {
                let reason = invalid(&place, "uses", &format!("the workflow {uses} was not read"));
                return self.conclude(&place, Conclusion::Failure, Some(reason), None);
            }
        };
        let more = spread.legs.len().saturating_mul(called.jobs.len());
        if self.state.jobs.len().saturating_add(more) > MAX_JOBS {
            let reason = invalid(&place, "uses", &format!("the run would have more than {MAX_JOBS} jobs"));
            return self.conclude(&place, Conclusion::Failure, Some(reason), None);
        }
        let Some((mut at, _, before)) = self.state.jobs.shift_remove_full(&place) else { return };
        let outer = self.state.calls.get(within).map(|call| format!("{} / ", call.name)).unwrap_or_default();
        for leg in spread.legs {
            let mut known = known.clone();
            known.take_leg(&leg, spread.fail_fast, spread.max_parallel);
            let leg_key = if job.strategy.matrix.is_some() { format!("{place}/{}", leg.index) } else { place.clone() };
            let name = known.ask(|scope| Ok::<_, String>(naming::leg(id, job, &leg, scope))).unwrap_or_default();
            let name = format!("{outer}{name}");
            let longest = called.jobs.keys().map(String::len).max().unwrap_or_default();
            let trigger = call::trigger(called).cloned().unwrap_or_default();
            let inputs = match leg_key.len() + longest > MAX_KEY {
                true => Err(invalid(&before.id, "uses", "the ids of the calls together are too long: shorten them")),
                false => known
                    .ask(|scope| call::inputs(&trigger, with, scope))
                    .map_err(|why| invalid(&before.id, "with", &why)),
            };
            let inputs = match inputs {
                Ok(inputs) => inputs,
                Err(reason) => {
                    let phase = JobPhase::Done { conclusion: Conclusion::Failure, reason: Some(reason), report: None };
                    self.state.jobs.shift_insert(at, leg_key, Job { name, leg, phase, ..before.clone() });
                    at += 1;
                    continue;
                }
            };
            for (inner, job) in &called.jobs {
                let shown = job.name.as_ref().unwrap_or(inner);
                let id = format!("{}/{inner}", before.id);
                let blocked = Job::blocked(id, &leg_key, format!("{name} / {shown}"));
                self.state.jobs.shift_insert(at, key(&leg_key, inner), blocked);
                at += 1;
            }
            let call = Call {
                id: before.id.clone(),
                within: within.to_owned(),
                workflow: uses.clone(),
                name,
                leg,
                fail_fast: spread.fail_fast,
                max_parallel: spread.max_parallel,
                inputs,
                held: true,
                ended: None,
            };
            self.state.calls.insert(leg_key, call);
        }
    }

    /// Lets calls go on that were held, as many as `max-parallel` allows; whether one was.
    pub(super) fn release_calls(&mut self, within: &str, id: &str) -> bool {
        let busy = |(key, call): &(&String, &Call)| !call.held && self.state.call_result(key).is_none();
        let mut count = self.state.calls_of(within, id).filter(busy).count();
        let held: Vec<(String, usize)> = self
            .state
            .calls_of(within, id)
            .filter(|(_, call)| call.held)
            .map(|(key, call)| (key.clone(), call.max_parallel.unwrap_or(usize::MAX)))
            .collect();
        let mut released = false;
        for (key, limit) in held {
            if let Some(call) = self.state.calls.get_mut(&key).filter(|_| count < limit) {
                call.held = false;
                count += 1;
                released = true;
            }
        }
        released
    }

    /// Ends the other legs of calls that failed, where `fail-fast` says so.
    pub(super) fn fail_calls_fast(&mut self, planned: &Planned) {
        let failed = |(key, call): &(&String, &Call)| {
            call.fail_fast && call.leg.total > 1 && self.state.call_result(key) == Some(Conclusion::Failure)
        };
        let failed: Vec<Call> = self.state.calls.iter().filter(failed).map(|(_, call)| call.clone()).collect();
        for call in failed {
            let reason = Reason::Cancelled(format!("\"{}\" failed, and its matrix fails fast", call.name));
            let others: Vec<String> = self
                .state
                .calls_of(&call.within, local(&call.id))
                .filter(|(key, other)| other.ended.is_none() && self.state.call_result(key).is_none())
                .map(|(key, _)| key.clone())
                .collect();
            for other in others {
                if let Some(call) = self.state.calls.get_mut(&other) {
                    call.held = false;
                    call.ended = Some(reason.clone());
                }
                let below: Vec<String> = self.state.below(&other).map(|(key, _)| key.clone()).collect();
                for key in below {
                    if !self.wanted_after_cancel(planned, &key) {
                        self.stop(&key, reason.clone());
                    }
                }
            }
        }
    }
}
