//! A workflow with all it calls, and what is needed to read them.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use crate::diagnostic::Diagnostic;
use crate::plan::Plan;

use super::workflow_ref::WorkflowRef;

/// Texts of called files; an error where there is none.
pub type CalledFiles = BTreeMap<WorkflowRef, Result<String, UnavailableFile>>;

/// Why the text of a called file is not available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnavailableFile {
    /// It can't be read, so its caller can't run: an error.
    Missing(String),
    /// It was left out on purpose; its caller is not checked against it: a warning.
    Skipped(String),
}

/// The result of reading a file with the called files that are known so far.
#[derive(Debug)]
pub enum GraphBuild {
    /// Read again, with these files as well.
    NeedsFiles(Vec<WorkflowRef>),
    /// Every file was read. There is a graph unless a diagnostic is an error.
    Done(Option<Box<CallGraph>>, Vec<Diagnostic>),
}

/// A workflow and all workflows it calls.
#[derive(Debug, Clone, PartialEq)]
pub struct CallGraph {
    /// The workflow itself. In it and in the workflows it calls, `uses:` of a job is a key of [`CallGraph::called`],
    /// or refers to a file that was left out.
    pub plan: Plan,
    /// Called workflows by the text of their [`WorkflowRef`].
    pub called: IndexMap<String, Plan>,
}
