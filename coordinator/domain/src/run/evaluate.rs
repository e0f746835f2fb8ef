//! What the run knows, as the expression language sees it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use workflow::{
    expression::{self, EvaluationLimits, HostFunctionError, HostFunctions, Object},
    plan::{self, Conclusion, MatrixCell, Plan, Reason},
};

use super::{Planned, RunState};

/// What the job-level keys of a job may see.
#[derive(Debug, Clone, Default)]
pub(super) struct EvalContext {
    pub(super) contexts: Map<String, Value>,
    pub(super) status: StatusFunctions,
}

/// What the status functions answer for a job.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StatusFunctions {
    pub(super) success: bool,
    pub(super) failure: bool,
    pub(super) cancelled: bool,
}

impl HostFunctions for StatusFunctions {
    fn call(&self, name: &str, _args: &[expression::Value]) -> Option<Result<expression::Value, HostFunctionError>> {
        let answer = match name.to_ascii_lowercase().as_str() {
            "always" => true,
            "success" => self.success,
            "failure" => self.failure,
            "cancelled" => self.cancelled,
            _ => return None,
        };
        Some(Ok(expression::Value::Bool(answer)))
    }
}

impl EvalContext {
    /// Adds what a cell knows of itself.
    pub(super) fn add_matrix(&mut self, cell: &MatrixCell, fail_fast: bool, max_parallel: Option<usize>) {
        self.contexts.insert("matrix".into(), Value::Object(cell.matrix.clone()));
        self.contexts.insert("strategy".into(), strategy(cell, fail_fast, max_parallel));
    }

    /// Asks something of a job with what is known of the run.
    pub(super) fn evaluate<T, E: ToString>(
        &self,
        question: impl FnOnce(&expression::Scope<'_>) -> Result<T, E>,
    ) -> Result<T, String> {
        let contexts: Object =
            self.contexts.iter().map(|(name, value)| (name.as_str(), expression::Value::from_json(value))).collect();
        let scope =
            expression::Scope { contexts: &contexts, functions: &self.status, limits: EvaluationLimits::default() };
        question(&scope).map_err(|error| error.to_string())
    }
}

/// The `strategy` context of a matrix cell (GitHub docs: contexts). Without `max-parallel` it is the number of cells.
pub(super) fn strategy(cell: &MatrixCell, fail_fast: bool, max_parallel: Option<usize>) -> Value {
    json!({
        "fail-fast": fail_fast,
        "job-index": cell.index,
        "job-total": cell.total,
        "max-parallel": max_parallel.unwrap_or(cell.total),
    })
}

/// Why a job can't run: the value of one of its keys can't be evaluated.
pub(super) fn invalid(id: &str, key: &str, why: &str) -> Reason {
    Reason::Invalid(format!("jobs.{id}.{key}: {why}"))
}

/// Every job of the same file that must end before this one, at any distance.
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
pub(super) fn eval_context(
    state: &RunState,
    planned: &Planned,
    parent_call: &str,
    id: &str,
    job: &plan::Job,
) -> EvalContext {
    let cancelled = state.is_ending(parent_call);
    let before = state.file(planned, parent_call).map(|plan| ancestors(plan, job)).unwrap_or_default();
    let results: Vec<_> = before.into_iter().filter_map(|ancestor| state.result(parent_call, ancestor)).collect();
    let status = StatusFunctions {
        success: !cancelled && results.iter().all(|&result| result == Conclusion::Success),
        failure: results.contains(&Conclusion::Failure),
        cancelled,
    };
    EvalContext { contexts: state.contexts(planned, parent_call, id, job), status }
}
