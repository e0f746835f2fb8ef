//! How a run begins: what is built, what starts it, and what its expressions will see.

use indexmap::IndexMap;
use serde_json::{Map, Value};

/// What is built, and for whom.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// Name of the repository, `<owner>/<name>`.
    pub repository: String,
    /// Whose it is.
    pub owner: String,
    /// Who starts the run.
    pub actor: String,
    /// Full commit id.
    pub commit: String,
    /// Full ref.
    pub reference: String,
    /// The default branch's full ref, where known.
    pub default_branch: Option<String>,
    /// Message and author name of the commit.
    pub description: Option<(String, String)>,
    /// The commit's first parent, where it has one.
    pub parent: Option<String>,
    /// The commit of the default branch, where known.
    pub default_tip: Option<String>,
    /// Id of the definition that stands for the workflow file, where the commit's own does not count.
    pub definition: Option<String>,
}

/// Numbers that a run has from the store.
#[derive(Debug, Clone, Copy)]
pub struct RunNumbers {
    /// Unique among all runs; a rerun has that of the run it repeats.
    pub serial: u64,
    /// Counts the runs of one workflow of one repository.
    pub number: u64,
    /// From 1; a rerun has the next.
    pub attempt: u32,
}

/// What starts a workflow.
#[derive(Debug, Clone, Default)]
pub struct RunTrigger {
    /// Name of the event.
    pub event: String,
    /// Inputs as given; `None`: defaults.
    pub inputs: Option<IndexMap<String, String>>,
    /// Variables of the request.
    pub vars: IndexMap<String, String>,
    /// Laid over the event's payload.
    pub payload: Option<Value>,
}

/// What holds for a whole run from its beginning.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunStart {
    /// Inputs, typed.
    pub inputs: Map<String, Value>,
    /// What the language's expressions see of the run, without what differs between jobs and without secrets.
    pub context: Map<String, Value>,
    /// The run's own name, where its workflow gives one.
    pub title: Option<String>,
}
