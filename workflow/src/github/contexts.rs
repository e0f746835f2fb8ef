//! The contexts and status functions of a workflow's and a job's own keys (GitHub docs: contexts, context
//! availability), and the contexts that a worker gets for the steps.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use crate::dialect::job_context::{InstanceContext, JobContext, JobOrigin, JobResult, ResultsBefore, RunContext};
use crate::dialect::workflow_ref::WorkflowRef;
use crate::expression::{EvaluationLimits, HostFunctionError, HostFunctions, Object, Scope, Value, total};
use crate::plan::value_size;

use super::workflow_ref;

/// What is known where a key is evaluated. Clones share the values.
#[derive(Debug, Clone)]
pub(super) struct EvalContext {
    contexts: Vec<(String, Arc<Json>)>,
    /// The same, as expressions see them.
    values: Object,
    before: ResultsBefore,
}

impl EvalContext {
    /// Of a whole file: `github`, `inputs` and `vars`, which its jobs see too.
    pub(super) fn of_run(run: &RunContext<'_>) -> Self {
        Self::of(run, None)
    }

    fn of(run: &RunContext<'_>, job: Option<&str>) -> Self {
        let mut context = Self { contexts: Vec::new(), values: Object::new(), before: ResultsBefore::default() };
        let mut github = run.context.clone();
        if let Some(job) = job {
            github.insert("job".into(), job.into());
        }
        context.insert("github", github);
        context.insert("inputs", run.inputs.clone());
        context.insert("vars", run.vars.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect());
        context
    }

    /// Of a job, before its matrix is known.
    pub(super) fn of_job(job: &JobContext<'_>) -> Self {
        let mut context = Self { before: job.before, ..Self::of(&job.run, Some(job.id)) };
        context.insert("needs", job.needs.iter().map(|(id, need)| (id.clone(), result(need))).collect());
        context
    }

    /// Of one instance of a job.
    pub(super) fn of_instance(job: &JobContext<'_>, instance: &InstanceContext<'_>) -> Self {
        Self::of_job(job).with_instance(instance)
    }

    /// The same for one instance. Without `max-parallel` the `strategy` context has the number of cells there.
    pub(super) fn with_instance(mut self, instance: &InstanceContext<'_>) -> Self {
        let cell = instance.cell;
        self.insert("matrix", cell.matrix.clone());
        let strategy = json!({
            "fail-fast": instance.fail_fast,
            "job-index": cell.index,
            "job-total": cell.total,
            "max-parallel": instance.max_parallel.unwrap_or(cell.total),
        });
        self.set("strategy", strategy);
        self
    }

    /// The same after other jobs ended so.
    pub(super) fn after(mut self, before: ResultsBefore) -> Self {
        self.before = before;
        self
    }

    /// Adds a context.
    pub(super) fn insert(&mut self, name: &str, values: Map<String, Json>) {
        self.set(name, values.into());
    }

    fn set(&mut self, name: &str, value: Json) {
        // What is too much is no value either: whoever evaluates something is told.
        if total::take(value_size(&value) / 64).is_ok() {
            self.values.insert(name, Value::from_json(&value));
        }
        self.contexts.push((name.to_owned(), Arc::new(value)));
    }

    /// Evaluates something with what is known.
    pub(super) fn evaluate<T, E: ToString>(
        &self,
        question: impl FnOnce(&Scope<'_>) -> Result<T, E>,
    ) -> Result<T, String> {
        total::take(1).map_err(|error| error.to_string())?;
        let scope = Scope { contexts: &self.values, functions: &self.before, limits: EvaluationLimits::default() };
        question(&scope).map_err(|error| error.to_string())
    }
}

impl HostFunctions for ResultsBefore {
    fn call(&self, name: &str, _args: &[Value]) -> Option<Result<Value, HostFunctionError>> {
        let answer = match name.to_ascii_lowercase().as_str() {
            "always" => true,
            "success" => self.success,
            "failure" => self.failure,
            "cancelled" => self.cancelled,
            _ => return None,
        };
        Some(Ok(Value::Bool(answer)))
    }
}

/// `needs.<id>`, or `jobs.<id>` of a called workflow.
pub(super) fn result(job: &JobResult) -> Json {
    json!({ "result": job.result.map(|result| result.as_str()).unwrap_or_default(), "outputs": job.outputs })
}

/// The contexts `github`, `needs`, `strategy`, `matrix`, `inputs` and `vars`, and of `job` what is known before a worker
/// has it.
pub(crate) fn of_steps(
    job: &JobContext<'_>,
    instance: &InstanceContext<'_>,
    origin: &JobOrigin<'_>,
) -> Map<String, Json> {
    let known = EvalContext::of_instance(job, instance).contexts;
    let mut contexts: Map<String, Json> =
        known.into_iter().map(|(name, value)| (name, Arc::unwrap_or_clone(value))).collect();
    contexts.insert("job".into(), identity(&job.run, origin));
    contexts
}

/// Who a job is, as its `job` context tells it (GitHub docs: contexts, job): the file that it stands in, which for a
/// called workflow's job is the called one, and a number that no other job has.
fn identity(run: &RunContext<'_>, origin: &JobOrigin<'_>) -> Json {
    let path = &run.file.path;
    let place = workflow_ref::from_name(path).unwrap_or_else(|_| WorkflowRef::local(path));
    let own = run.context.get("repository").and_then(Json::as_str).unwrap_or_default().to_owned();
    let (repository, name, commit) = match (&place.remote, origin.definition) {
        (Some(remote), _) => {
            let commit = origin.remotes.get(&remote.to_string()).cloned().unwrap_or_default();
            (remote.repository.clone(), place.to_string(), commit)
        }
        (None, Some(definition)) => {
            let name = format!("{own}/{}@nostr:{definition}", place.path);
            (own, name, definition.to_owned())
        }
        (None, None) => {
            let name = format!("{own}/{}@{}", place.path, origin.reference);
            (own, name, origin.commit.to_owned())
        }
    };
    json!({
        "workflow_ref": name,
        "workflow_sha": commit,
        "workflow_repository": repository,
        "workflow_file_path": place.path,
        "check_run_id": origin.number,
    })
}
