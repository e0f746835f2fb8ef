//! What a worker is told about a job, secrets aside.

use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use workflow::plan::{self, JobOrder, Leg, SourceRef};

use super::{Planned, State};

/// The order for the current attempt of a job; `None` where the run has no such job or no plan.
pub fn order(state: &State, key: &str) -> Option<JobOrder> {
    let planned = state.planned.as_ref()?;
    let job = state.jobs.get(key)?;
    let written = planned.plan.jobs.get(&job.id)?;
    let attempt = job.attempts.last().map_or(1, |attempt| attempt.number);
    let mut contexts = state.contexts(planned, &job.id, written);
    contexts.insert("matrix".into(), Value::Object(job.leg.matrix.clone()));
    contexts.insert("strategy".into(), strategy(&job.leg, job.fail_fast, job.max_parallel));
    let mut notices: Vec<String> = state.request.notices.iter().chain(&planned.notices).cloned().collect();
    if state.secrets && !planned.trusted {
        notices.push("This commit is not in the maintainers' state: the job gets no secrets.".into());
    }
    if attempt > 1 {
        let why = job.attempts.iter().rev().find_map(|attempt| attempt.lost.as_ref());
        let why = why.map(|reason| format!(": {}", super::ending::sentence(reason))).unwrap_or_default();
        notices.push(format!("This is attempt {attempt}; the one before was lost{why}."));
    }
    Some(JobOrder {
        run: state.id.clone(),
        key: key.to_owned(),
        id: job.id.clone(),
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
        workflow_env: planned.plan.env.clone(),
        workflow_defaults: planned.plan.defaults.clone(),
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

/// The `strategy` context of a leg (GitHub docs: contexts). Without `max-parallel` it is the number of legs.
pub(super) fn strategy(leg: &Leg, fail_fast: bool, max_parallel: Option<usize>) -> Value {
    json!({
        "fail-fast": fail_fast,
        "job-index": leg.index,
        "job-total": leg.total,
        "max-parallel": max_parallel.unwrap_or(leg.total),
    })
}

impl State {
    /// `github`, `needs`, `inputs` and `vars` as a job sees them.
    pub(super) fn contexts(&self, planned: &Planned, id: &str, job: &plan::Job) -> Map<String, Value> {
        let mut contexts = self.contexts_of_run(planned);
        if let Some(Value::Object(github)) = contexts.get_mut("github") {
            github.insert("job".into(), id.into());
        }
        let needs: Map<String, Value> = job.needs.iter().map(|need| (need.clone(), self.need(need))).collect();
        contexts.insert("needs".into(), needs.into());
        contexts
    }

    /// `github`, `inputs` and `vars` as the keys above the jobs see them.
    pub(super) fn contexts_of_run(&self, planned: &Planned) -> Map<String, Value> {
        let vars: Map<String, Value> =
            self.request.env.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let mut contexts = Map::new();
        contexts.insert("github".into(), planned.github.clone().into());
        contexts.insert("inputs".into(), planned.inputs.clone().into());
        contexts.insert("vars".into(), vars.into());
        contexts
    }

    /// `needs.<id>`: of a matrix, the last leg to end that set an output to something wins.
    fn need(&self, id: &str) -> Value {
        let mut reports: Vec<_> =
            self.jobs.values().filter(|job| job.id == id).filter_map(|job| job.report()).collect();
        reports.sort_by_key(|report| report.finished_at_ms);
        let mut outputs: IndexMap<&str, &str> = IndexMap::new();
        for (name, value) in reports.iter().flat_map(|report| &report.outputs) {
            let known = outputs.entry(name).or_default();
            if !value.is_empty() {
                *known = value;
            }
        }
        json!({ "result": self.result(id).map(|result| result.as_str()).unwrap_or_default(), "outputs": outputs })
    }
}
