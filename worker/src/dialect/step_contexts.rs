//! The contexts and variables of a job's steps.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value};
use workflow::expression::Object;

use crate::sandbox::{JobPaths, SandboxKind};

/// Contexts and default variables of one job.
pub(crate) trait StepContexts: Send + Sync {
    /// The same, once the paths of the job are known, and scheme, host and port at which its programs reach the services;
    /// `None`: the usual ones.
    fn located(&self, sandbox: SandboxKind, paths: &JobPaths, origin: Option<&str>) -> Arc<dyn StepContexts>;

    /// What is the same for all steps.
    fn of_job(&self) -> &Object;

    /// What one step sees.
    fn of_step(&self, step: &StepView<'_>) -> Object;

    /// Sets the variables that no `env` changes.
    fn set_variables(&self, variables: &mut IndexMap<String, String>, frame: &StepFrame, name: &str);

    /// The file that tells of the run's event: its path and its content.
    fn event_file(&self) -> Option<(String, Vec<u8>)>;
}

/// A step, as its expressions see it.
pub(crate) struct StepView<'a> {
    /// Where it stands.
    pub(crate) frame: &'a StepFrame,
    /// One of [`step_names`](super::step_dialect::StepDialect::step_names), or made of one.
    pub(crate) name: &'a str,
    /// How its job or its action stands.
    pub(crate) status: JobStatus,
    /// Its variables.
    pub(crate) env: Object,
    /// Id of the job's container; empty: the job names none.
    pub(crate) container: &'a str,
    /// The job's services by their names.
    pub(crate) services: &'a Map<String, Value>,
    /// Number of its next process.
    pub(crate) number: &'a str,
}

/// Where expressions are evaluated: a job's steps, or a composite action's.
#[derive(Debug, Clone, Default)]
pub(crate) struct StepFrame {
    /// Steps that ended, by their ids.
    pub(crate) steps: Object,
    /// Inputs of the composite action; `None`: the job's.
    pub(crate) inputs: Option<Object>,
    /// `env` of the steps that use the action, around it.
    pub(crate) env: IndexMap<String, String>,
    /// The action that the steps or the program belong to.
    pub(crate) action: Option<ActionFolder>,
}

/// An action in the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ActionFolder {
    /// Its folder, as steps see it.
    pub(crate) path: String,
    /// Where it comes from, as written; empty: the workspace.
    pub(crate) repository: String,
    /// Branch, tag or commit there, as written.
    pub(crate) reference: String,
}

/// How a job (or a composite action) stands, as the status functions see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobStatus {
    /// Nothing failed yet.
    Success,
    /// A step failed.
    Failure,
    /// The job was cancelled, or its time is over.
    Cancelled,
}

impl JobStatus {
    /// In one word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
        }
    }
}
