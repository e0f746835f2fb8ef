//! Called workflows: their jobs are jobs of the run, each in the file it stands in.
//!
//! A job that calls a workflow is laid out as its cells like any other. Where a worker would get the cell of another job,
//! a [`CalledWorkflow`] takes this one's place, and the called workflow's jobs are laid out below it. `parent_call` is the key of the call that
//! a job belongs to; empty: the run's own file.

use std::{collections::HashMap, sync::Arc};

use indexmap::IndexMap;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use workflow::{
    dialect::{
        job_context::{InstanceContext, JobContext},
        job_instance::{JobKeyError, PassedSecrets},
    },
    plan::{self, Conclusion, JobContent, MatrixCell, Plan, Reason},
};

use crate::id::JobKey;

use super::{
    GroupClaim, Job, Planned, RunState, ending::worse, job_context::invalid, job_id::job_id, transition::Transition,
};

/// Jobs of a run, cells and those of called workflows among them.
const MAX_JOBS: usize = 4096;
/// Bytes of the values of their cells, of names that may be made of them, and of inputs of calls.
const MAX_VALUES: usize = 4 << 20;
/// So few bytes are not added to those of the others.
const FEW: usize = 1024;
/// Stands for a token that only the attempt knows, while it is looked at who is handed it.
const JOB_TOKEN: &str = "\u{1}the job's own token\u{1}";
/// Bytes of a key, which names folders and files.
const MAX_KEY: usize = 180;

/// A called workflow whose jobs are laid out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalledWorkflow {
    /// Id of the job that calls, behind those of the calls it stands in: `outer/inner`.
    pub id: String,
    /// Key of the call it stands in; empty: none.
    #[serde(rename = "within")]
    pub parent_call: JobKey,
    /// Which of [`Planned::called`].
    pub workflow: String,
    /// Display name.
    pub name: String,
    /// The caller's cell.
    #[serde(rename = "leg")]
    pub cell: MatrixCell,
    /// Whether its failure ends the other cells.
    pub fail_fast: bool,
    /// How many cells may be under way at a time; `None`: all.
    pub max_parallel: Option<usize>,
    /// Its concurrency group, where the caller names one.
    pub claim: Option<GroupClaim>,
    /// The `inputs` context of the called workflow.
    pub inputs: Map<String, Value>,
    /// Why its jobs were ended before they all had run.
    pub ended: Option<Reason>,
}

impl RunState {
    /// The job as its file has it.
    pub fn written<'p>(&self, planned: &'p Planned, job: &Job) -> Option<&'p plan::Job> {
        self.file(planned, &job.parent_call)?.jobs.get(job_id(&job.id))
    }

    /// The workflow that a job belongs to.
    pub(super) fn file<'p>(&self, planned: &'p Planned, parent_call: &JobKey) -> Option<&'p Plan> {
        if parent_call.is_empty() {
            return Some(&planned.plan);
        }
        planned.called.get(&self.calls.get(parent_call)?.workflow)
    }

    pub(super) fn inputs<'p>(&'p self, planned: &'p Planned, parent_call: &JobKey) -> &'p Map<String, Value> {
        self.calls.get(parent_call).map_or(&planned.inputs, |call| &call.inputs)
    }

    /// Whether so many jobs may take the place of one.
    pub(super) fn room_for(&self, id: &str, jobs: usize) -> Result<(), Reason> {
        match self.jobs.len().saturating_add(jobs).saturating_sub(1) > MAX_JOBS {
            true => {
                Err(invalid(id, &JobKeyError::new("strategy", format!("the run would have more than {MAX_JOBS} jobs"))))
            }
            false => Ok(()),
        }
    }

    /// Whether these cells may take the place of their job.
    pub(super) fn room_for_cells(&self, id: &str, cells: &[(JobKey, Job)]) -> Result<(), Reason> {
        self.room_for(id, cells.len())?;
        self.room_for_values(id, cells.iter().map(|(_, job)| job.values_size()).sum())
    }

    fn room_for_values(&self, id: &str, size: usize) -> Result<(), Reason> {
        if size <= FEW {
            return Ok(());
        }
        let jobs: usize = self.jobs.values().map(|job| job.values_size()).sum();
        let calls: usize = self.calls.values().map(|call| plan::values_size(&call.inputs)).sum();
        if jobs.saturating_add(calls).saturating_add(size) > MAX_VALUES {
            let why = format!("matrices and inputs of the run take more than {} MiB together", MAX_VALUES >> 20);
            return Err(invalid(id, &JobKeyError::new("strategy", why)));
        }
        Ok(())
    }

    /// Calls by a job of the file `parent_call`, with their keys.
    pub(super) fn calls_of(
        &self,
        parent_call: &JobKey,
        id: &str,
    ) -> impl Iterator<Item = (&JobKey, &Arc<CalledWorkflow>)> {
        self.calls.iter().filter(move |(_, call)| call.parent_call == *parent_call && job_id(&call.id) == id)
    }

    /// Entries of a job of the file `parent_call`, with their keys.
    pub(super) fn jobs_of(&self, parent_call: &JobKey, id: &str) -> impl Iterator<Item = (&JobKey, &Arc<Job>)> {
        self.jobs.iter().filter(move |(_, job)| job.parent_call == *parent_call && job_id(&job.id) == id)
    }

    /// Entries at any depth below a call.
    pub(super) fn below(&self, call: &JobKey) -> impl Iterator<Item = (&JobKey, &Arc<Job>)> {
        self.jobs.iter().filter(move |(key, _)| key.is_within(call))
    }

    /// How a call ended: as its jobs did. `None`: one of them has not.
    pub(super) fn call_result(&self, key: &JobKey) -> Option<Conclusion> {
        let mut result = Conclusion::Skipped;
        for (_, job) in self.below(key) {
            result = worse(job.conclusion()?, result);
        }
        let ended = self.calls.get(key).is_some_and(|call| call.ended.is_some());
        Some(if ended && result == Conclusion::Skipped { Conclusion::Cancelled } else { result })
    }

    /// As [`Self::call_result`], of all calls at once.
    pub(super) fn call_results(&self) -> HashMap<&JobKey, Option<Conclusion>> {
        let mut results: HashMap<&JobKey, Option<Conclusion>> =
            self.calls.keys().map(|key| (key, Some(Conclusion::Skipped))).collect();
        for job in self.jobs.values().filter(|job| !job.parent_call.is_empty()) {
            let one = job.conclusion();
            let mut at = &job.parent_call;
            while let Some(call) = self.calls.get(at) {
                if let Some(known) = results.get_mut(at) {
                    *known = known.zip(one).map(|(known, one)| worse(one, known));
                }
                at = &call.parent_call;
            }
        }
        for (key, _) in self.calls.iter().filter(|(_, call)| call.ended.is_some()) {
            if let Some(result @ Some(Conclusion::Skipped)) = results.get_mut(key) {
                *result = Some(Conclusion::Cancelled);
            }
        }
        results
    }

    /// Whether the jobs of a file are being ended: the run was cancelled, or a call they stand in.
    pub(super) fn is_ending(&self, parent_call: &JobKey) -> bool {
        let mut at = parent_call;
        while let Some(call) = self.calls.get(at) {
            if call.ended.is_some() {
                return true;
            }
            at = &call.parent_call;
        }
        self.cancelled.is_some()
    }

    /// Keys of the entries that must end before a job may start. One that needs none in its own file starts with its
    /// caller.
    pub fn needed_by(&self, key: &JobKey) -> Vec<&JobKey> {
        let (Some(planned), Some(job)) = (&self.planned, self.jobs.get(key)) else { return Vec::new() };
        let (mut parent_call, mut id) = (&job.parent_call, job_id(&job.id));
        let mut found = Vec::new();
        loop {
            let job = self.file(planned, parent_call).and_then(|plan| plan.jobs.get(id));
            let needs = job.map(|job| job.needs.as_slice()).unwrap_or_default();
            for need in needs {
                found.extend(self.jobs_of(parent_call, need).map(|(key, _)| key));
                let calls = self.calls_of(parent_call, need);
                found.extend(calls.flat_map(|(call, _)| self.below(call)).map(|(key, _)| key));
            }
            let Some(call) = self.calls.get(parent_call).filter(|_| needs.is_empty()) else { return found };
            (parent_call, id) = (&call.parent_call, job_id(&call.id));
        }
    }

    /// Whether an entry is a job that calls a workflow.
    pub(super) fn calls_workflow(&self, planned: &Planned, key: &JobKey) -> bool {
        let job = self.jobs.get(key).and_then(|job| self.written(planned, job));
        job.is_some_and(|job| matches!(job.work, JobContent::Call { .. }))
    }

    /// Concurrency groups, in lower case, of the run and of the calls that a job stands in: they hold them while it
    /// runs.
    pub(super) fn groups_around(&self, key: &JobKey) -> Vec<String> {
        let mut claims = vec![self.claim.as_ref()];
        let mut at = self.jobs.get(key).map(|job| &job.parent_call);
        while let Some(call) = at.and_then(|at| self.calls.get(at)) {
            claims.push(call.claim.as_ref());
            at = Some(&call.parent_call);
        }
        claims.into_iter().flatten().map(|claim| claim.ask.group.to_lowercase()).collect()
    }

    /// Outputs of a called workflow.
    pub(super) fn call_outputs(&self, planned: &Planned, key: &JobKey) -> IndexMap<String, String> {
        let Some(run) = self.run_context(planned, key) else { return IndexMap::new() };
        run.file.dialect.call_outputs(&run, |id| self.job_result(planned, key, id))
    }

    /// Which of the run's secrets a job sees, and under which names: a called workflow has those its caller hands on.
    pub fn secrets_of(&self, key: &JobKey, all: Vec<(String, SecretString)>) -> Vec<(String, SecretString)> {
        let (Some(planned), Some(job)) = (&self.planned, self.jobs.get(key)) else { return Vec::new() };
        let mut chain = Vec::new();
        let mut at = &job.parent_call;
        while let Some(call) = self.calls.get(at) {
            chain.push(call);
            at = &call.parent_call;
        }
        chain.into_iter().rev().fold(all, |secrets, call| self.passed_on(planned, call, secrets))
    }

    /// Names under which a job is handed the token of its own as a secret, by the calls around it.
    pub fn token_secrets(&self, key: &JobKey) -> Vec<String> {
        let Some(planned) = self.planned.as_ref().filter(|_| self.jobs.get(key).is_some_and(|job| job.is_called()))
        else {
            return Vec::new();
        };
        let name = planned.plan.dialect.token_secret();
        let handed = self.secrets_of(key, vec![(name.to_owned(), SecretString::from(JOB_TOKEN))]);
        let is_token = |(_, value): &(String, SecretString)| value.expose_secret() == JOB_TOKEN;
        handed.into_iter().filter(is_token).map(|(name, _)| name).collect()
    }

    fn passed_on(
        &self,
        planned: &Planned,
        call: &CalledWorkflow,
        secrets: Vec<(String, SecretString)>,
    ) -> Vec<(String, SecretString)> {
        let Some((context, instance)) = call.caller(self, planned) else { return Vec::new() };
        let all = || secrets.iter().map(|(name, value)| (name.clone(), value.expose_secret().into())).collect();
        match context.run.file.dialect.call_secrets(&context, &instance, all) {
            PassedSecrets::All => secrets,
            PassedSecrets::Named(named) => {
                named.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect()
            }
        }
    }
}

impl Job {
    /// Whether it belongs to a workflow that another one calls.
    fn is_called(&self) -> bool {
        !self.parent_call.is_empty()
    }

    /// Bytes of what may be as large as its author likes.
    fn values_size(&self) -> usize {
        let group = self.claim.as_ref().map_or(0, |claim| claim.ask.group.len());
        let labels: usize = self.labels.iter().map(String::len).sum();
        let environment = self.environment.as_ref().map_or(0, String::len);
        plan::values_size(&self.cell.matrix) + self.name.len() + labels + group + environment
    }
}

impl CalledWorkflow {
    /// The context of the job that calls it, and which instance of that job it is.
    pub(super) fn caller<'r>(
        &'r self,
        state: &'r RunState,
        planned: &'r Planned,
    ) -> Option<(JobContext<'r>, InstanceContext<'r>)> {
        let instance = InstanceContext { cell: &self.cell, fail_fast: self.fail_fast, max_parallel: self.max_parallel };
        Some((state.job_context(planned, &self.parent_call, job_id(&self.id))?, instance))
    }
}

impl Transition {
    /// Puts the called workflow's jobs where the cell of a caller stood.
    pub(super) fn call(&mut self, planned: &Planned, key: &JobKey) {
        match self.called(planned, key) {
            Ok((call, jobs)) => {
                let Some((at, ..)) = self.state.jobs.shift_remove_full(key) else { return };
                for (offset, (key, job)) in jobs.into_iter().enumerate() {
                    self.state.jobs.shift_insert(at + offset, key, Arc::new(job));
                }
                self.state.calls.insert(key.clone(), Arc::new(call));
            }
            Err(reason) => self.conclude(key, Conclusion::Failure, Some(reason), None),
        }
    }

    fn called(&self, planned: &Planned, key: &JobKey) -> Result<(CalledWorkflow, Vec<(JobKey, Job)>), Reason> {
        let wrong = |id: &str, why: &str| invalid(id, &JobKeyError::new("uses", why));
        let cell = self.state.jobs.get(key).ok_or_else(|| wrong(key.as_str(), "the job is gone"))?;
        let wrong = |why: &str| wrong(&cell.id, why);
        let context = self.state.job_context(planned, &cell.parent_call, job_id(&cell.id));
        let context = context.ok_or_else(|| wrong("the job is gone"))?;
        let JobContent::Call { uses, .. } = &context.job.work else { return Err(wrong("the job calls nothing")) };
        let plan = planned.called.get(uses).ok_or_else(|| wrong(&format!("the workflow {uses} was not read")))?;
        self.state.room_for(&cell.id, plan.jobs.len())?;
        if plan.jobs.keys().any(|inner| key.as_str().len() + inner.len() > MAX_KEY) {
            return Err(wrong("the ids of all calls around a job are too long together: shorten them"));
        }
        let inputs = plan.dialect.call_inputs(plan, &context, &cell.instance());
        let inputs = inputs.map_err(|error| invalid(&cell.id, &error))?;
        self.state.room_for_values(&cell.id, plan::values_size(&inputs))?;
        let inner = |(id, job): (&String, &plan::Job)| {
            let name = format!("{} / {}", cell.name, job.name.as_ref().unwrap_or(id));
            (key.child(id), Job::blocked(format!("{}/{id}", cell.id), key, name))
        };
        let call = CalledWorkflow {
            id: cell.id.clone(),
            parent_call: cell.parent_call.clone(),
            workflow: uses.clone(),
            name: cell.name.clone(),
            cell: cell.cell.clone(),
            fail_fast: cell.fail_fast,
            max_parallel: cell.max_parallel,
            claim: cell.claim.clone(),
            inputs,
            ended: None,
        };
        Ok((call, plan.jobs.iter().map(inner).collect()))
    }

    /// Sees to it that the jobs below a call end; what waits in it is left to its own condition.
    pub(super) fn end_call(&mut self, planned: &Planned, key: &JobKey, reason: &Reason) {
        let Some(call) = self.state.calls.get_mut(key).map(Arc::make_mut) else { return };
        call.ended = Some(reason.clone());
        let below: Vec<JobKey> = self.state.below(key).map(|(key, _)| key.clone()).collect();
        for key in below {
            if !self.wanted_after_cancel(planned, &key) {
                self.stop(&key, reason.clone());
            }
        }
    }

    /// Ends the other cells of calls that failed, where `fail-fast` says so.
    pub(super) fn fail_calls_fast(&mut self, planned: &Planned) {
        if !self.state.calls.values().any(|call| call.fail_fast && call.cell.total > 1) {
            return;
        }
        let results = self.state.call_results();
        let failed = |(key, call): &(&JobKey, &Arc<CalledWorkflow>)| {
            call.fail_fast && call.cell.total > 1 && results.get(key) == Some(&Some(Conclusion::Failure))
        };
        let failed: Vec<Arc<CalledWorkflow>> =
            self.state.calls.iter().filter(failed).map(|(_, call)| call.clone()).collect();
        for call in failed {
            let reason = Reason::Cancelled(format!("\"{}\" failed, and its matrix fails fast", call.name));
            let id = job_id(&call.id);
            let under_way = |(key, other): &(&JobKey, &Arc<CalledWorkflow>)| {
                other.ended.is_none() && self.state.call_result(key).is_none()
            };
            let others: Vec<JobKey> =
                self.state.calls_of(&call.parent_call, id).filter(under_way).map(|(key, _)| key.clone()).collect();
            for other in others {
                self.end_call(planned, &other, &reason);
            }
            let waiting: Vec<JobKey> = self.state.jobs_of(&call.parent_call, id).map(|(key, _)| key.clone()).collect();
            for key in waiting {
                self.stop(&key, reason.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
