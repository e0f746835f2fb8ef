//! One step: where it stands, and how it ended.

use indexmap::IndexMap;
use tokio::time::Instant;
use workflow::plan::Conclusion;

use crate::dialect::step_contexts::{JobStatus, StepFrame};

/// How a step ended, before `continue-on-error`.
pub(super) struct StepResult {
    pub(super) outcome: Conclusion,
    pub(super) exit_code: Option<i32>,
    pub(super) outputs: IndexMap<String, String>,
}

impl StepResult {
    pub(super) fn new(outcome: Conclusion) -> Self {
        Self { outcome, exit_code: None, outputs: IndexMap::new() }
    }
}

/// Where a step stands and what it runs with.
pub(super) struct StepScope<'s> {
    /// Number of the step of the job that this is, or is part of.
    pub(super) index: i32,
    /// Its way from the job's steps through composite actions, e.g. `3/0`.
    pub(super) key: String,
    pub(super) place: &'s StepFrame,
    pub(super) env: IndexMap<String, String>,
    /// What its programs are told that it is called.
    pub(super) action: String,
    /// Before the step, of the job or the composite action.
    pub(super) status: JobStatus,
    pub(super) deadline: Option<Instant>,
    /// How many composite actions are around it.
    pub(super) depth: usize,
}

impl<'s> StepScope<'s> {
    /// Of a step of the job itself.
    pub(super) fn new(index: i32, place: &'s StepFrame, status: JobStatus) -> Self {
        let (key, env, action) = (index.to_string(), IndexMap::new(), String::new());
        Self { index, key, place, env, action, status, deadline: None, depth: 0 }
    }
}

/// A step that ended.
pub(super) struct FinishedStep {
    pub(super) name: String,
    pub(super) end: StepResult,
    pub(super) conclusion: Conclusion,
}
