//! What a worker is told about a job, secrets aside.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use workflow::{
    github::workflow_ref::WorkflowRef,
    plan::{self, JobOrder, Plan, SourceRef},
};

use super::{CalledWorkflow, Planned, RunState, evaluate::strategy, job_key::job_id};

/// The order for the current attempt of a job; `None` where the run has no such job or no plan.
pub fn order(state: &RunState, key: &str) -> Option<JobOrder> {
    let planned = state.planned.as_ref()?;
    let job = state.jobs.get(key)?;
    let file = state.file(planned, &job.parent_call)?;
    let id = job_id(&job.id);
    let written = file.jobs.get(id)?;
    let attempt = job.attempts.last().map_or(1, |attempt| attempt.number);
    let mut contexts = state.contexts(planned, &job.parent_call, id, written);
    contexts.insert("matrix".into(), Value::Object(job.cell.matrix.clone()));
    contexts.insert("strategy".into(), strategy(&job.cell, job.fail_fast, job.max_parallel));
    contexts.insert("job".into(), identity(state, planned, file, key));
    let mut notices: Vec<String> = state.request.notices.iter().chain(&planned.notices).cloned().collect();
    if state.secrets && !planned.trusted {
        notices.push("This commit is not in the maintainers' state: the job gets no secrets.".into());
    }
    if attempt > 1 {
        let why = job.attempts.iter().rev().find_map(|attempt| attempt.lost.as_ref());
        let why = why.map(|reason| format!(": {}", reason)).unwrap_or_default();
        notices.push(format!("This is attempt {attempt}; the one before was lost{why}."));
    }
    Some(JobOrder {
        run: state.id.clone(),
        key: key.to_owned(),
        id: id.to_owned(),
        name: job.name.clone(),
        attempt,
        dialect: planned.plan.dialect,
        workflow: planned.plan.name.clone(),
        // What holds for the whole workflow counts where the job says nothing.
        job: plan::Job {
            permissions: written.permissions.clone().or_else(|| planned.plan.permissions.clone()),
            ..written.clone()
        },
        runs_on: job.labels.clone(),
        contexts,
        request_env: state.request.env.clone(),
        workflow_env: file.env.clone(),
        workflow_defaults: file.defaults.clone(),
        timeout_ms: job.timeout_ms,
        source: SourceRef {
            repository: state.request.repository.address.clone(),
            commit: planned.commit.clone(),
            reference: planned.reference.clone(),
            trusted: planned.trusted,
        },
        notices,
    })
}

/// Who a job is, as its `job` context tells it (GitHub docs: contexts, job): the file that it stands in, which for a
/// called workflow's job is the called one, and a number that no other job has.
fn identity(state: &RunState, planned: &Planned, file: &Plan, key: &str) -> Value {
    let text = |name: &str| planned.github.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let place = WorkflowRef::from_name(&file.path).unwrap_or_else(|_| WorkflowRef::local(&file.path));
    let definition = planned.definitions.iter().find(|definition| definition.path == file.path);
    let own = text("repository");
    let (repository, name, commit) = match (place.remote.as_ref(), definition) {
        (Some(origin), _) => {
            let commit = planned.origins.get(&origin.to_string()).cloned().unwrap_or_default();
            (origin.repository.clone(), place.to_string(), commit)
        }
        (None, Some(definition)) => {
            let name = format!("{own}/{}@nostr:{}", place.path, definition.event);
            (own, name, definition.event.clone())
        }
        (None, None) => {
            let name = format!("{own}/{}@{}", place.path, planned.reference);
            (own, name, planned.commit.clone())
        }
    };
    json!({
        "workflow_ref": name,
        "workflow_sha": commit,
        "workflow_repository": repository,
        "workflow_file_path": place.path,
        "check_run_id": check_run_id(&state.id, key),
    })
}

/// Short enough that every JSON reader keeps it exactly.
fn check_run_id(run: &str, key: &str) -> u64 {
    let digest = Sha256::digest(format!("{run}/{key}"));
    digest.iter().take(6).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl RunState {
    /// `github`, `needs`, `inputs` and `vars` as a job of the file `parent_call` sees them.
    pub(super) fn contexts(
        &self,
        planned: &Planned,
        parent_call: &str,
        id: &str,
        job: &plan::Job,
    ) -> Map<String, Value> {
        let mut contexts = self.common(planned, parent_call);
        if let Some(Value::Object(github)) = contexts.get_mut("github") {
            github.insert("job".into(), id.into());
        }
        let needs = job.needs.iter().map(|need| (need.clone(), self.need(planned, parent_call, need)));
        contexts.insert("needs".into(), needs.collect::<Map<_, _>>().into());
        contexts
    }

    /// What every job of a file sees alike: of the run's event whatever the file, and the file's own inputs.
    pub(super) fn common(&self, planned: &Planned, parent_call: &str) -> Map<String, Value> {
        let vars: Map<String, Value> =
            self.request.env.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let mut contexts = Map::new();
        contexts.insert("github".into(), planned.github.clone().into());
        contexts.insert("inputs".into(), self.inputs(planned, parent_call).clone().into());
        contexts.insert("vars".into(), vars.into());
        contexts
    }

    /// `needs.<id>`: of a matrix, the last cell to end that set an output to something wins.
    pub(super) fn need(&self, planned: &Planned, parent_call: &str, id: &str) -> Value {
        let ended = |job: &super::Job| job.outcome().map_or(0, |outcome| outcome.finished_at);
        let own =
            self.jobs_of(parent_call, id).filter_map(|(_, job)| Some((ended(job), job.outcome()?.outputs.clone())));
        let of_call = |(key, _): (&String, &Arc<CalledWorkflow>)| {
            let last = self.below(key).map(|(_, job)| ended(job)).max().unwrap_or_default();
            (last, self.call_outputs(planned, key))
        };
        let mut cells: Vec<_> = own.chain(self.calls_of(parent_call, id).map(of_call)).collect();
        cells.sort_by_key(|(ended, _)| *ended);
        let mut outputs: IndexMap<String, String> = IndexMap::new();
        for (name, value) in cells.into_iter().flat_map(|(_, outputs)| outputs) {
            let known = outputs.entry(name).or_default();
            if !value.is_empty() {
                *known = value;
            }
        }
        let result = self.result(parent_call, id).map(|result| result.as_str()).unwrap_or_default();
        json!({ "result": result, "outputs": outputs })
    }
}
