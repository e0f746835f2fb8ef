//! A static summary of a workflow: its jobs, as far as they are known without running anything.

use serde::Serialize;

/// A static summary of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// Its name.
    pub name: String,
    /// Events that it is for.
    pub on: Vec<String>,
    /// What who starts it by hand may set.
    pub inputs: Vec<InputOutline>,
    /// Its jobs in their order.
    pub jobs: Vec<JobOutline>,
}

/// A declared input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InputOutline {
    /// Its name.
    pub name: String,
    /// `string`, `boolean`, `number`, `choice` or `environment`.
    pub kind: String,
    /// Whether the workflow wants it set.
    pub required: bool,
    /// Its default, as text.
    pub default: Option<String>,
    /// What may be chosen.
    pub options: Vec<String>,
}

/// A static summary of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobOutline {
    /// Its id.
    pub id: String,
    /// Jobs that it waits for.
    pub needs: Vec<String>,
    /// Number of its steps; none where it calls a workflow.
    pub steps: Option<usize>,
    /// The workflow that it calls.
    pub calls: Option<String>,
    /// Cells of its matrix; none where the number is known only at run time.
    pub legs: Option<usize>,
}
