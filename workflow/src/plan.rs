//! The neutral model: what a workflow file of any dialect becomes, and what travels to a worker and back.
//!
//! Text that may hold `${{ }}` stays text here; it is evaluated where its contexts are known: job-level keys in the
//! coordinator when the job's needs are done, step-level keys in the worker.

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::leg_filter::LegFilter;

/// Text that may hold `${{ … }}`.
pub type Text = String;
/// An `if:` condition, with or without `${{ }}`. Empty text never occurs: a missing `if` is `None`.
pub type Condition = String;
/// A YAML value whose strings may hold `${{ }}`.
pub type Tree = serde_json::Value;
/// Names and values in the order they were written.
pub type Env = IndexMap<String, Text>;
/// `env:` as written: a mapping, or one expression that yields a mapping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EnvSource {
    /// A mapping.
    Map(Env),
    /// `env: ${{ fromJSON(…) }}`.
    Expression(Text),
}

impl Default for EnvSource {
    fn default() -> Self {
        Self::Map(Env::new())
    }
}

/// The language a workflow is written in: a plan names its own. What it means stands in [`dialect`](crate::dialect).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// GitHub Actions; also for a file of which nothing tells the language.
    #[default]
    Github,
}

/// A workflow that was read and checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The file's language.
    pub dialect: Dialect,
    /// Path in the repository.
    pub path: String,
    /// `name:`, or the path where there is none.
    pub name: String,
    /// `run-name:`.
    pub run_name: Option<Text>,
    /// What `on:` declares, by event name.
    pub on: IndexMap<String, Trigger>,
    /// Workflow-level `env:`.
    pub env: EnvSource,
    /// Workflow-level `defaults:`.
    pub defaults: Defaults,
    /// Workflow-level `concurrency:`.
    pub concurrency: Option<Concurrency>,
    /// Workflow-level `permissions:`.
    pub permissions: Option<Tree>,
    /// Jobs by id, in the file's order.
    pub jobs: IndexMap<String, Job>,
}

/// One entry of `on:`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// Filters as written: `branches`, `tags`, `paths`, `types` and so on, each with its list.
    pub filters: IndexMap<String, Vec<String>>,
    /// Inputs of `workflow_dispatch` and `workflow_call`.
    pub inputs: IndexMap<String, Input>,
    /// Cron lines of `schedule`.
    pub cron: Vec<String>,
    /// `outputs` and `secrets` of `workflow_call`, as written.
    pub call: Tree,
}

/// One declared input.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// `string`, `boolean`, `number`, `choice` or `environment`.
    pub kind: String,
    /// `required:`.
    pub required: bool,
    /// `default:`, as written.
    pub default: Option<Tree>,
    /// `options:` of a choice.
    pub options: Vec<String>,
}

/// `defaults.run`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Defaults {
    /// `shell:`.
    pub shell: Option<Text>,
    /// `working-directory:`.
    pub working_directory: Option<Text>,
}

/// `concurrency:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Concurrency {
    /// Name of the group.
    pub group: Text,
    /// `cancel-in-progress:`, a boolean or an expression.
    pub cancel_in_progress: Tree,
    /// `queue:`.
    pub queue: QueueMode,
}

/// `queue:` of a concurrency group: who may wait for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueMode {
    /// The newest alone; it takes the place of those who waited before.
    #[default]
    Single,
    /// All, in the order they came, up to a limit.
    Max,
}

/// A concurrency group as one run or job asks for it, evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConcurrencyRequest {
    /// Name as written.
    pub group: String,
    /// Whether who holds it is cancelled.
    pub cancel_in_progress: bool,
    /// Who may wait.
    pub queue: QueueMode,
}

/// A job as written; a matrix makes several cells of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// `name:`.
    pub name: Option<Text>,
    /// Ids of the jobs it waits for.
    pub needs: Vec<String>,
    /// `if:`.
    pub condition: Option<Condition>,
    /// `runs-on:` as written: text, a list, an expression, or `{group, labels}`.
    pub runs_on: Tree,
    /// `strategy:`.
    pub strategy: Strategy,
    /// `env:`.
    pub env: EnvSource,
    /// `defaults:`.
    pub defaults: Defaults,
    /// `outputs:`.
    pub outputs: Env,
    /// `timeout-minutes:`, a number or an expression.
    pub timeout_minutes: Option<Tree>,
    /// `continue-on-error:`, a boolean or an expression.
    pub continue_on_error: Option<Tree>,
    /// `container:`, text or mapping.
    pub container: Option<Tree>,
    /// `services:`.
    pub services: Option<Tree>,
    /// `concurrency:`.
    pub concurrency: Option<Concurrency>,
    /// `permissions:`.
    pub permissions: Option<Tree>,
    /// `environment:`.
    pub environment: Option<Tree>,
    /// What the job does.
    pub work: JobContent,
}

/// The content of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobContent {
    /// Steps for one worker.
    Steps(Vec<StepEntry>),
    /// A called workflow.
    Call {
        /// `uses:`.
        uses: String,
        /// `with:`.
        with: IndexMap<String, Tree>,
        /// `secrets:`: a mapping, or the text `inherit`.
        secrets: Option<Tree>,
    },
}

/// `strategy:`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Strategy {
    /// `matrix:` as written: a mapping or an expression. `None`: one cell.
    pub matrix: Option<Tree>,
    /// `fail-fast:`, a boolean or an expression; `None` means true.
    pub fail_fast: Option<Tree>,
    /// `max-parallel:`, a number or an expression.
    pub max_parallel: Option<Tree>,
    /// Which of its legs run; empty, all of them.
    #[serde(default, skip_serializing_if = "LegFilter::is_empty")]
    pub legs: LegFilter,
}

/// One entry of `steps:`; a group of `parallel:` is its members in the background, and a wait for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StepEntry {
    /// It waits for steps in the background, or ends one.
    Control(Control),
    /// It runs something.
    Step(Box<Step>),
}

impl Plan {
    /// How much of memory it takes, in units of some KiB: jobs, steps, and variables by the dozen.
    #[must_use]
    pub fn weight(&self) -> usize {
        let variables = |env: &EnvSource| match env {
            EnvSource::Map(env) => env.len() / 12,
            EnvSource::Expression(_) => 0,
        };
        let step = |entry: &StepEntry| 1 + entry.step().map_or(0, |step| variables(&step.env));
        let job = |job: &Job| {
            let content = match &job.work {
                JobContent::Steps(steps) => steps.iter().map(step).sum(),
                JobContent::Call { with, .. } => with.len() / 12,
            };
            1 + variables(&job.env) + content
        };
        variables(&self.env) + self.jobs.values().map(job).sum::<usize>()
    }
}

impl StepEntry {
    /// The step; `None`: it only waits or ends.
    pub fn step(&self) -> Option<&Step> {
        match self {
            Self::Step(step) => Some(step),
            Self::Control(_) => None,
        }
    }
}

/// An entry of `steps:` that runs nothing itself. It takes its turn whatever happened before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// `id:`, or none.
    pub id: Option<String>,
    /// `name:`, or what GitHub calls it.
    pub name: Text,
    /// `continue-on-error:`, a boolean or an expression.
    pub continue_on_error: Option<Tree>,
    /// What it does.
    pub control: ControlAction,
    /// Line in its file, from 1.
    pub line: u32,
}

/// What is done with steps in the background. They are named by their places in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlAction {
    /// `wait:`: until these ended.
    Wait(Vec<usize>),
    /// `wait-all:`: until all ended.
    WaitAll,
    /// `cancel:`: this one is ended.
    Cancel(usize),
}

/// One step as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `id:`, or none.
    pub id: Option<String>,
    /// `name:`.
    pub name: Option<Text>,
    /// `if:`.
    pub condition: Option<Condition>,
    /// `env:`.
    pub env: EnvSource,
    /// `continue-on-error:`, a boolean or an expression.
    pub continue_on_error: Option<Tree>,
    /// `timeout-minutes:`, a number or an expression.
    pub timeout_minutes: Option<Tree>,
    /// `background:`: what comes after does not wait for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
    /// What the step does.
    pub action: StepAction,
    /// Line of the step in its file, from 1.
    pub line: u32,
}

/// The content of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepAction {
    /// A script.
    Run {
        /// `run:`.
        script: Text,
        /// `shell:`.
        shell: Option<Text>,
        /// `working-directory:`.
        working_directory: Option<Text>,
    },
    /// An action.
    Uses {
        /// `uses:`.
        uses: String,
        /// `with:`.
        with: Env,
    },
}

/// One combination of a job's matrix; a job without a matrix has one cell without values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MatrixCell {
    /// The matrix context, empty without a matrix.
    pub matrix: serde_json::Map<String, serde_json::Value>,
    /// Position, from 0.
    pub index: usize,
    /// Number of cells of the job.
    pub total: usize,
}

/// Bytes that values take in memory, roughly.
#[must_use]
pub fn values_size(values: &serde_json::Map<String, serde_json::Value>) -> usize {
    values.iter().map(|(key, value)| key.len() + value_size(value)).sum()
}

/// As [`values_size`], of one value.
pub(crate) fn value_size(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    match value {
        Value::String(text) => 16 + text.len(),
        Value::Array(items) => 16 + items.iter().map(value_size).sum::<usize>(),
        Value::Object(entries) => 16 + values_size(entries),
        Value::Null | Value::Bool(_) | Value::Number(_) => 16,
    }
}

/// Where a job's files come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceRef {
    /// Stable key of the repository, e.g. `30617:<owner hex>:<d>`; empty: no repository.
    pub repository: String,
    /// Full commit id.
    pub commit: String,
    /// `refs/heads/main`, `refs/tags/v1`, …
    pub reference: String,
    /// False where the commit is not in the maintainers' state: no secrets.
    pub trusted: bool,
}

/// Everything a worker needs to run one attempt, secrets aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobOrder {
    /// Run id.
    pub run: String,
    /// Key of the job in its run: its id, or `<id>/<cell index>` for a matrix.
    pub key: String,
    /// Job id as written.
    pub id: String,
    /// Display name, evaluated.
    pub name: String,
    /// Attempt number, from 1.
    pub attempt: u32,
    /// The file's language.
    pub dialect: Dialect,
    /// `name:` of the workflow.
    pub workflow: String,
    /// The job as written.
    pub job: Job,
    /// Labels it was matched by.
    pub runs_on: Vec<String>,
    /// The contexts `github`, `needs`, `strategy`, `matrix`, `inputs` and `vars`, and of `job` what is known before a
    /// worker has it.
    pub contexts: serde_json::Map<String, serde_json::Value>,
    /// Values from the request: below the workflow's own `env`.
    pub request_env: Env,
    /// Workflow-level `env:`, as written.
    pub workflow_env: EnvSource,
    /// Workflow-level `defaults:`.
    pub workflow_defaults: Defaults,
    /// Job-level `timeout-minutes`, evaluated. Milliseconds.
    pub timeout_ms: u64,
    /// Where `actions/checkout` gets its files.
    pub source: SourceRef,
    /// Notices to print before the first step (ignored names, missing trust, which attempt this is).
    pub notices: Vec<String>,
    /// Secrets that a caller hands on and that stand for the job's own token. Where a secret of that name is given, it
    /// counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_secrets: Vec<String>,
}

/// How a step, a job or a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// All went well.
    Success,
    /// Something failed.
    Failure,
    /// Somebody ended it.
    Cancelled,
    /// It was not started.
    Skipped,
}

impl Conclusion {
    /// The word GitHub uses (GitHub docs: contexts, `needs.<id>.result`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// Why an attempt did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "detail")]
pub enum Reason {
    /// A step failed.
    Step,
    /// The job's or the pool's time was over.
    Timeout,
    /// The memory limit was hit.
    OutOfMemory,
    /// A limit of processes was hit.
    Processes,
    /// The disk limit was hit.
    Disk,
    /// The container did not start. Tried again elsewhere.
    StartFailed(String),
    /// The image could not be had. Tried again elsewhere.
    PullFailed(String),
    /// The container or its engine went away while a step ran.
    SandboxLost(String),
    /// The process that ran the job on its worker ended before the job did. Tried again.
    ProcessLost(String),
    /// The workflow asks for something wrong.
    Invalid(String),
    /// Somebody cancelled, or the run no longer needs it.
    Cancelled(String),
    /// The worker went away.
    WorkerLost(String),
    /// No worker has the labels.
    NoWorker(String),
    /// The log limit was hit.
    LogLimit,
}

impl Reason {
    /// What is said beside the kind of reason, where there is anything.
    pub fn detail_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::StartFailed(detail)
            | Self::PullFailed(detail)
            | Self::SandboxLost(detail)
            | Self::ProcessLost(detail)
            | Self::Invalid(detail)
            | Self::Cancelled(detail)
            | Self::WorkerLost(detail)
            | Self::NoWorker(detail) => Some(detail),
            Self::Step | Self::Timeout | Self::OutOfMemory | Self::Processes | Self::Disk | Self::LogLimit => None,
        }
    }
}

/// One sentence without a full stop, for logs, pages and results alike.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step => f.write_str("a step failed"),
            Self::Timeout => f.write_str("the time limit was reached"),
            Self::OutOfMemory => f.write_str("the memory limit was reached"),
            Self::Processes => f.write_str("the limit of processes was reached"),
            Self::Disk => f.write_str("the disk limit was reached"),
            Self::LogLimit => f.write_str("the log limit was reached"),
            Self::StartFailed(detail) => write!(f, "the container did not start: {detail}"),
            Self::PullFailed(detail) => write!(f, "the image could not be pulled: {detail}"),
            Self::SandboxLost(detail) => write!(f, "the container was lost: {detail}"),
            Self::ProcessLost(detail) => write!(f, "the job's process on the worker ended: {detail}"),
            Self::WorkerLost(detail) => write!(f, "the worker was lost: {detail}"),
            Self::NoWorker(detail) => write!(f, "no worker can take this job: {detail}"),
            Self::Invalid(detail) | Self::Cancelled(detail) => f.write_str(detail),
        }
    }
}

impl JobReport {
    /// Of a job that failed before, or beside, its steps.
    pub fn failed(reason: Reason) -> Self {
        Self {
            conclusion: Conclusion::Failure,
            reason: Some(reason),
            exit_code: 125,
            steps: Vec::new(),
            outputs: IndexMap::new(),
            environment: None,
            annotations: Vec::new(),
            summary: String::new(),
            started: false,
            image: None,
            actions: IndexMap::new(),
            started_at_ms: 0,
            finished_at_ms: 0,
        }
    }
}

/// What a worker reports at the end of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobReport {
    /// How it ended.
    pub conclusion: Conclusion,
    /// Why, unless it succeeded.
    pub reason: Option<Reason>,
    /// Exit code of the step that failed; 0 on success.
    pub exit_code: i32,
    /// Steps in the order they ran, pre and post steps included.
    pub steps: Vec<StepReport>,
    /// Job outputs, evaluated; those that hold a secret are left out.
    pub outputs: IndexMap<String, String>,
    /// `environment:`, evaluated.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// `::error::`, `::warning::` and `::notice::`.
    pub annotations: Vec<Annotation>,
    /// Step summaries joined.
    pub summary: String,
    /// Whether a step ran at all (decides on retries).
    pub started: bool,
    /// Digest of the image.
    pub image: Option<String>,
    /// Actions of other repositories: `owner/repo@ref` and the commit it stood for.
    #[serde(default)]
    pub actions: IndexMap<String, String>,
    /// Milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub finished_at_ms: u64,
}

/// What a job deploys to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// `name:`.
    pub name: String,
    /// `url:`.
    pub url: Option<String>,
}

/// One step's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// `id:` as written, if any.
    pub id: Option<String>,
    /// Name as it stands in the log.
    pub name: String,
    /// Before `continue-on-error`.
    pub outcome: Conclusion,
    /// After `continue-on-error`.
    pub conclusion: Conclusion,
    /// Exit code, where a process ran.
    pub exit_code: Option<i32>,
    /// Milliseconds.
    pub duration_ms: u64,
}

/// A message bound to a place in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Annotation {
    /// `error`, `warning` or `notice`.
    pub level: String,
    /// Text.
    pub message: String,
    /// `title=`.
    pub title: Option<String>,
    /// `file=`.
    pub file: Option<String>,
    /// `line=`.
    pub line: Option<u32>,
    /// `endLine=`.
    pub end_line: Option<u32>,
    /// `col=`.
    pub column: Option<u32>,
    /// `endColumn=`.
    pub end_column: Option<u32>,
}
