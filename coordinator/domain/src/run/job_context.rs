//! What a run tells the language of its workflow about a job: how the jobs before it ended, and what they left.

use std::collections::{BTreeSet, HashMap};

use indexmap::IndexMap;
use workflow::{
    dialect::{
        job_context::{InstanceContext, JobContext, JobResult, ResultsBefore, RunContext},
        job_instance::JobKeyError,
    },
    plan::{self, Conclusion, Plan, Reason},
};

use crate::id::JobKey;

use super::{Job, MAX_NEEDED_OUTPUTS, Planned, RunState, ending};

impl RunState {
    /// What every job of the file `parent_call` may see. `None`: there is no such file.
    pub(super) fn run_context<'r>(&'r self, planned: &'r Planned, parent_call: &JobKey) -> Option<RunContext<'r>> {
        Some(RunContext {
            file: self.file(planned, parent_call)?,
            context: &planned.context,
            inputs: self.inputs(planned, parent_call),
            vars: self.variables(planned),
        })
    }

    /// What the keys of a job of the file `parent_call` may see. `None`: there is no such job.
    pub(super) fn job_context<'r>(
        &'r self,
        planned: &'r Planned,
        parent_call: &JobKey,
        id: &'r str,
    ) -> Option<JobContext<'r>> {
        let run = self.run_context(planned, parent_call)?;
        let job = run.file.jobs.get(id)?;
        let needs = job.needs.iter().map(|need| (need.clone(), self.job_result(planned, parent_call, need)));
        Some(JobContext { run, id, job, needs: needs.collect(), before: self.before(run.file, parent_call, job) })
    }

    /// Why a job can't run: what it would read of the jobs that it needs, and of those within workflows called there, is
    /// more than a worker can be sent.
    pub(super) fn needs_too_much(&self, planned: &Planned, parent_call: &JobKey, id: &str) -> Option<Reason> {
        let job = self.file(planned, parent_call)?.jobs.get(id)?;
        let size = |job: &Job| job.outcome().map_or(0, |outcome| ending::size(&outcome.outputs));
        let of_need = |need: &String| {
            let own: usize = self.jobs_of(parent_call, need).map(|(_, job)| size(job)).sum();
            let calls = self.calls_of(parent_call, need).flat_map(|(call, _)| self.below(call));
            own + calls.map(|(_, job)| size(job)).sum::<usize>()
        };
        let needed: usize = job.needs.iter().map(of_need).sum();
        (needed > MAX_NEEDED_OUTPUTS).then(|| {
            Reason::Invalid(format!(
                "jobs.{id}.needs: the outputs of the jobs that it needs have {needed} bytes together, and it may read {} \
                 MiB: need fewer jobs, or hand large values on as artifacts",
                MAX_NEEDED_OUTPUTS >> 20
            ))
        })
    }

    /// How the jobs before a job ended. A job that ends early is cancelled for those that still start.
    fn before(&self, file: &Plan, parent_call: &JobKey, job: &plan::Job) -> ResultsBefore {
        let cancelled = self.is_ending(parent_call);
        let ancestors = ancestors(file, job);
        let all = if ancestors.is_empty() { HashMap::new() } else { self.results() };
        let result = |ancestor| all.get(&(parent_call, ancestor)).copied().flatten();
        let results: Vec<_> = ancestors.into_iter().filter_map(result).collect();
        ResultsBefore {
            success: !cancelled && results.iter().all(|&result| result == Conclusion::Success),
            failure: results.contains(&Conclusion::Failure),
            cancelled,
        }
    }

    /// What others see of a job: of its instances, the last one to end that set an output to something wins.
    pub(super) fn job_result(&self, planned: &Planned, parent_call: &JobKey, id: &str) -> JobResult {
        let ended = |job: &Job| job.outcome().map_or(0, |outcome| outcome.finished_at);
        let own =
            self.jobs_of(parent_call, id).filter_map(|(_, job)| Some((ended(job), job.outcome()?.outputs.clone())));
        let of_calls = self.calls_of(parent_call, id).map(|(key, _)| {
            let last = self.below(key).map(|(_, job)| ended(job)).max().unwrap_or_default();
            (last, self.call_outputs(planned, key))
        });
        let mut instances: Vec<_> = own.chain(of_calls).collect();
        instances.sort_by_key(|(ended, _)| *ended);
        let mut outputs: IndexMap<String, String> = IndexMap::new();
        for (name, value) in instances.into_iter().flat_map(|(_, outputs)| outputs) {
            let known = outputs.entry(name).or_default();
            if !value.is_empty() {
                *known = value;
            }
        }
        JobResult { result: self.result(parent_call, id), outputs }
    }
}

impl Job {
    /// Which instance of the job as written it is.
    pub(super) fn instance(&self) -> InstanceContext<'_> {
        InstanceContext { cell: &self.cell, fail_fast: self.fail_fast, max_parallel: self.max_parallel }
    }
}

/// Why a job can't run: one of its keys has no value.
pub(super) fn invalid(id: &str, error: &JobKeyError) -> Reason {
    Reason::Invalid(format!("jobs.{id}.{error}"))
}

/// Every job of the same file that must end before this one, at any distance.
fn ancestors<'a>(file: &'a Plan, job: &'a plan::Job) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = job.needs.iter().map(String::as_str).collect();
    while let Some(id) = open.pop() {
        if found.insert(id) {
            open.extend(file.jobs.get(id).into_iter().flat_map(|job| job.needs.iter().map(String::as_str)));
        }
    }
    found
}
