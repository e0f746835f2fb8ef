//! What the run knows, as the expression language sees it.

use serde_json::{Map, Value};
use workflow::{
    expression::{self, EvaluationLimits, HostFunctionError, HostFunctions, Object},
    plan::MatrixCell,
};

/// What the job-level keys of a job may see.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) contexts: Map<String, Value>,
    pub(super) status: Status,
}

/// What the status functions answer for a job.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Status {
    pub(super) success: bool,
    pub(super) failure: bool,
    pub(super) cancelled: bool,
}

impl HostFunctions for Status {
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

impl Known {
    /// Adds what a cell knows of itself.
    pub(super) fn add_matrix(&mut self, cell: &MatrixCell, fail_fast: bool, max_parallel: Option<usize>) {
        self.contexts.insert("matrix".into(), Value::Object(cell.matrix.clone()));
        self.contexts.insert("strategy".into(), super::order::strategy(cell, fail_fast, max_parallel));
    }

    /// Asks something of a job with what is known of the run.
    pub(super) fn ask<T, E: ToString>(
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
