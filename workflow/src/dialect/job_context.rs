//! What a run tells its language about a job: the state that the job's keys may depend on.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::plan::{Conclusion, Job, MatrixCell, Plan};

/// What every job of a file may see.
#[derive(Debug, Clone, Copy)]
pub struct RunContext<'a> {
    /// The file: the run's own, or one that it calls.
    pub file: &'a Plan,
    /// [`RunStart::context`](super::run_start::RunStart::context) of the run.
    pub context: &'a Map<String, Value>,
    /// The file's inputs.
    pub inputs: &'a Map<String, Value>,
    /// Variables of the request.
    pub vars: &'a IndexMap<String, String>,
}

/// What the keys of one job may see.
#[derive(Debug, Clone)]
pub struct JobContext<'a> {
    /// What all jobs of its file see.
    pub run: RunContext<'a>,
    /// Its id in the file.
    pub id: &'a str,
    /// The job as written.
    pub job: &'a Job,
    /// The jobs that it names in `needs`.
    pub needs: IndexMap<String, JobResult>,
    /// How those before it ended, at any distance.
    pub before: ResultsBefore,
}

/// What another job sees of one that ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobResult {
    /// How it ended; `None`: it has not.
    pub result: Option<Conclusion>,
    /// Its outputs.
    pub outputs: IndexMap<String, String>,
}

/// How the jobs before a job ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResultsBefore {
    /// All of them succeeded, and nothing was cancelled.
    pub success: bool,
    /// One of them failed.
    pub failure: bool,
    /// The run was cancelled, or the call that the job stands in.
    pub cancelled: bool,
}

/// Which instance of its job is asked about.
#[derive(Debug, Clone, Copy)]
pub struct InstanceContext<'a> {
    /// Its values and its place.
    pub cell: &'a MatrixCell,
    /// Whether its failure ends the others.
    pub fail_fast: bool,
    /// How many may run at a time; `None`: all.
    pub max_parallel: Option<usize>,
}

/// Where the file of a job comes from, and a number that no other job has.
#[derive(Debug, Clone, Copy)]
pub struct JobOrigin<'a> {
    /// The run's commit, in full.
    pub commit: &'a str,
    /// The run's ref, in full.
    pub reference: &'a str,
    /// Id of the definition that stands for the file.
    pub definition: Option<&'a str>,
    /// Repositories of called workflows, `owner/repo@ref`, and the commits they stood for.
    pub remotes: &'a IndexMap<String, String>,
    /// Tells the job from all others.
    pub number: u64,
}
