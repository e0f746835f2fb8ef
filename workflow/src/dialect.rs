//! The one seam between a workflow language and everything that runs workflows.
//!
//! Whoever has a plan asks its [`Dialect`]; whoever has only a path asks [`Dialect::of_path`] first. Another language is
//! a module beside [`github`] and an arm in each function here. The modules below hold what is asked and
//! answered, and know no language.

pub mod call_graph;
pub mod command;
pub mod job_context;
pub mod job_instance;
pub mod outline;
pub mod run_start;
pub mod surroundings;
pub mod trigger;
pub mod workflow_ref;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::diagnostic::Diagnostic;
use crate::expression::NamedEntries;
use crate::github;
use crate::plan::{ConcurrencyRequest, Job, Plan};

pub use crate::plan::Dialect;

use call_graph::{CalledFiles, GraphBuild};
use command::Command;
use job_context::{InstanceContext, JobContext, JobOrigin, JobResult, RunContext};
use job_instance::{JobExpansion, JobKeyError, PassedSecrets};
use outline::Outline;
use run_start::{RunNumbers, RunStart, RunTrigger, Subject};
use surroundings::Surroundings;
use trigger::{EventDetails, TriggerDecision, TriggerEvent};

/// Folders of a repository that may hold workflow files, of all languages.
pub fn workflow_folders() -> Vec<&'static str> {
    Dialect::ALL.into_iter().flat_map(Dialect::folders).copied().collect()
}

/// Steps that all expressions may take together that one piece of work evaluates, below a second.
const EVALUATION_STEPS: usize = 3_000_000;

/// Does something within one budget for all that it evaluates: an event of a run, or the outline of a file. Beyond it each
/// evaluation is an error that says so.
pub fn within_budget<T>(work: impl FnOnce() -> T) -> T {
    crate::expression::total::within(EVALUATION_STEPS, work)
}

impl Dialect {
    /// Every language.
    pub const ALL: [Self; 1] = [Self::Github];

    /// The language of the workflow file at a path of a repository.
    ///
    /// # Errors
    /// No workflow file may lie there; the message is meant for the author.
    pub fn of_path(path: &str) -> Result<Self, String> {
        github::workflow_ref::check_path(path).map(|_| Self::Github)
    }

    /// The language of a text whose path may be any, such as a draft's.
    pub fn of_any_path(path: &str) -> Self {
        Self::of_path(path).unwrap_or_default()
    }

    /// Folders of a repository that may hold its workflow files.
    pub fn folders(self) -> &'static [&'static str] {
        match self {
            Self::Github => &github::workflow_ref::WORKFLOW_FOLDERS,
        }
    }

    /// Names of the events that it knows.
    pub fn events(self) -> &'static [&'static str] {
        match self {
            Self::Github => github::EVENTS,
        }
    }

    /// Bytes of one file, at most.
    pub fn max_file_bytes(self) -> usize {
        match self {
            Self::Github => github::LIMITS.bytes,
        }
    }

    /// Reads and checks one file by itself. The plan is there where no diagnostic is an error.
    pub fn parse(self, path: &str, text: &str) -> (Option<Plan>, Vec<Diagnostic>) {
        match self {
            Self::Github => github::parse(path, text),
        }
    }

    /// Reads and checks a file with the called files that are known. Call it again with the files it needs until it is
    /// done: each round needs at least one new file, and the number of all is limited.
    pub fn load(self, path: &str, text: &str, called: &CalledFiles) -> GraphBuild {
        match self {
            Self::Github => github::call_graph::build(path, text, called, github::call_graph::CALL_GRAPH_LIMITS),
        }
    }

    /// Adds to what was found wrong with a file what its author should know besides: it is used, and does not do what it
    /// seems to say. For who writes files; no run asks it.
    pub fn lint(self, path: &str, text: &str, found: Vec<Diagnostic>, around: &dyn Surroundings) -> Vec<Diagnostic> {
        match self {
            Self::Github => github::lint::lint(path, text, found, around),
        }
    }

    /// The workflow that runs one program.
    pub fn command(self, command: &Command<'_>) -> GraphBuild {
        match self {
            Self::Github => github::command::build(command),
        }
    }

    /// What who starts a workflow by hand may set.
    #[must_use]
    pub fn dispatch_inputs(self, plan: &Plan) -> Vec<outline::InputOutline> {
        match self {
            Self::Github => github::outline::inputs(plan),
        }
    }

    /// What a plan would run.
    pub fn outline(self, plan: &Plan) -> Outline {
        match self {
            Self::Github => github::outline::outline(plan),
        }
    }

    /// Whether an event starts the workflow.
    pub fn decide_trigger(self, plan: &Plan, event: &TriggerEvent<'_>) -> TriggerDecision {
        match self {
            Self::Github => github::trigger_filter::decide(plan, event),
        }
    }

    /// What the workflow sees of an event that was noticed, as [`RunTrigger::payload`].
    pub fn event_payload(self, details: &EventDetails) -> Value {
        match self {
            Self::Github => github::trigger_payload::payload(details),
        }
    }

    /// Name of the event that a request by hand stands for; `trigger` is what it asks for.
    pub fn start_event(self, plan: &Plan, trigger: Option<&str>) -> String {
        match self {
            Self::Github => github::workflow_dispatch::start_event(plan, trigger).to_owned(),
        }
    }

    /// What holds for a whole run from its beginning.
    ///
    /// # Errors
    /// Inputs that the workflow does not allow, or a name that can't be evaluated; for the author.
    pub fn start(
        self,
        plan: &Plan,
        subject: &Subject,
        trigger: &RunTrigger,
        numbers: RunNumbers,
    ) -> Result<RunStart, String> {
        match self {
            Self::Github => github::run_start::start(plan, subject, trigger, numbers),
        }
    }

    /// The concurrency group of a whole run, where its workflow names one.
    ///
    /// # Errors
    /// It can't be evaluated; for the author.
    pub fn run_concurrency(self, run: &RunContext<'_>) -> Result<Option<ConcurrencyRequest>, String> {
        match self {
            Self::Github => github::instances::run_concurrency(run),
        }
    }

    /// Whether a job runs whose needs are done; if not, it is skipped.
    ///
    /// # Errors
    /// Its condition can't be evaluated.
    pub fn decide_job(self, job: &JobContext<'_>) -> Result<bool, JobKeyError> {
        match self {
            Self::Github => github::instances::decide(job),
        }
    }

    /// The instances of a job that runs.
    ///
    /// # Errors
    /// A key that all instances share can't be evaluated. Where one of them is wrong, it says so itself.
    pub fn expand_job(self, job: &JobContext<'_>) -> Result<JobExpansion, JobKeyError> {
        match self {
            Self::Github => github::instances::expand(job),
        }
    }

    /// The contexts that a worker needs for a job's steps, secrets aside.
    pub fn step_contexts(
        self,
        job: &JobContext<'_>,
        instance: &InstanceContext<'_>,
        origin: &JobOrigin<'_>,
    ) -> Map<String, Value> {
        match self {
            Self::Github => github::contexts::of_steps(job, instance, origin),
        }
    }

    /// Secrets that a job may use, and the jobs of what it calls where it hands its secrets on. `called` are the called
    /// workflows of the run.
    pub fn named_secrets(self, file: &Plan, job: &Job, called: &IndexMap<String, Plan>) -> NamedEntries {
        match self {
            Self::Github => github::named_secrets::of(file, job, called),
        }
    }

    /// Inputs of the workflow that a job calls.
    ///
    /// # Errors
    /// A value that can't be evaluated or does not fit, or a workflow that can't be called.
    pub fn call_inputs(
        self,
        called: &Plan,
        job: &JobContext<'_>,
        instance: &InstanceContext<'_>,
    ) -> Result<Map<String, Value>, JobKeyError> {
        match self {
            Self::Github => github::call::inputs(called, job, instance),
        }
    }

    /// Secrets that a job hands to the workflow it calls. `all` gives those that it has, where they must be looked at.
    pub fn call_secrets(
        self,
        job: &JobContext<'_>,
        instance: &InstanceContext<'_>,
        all: impl FnOnce() -> Map<String, Value>,
    ) -> PassedSecrets {
        match self {
            Self::Github => github::call::secrets(job, instance, all),
        }
    }

    /// Name of the secret that every job has: the token of its own.
    pub fn token_secret(self) -> &'static str {
        match self {
            Self::Github => github::TOKEN_SECRET,
        }
    }

    /// Outputs of a called workflow, which `run` describes; `job` gives what came of each of its jobs. One that can't be
    /// evaluated is empty, as one whose job did not run.
    pub fn call_outputs(self, run: &RunContext<'_>, job: impl Fn(&str) -> JobResult) -> IndexMap<String, String> {
        match self {
            Self::Github => github::call::outputs(run, job),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_stored_by_its_name() {
        for dialect in Dialect::ALL {
            let stored = match dialect {
                Dialect::Github => "\"github\"",
            };
            assert_eq!(serde_json::to_string(&dialect).ok().as_deref(), Some(stored));
            assert_eq!(serde_json::from_str::<Dialect>(stored).ok(), Some(dialect));
        }
    }

    #[test]
    fn every_folder_of_workflows_belongs_to_a_language() {
        for folder in workflow_folders() {
            assert!(Dialect::of_path(&format!("{folder}/ci.yml")).is_ok(), "{folder}");
        }
        assert!(Dialect::of_path("ci.yml").is_err());
    }
}
