//! One run as a pure state machine: (state, event, now) → (state, effects).
//!
//! No I/O, no clock, no randomness. Every effect is written in the transaction that writes the state, and carried out
//! afterwards; doing one twice is harmless.

mod advance;
mod approval;
mod authority;
mod calls;
mod concurrency;
mod create;
mod definition_override;
mod document;
mod ending;
mod environment;
mod event;
mod job_context;
mod job_id;
mod ngit_variables;
mod order;
mod origin;
mod pull_request;
mod ready;
mod report_size;
mod rerun;
mod retry;
mod stored_values;
mod transition;
mod why;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use workflow::plan::{Conclusion, ConcurrencyRequest, MatrixCell, Plan, Reason};

use crate::id::{BlobHash, CommitId, JobKey, RunId, empty_if_none};

pub use advance::advance;
pub use approval::describe_approval_wait;
pub use authority::turn_of_repository;
pub use calls::CalledWorkflow;
pub use concurrency::describe_group_wait;
pub use create::{NewRun, create};
pub use definition_override::DefinitionOverride;
pub use document::RunDocument;
pub use environment::{
    ApprovalDecision, ApprovalError, ApprovalGate, ApprovalVerdict, Approvers, EnvironmentProtection,
};
pub use event::{RunEffect, RunEvent, RunRefusal, RunUpdate};
pub use order::order;
pub use origin::{NostrOrigin, OriginEvent, RequestOrigin, TriggerOrigin};
pub use pull_request::TriggeringPullRequest;
pub use rerun::{Rerun, RerunRequest, RerunScope, ReusedJob};
pub use stored_values::{StoredValues, WantedValues, overlaid};
pub use why::{explain_failure, explain_job};

/// Bytes of all outputs that the jobs of one run may hand to other jobs, names and values together (GitHub docs,
/// "Defining outputs for jobs").
pub const MAX_OUTPUTS: usize = 50 << 20;
/// Bytes of one job's outputs (as there).
pub const MAX_JOB_OUTPUTS: usize = 1 << 20;
/// Bytes of the outputs that one job may read: they travel in its order, and every look at its conditions copies them.
pub const MAX_NEEDED_OUTPUTS: usize = 8 << 20;

/// Bytes of the reports of all jobs of one run, as they are stored: what comes beyond is left out, and said.
pub const MAX_REPORTS: u64 = 64 << 20;

/// Milliseconds since the Unix epoch.
pub type Millis = u64;

/// A verified, authorised request to run something.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRequest {
    /// Id of what asked: of an event, or made for a request of the API. Unique in the store.
    pub id: String,
    /// Who asked how; what the answer needs.
    pub origin: RequestOrigin,
    /// The repository.
    pub repository: Repository,
    /// Path of the workflow as the request wrote it; empty: none named.
    pub workflow: String,
    /// Commit as asked for; empty: what the ref names.
    pub commit: String,
    /// Short branch or tag name; empty: the default branch.
    pub branch: String,
    /// Full ref, where the request names one.
    pub reference: Option<String>,
    /// `trigger` as written: manual, push, pull_request, schedule, …
    pub trigger: Option<String>,
    /// What the workflow sees of the event beyond what its commit tells, in the form of the workflow's language. Only
    /// what was noticed here has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<serde_json::Value>,
    /// Author, 64 hex.
    pub actor: String,
    /// The request's own `env` pairs, reserved names removed.
    pub env: IndexMap<String, String>,
    /// Notices for the run's log (ignored names and the like).
    pub notices: Vec<String>,
    /// Inputs given with the request (CLI); `None`: the workflow's defaults.
    pub inputs: Option<IndexMap<String, String>>,
    /// Where it asks for an earlier run again.
    pub again: Option<RerunRequest>,
    /// Where it asks for one program to be run, and for no workflow.
    #[serde(default)]
    pub command: Option<PlainCommand>,
    /// Where it names the bytes of the workflow: then no others are run, and only for a maintainer, at a commit of the
    /// maintainers' state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<PinnedWorkflow>,
    /// The pull request that started it. Nobody can ask for one: only what was noticed here has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<Box<TriggeringPullRequest>>,
    /// When it was seen.
    pub received_at: Millis,
}

/// A workflow file that a request names by its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedWorkflow {
    /// SHA-256 of the file, 64 lower-case hex.
    pub sha256: String,
    /// Ids of git objects that stand for the commit too: annotated tags of it.
    pub objects: Vec<String>,
}

/// A program that a request names itself. Its environment is the request's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlainCommand {
    /// Name or path, as the job's machine has it.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its standard input.
    pub input: String,
}

/// A repository on Nostr, or a folder in `dev`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Repository {
    /// `30617:<owner hex>:<d>`.
    pub address: String,
    /// Owner, 64 hex.
    pub owner: String,
    /// `d`.
    pub identifier: String,
    /// Relay hints.
    pub relays: Vec<String>,
}

/// Most characters of a commit's message that a run keeps.
pub const MAX_COMMIT_MESSAGE: usize = 200;

/// What planning found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// The commit.
    pub commit: CommitId,
    /// Full ref.
    pub reference: String,
    /// Whether the maintainers' state holds the commit at the ref, or a descendant of it.
    #[serde(rename = "trusted")]
    pub proven: bool,
    /// Whether it was asked for by a key that is neither the owner nor a maintainer of the repository, nor named by
    /// them or the operator.
    #[serde(default)]
    pub outsider: bool,
    /// Whether nothing of it begins before a maintainer approves it. The approval is of this run alone: of its commit, and
    /// of its workflow as it was read there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Name of the event, in the words of the workflow's language.
    pub event: String,
    /// Inputs, typed.
    pub inputs: serde_json::Map<String, serde_json::Value>,
    /// What the expressions of its workflow see of the run, without what differs between jobs and without secrets.
    #[serde(rename = "github")]
    pub context: serde_json::Map<String, serde_json::Value>,
    /// The workflow.
    pub plan: Plan,
    /// `run-name:` evaluated.
    #[serde(default)]
    pub title: Option<String>,
    /// First line of the commit's message, [`MAX_COMMIT_MESSAGE`] characters of it.
    #[serde(default)]
    pub commit_message: Option<String>,
    /// The workflows it calls, at any depth, by what `uses:` says there.
    #[serde(default)]
    pub called: IndexMap<String, Plan>,
    /// Repositories that called workflows come from: `owner/repo@ref` and the commit it stood for.
    #[serde(default)]
    pub origins: IndexMap<String, String>,
    /// Files that came from definitions.
    #[serde(default, rename = "supplied")]
    pub definitions: Vec<DefinitionOverride>,
    /// What maintainers stored for the repository, where the run is trusted.
    #[serde(default, skip_serializing_if = "StoredValues::is_empty")]
    pub stored: StoredValues,
    /// SHA-256 of its workflow file, where runs are reported by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_sha256: Option<BlobHash>,
    /// Notices for the run's log.
    pub notices: Vec<String>,
    /// Relays of the repository, for publishing.
    pub relays: Vec<String>,
    /// Maintainers, 64 hex, owner included.
    pub maintainers: Vec<String>,
}

impl Planned {
    /// What people call the run by, beside its workflow's name.
    pub fn heading(&self) -> Option<&str> {
        self.title.as_deref().or(self.commit_message.as_deref())
    }
}

/// Who may read a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everybody.
    #[default]
    Public,
    /// These keys (64 hex), the maintainers among them where configured.
    Readers(Vec<String>),
}

/// One execution of one workflow at one commit.
///
/// The large parts are shared between versions, so that a transition costs what it changes: what is set once stands
/// behind an [`Arc`], and so does each job and each called workflow. Two versions of a run differ in a part exactly
/// where the pointers differ ([`Arc::ptr_eq`]): the store writes those alone. Serialized, a run is its head, without
/// these parts: each is a row of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// UUID v7.
    pub id: RunId,
    /// Grows by one with each change; a write with an old version is refused.
    pub version: u64,
    /// Unique in the store.
    pub serial: u64,
    /// Counts the runs of one workflow of one repository.
    pub number: u64,
    /// From 1; a rerun has the next.
    pub attempt: u32,
    /// The run this one repeats, and what it keeps of it.
    #[serde(skip)]
    pub rerun: Option<Arc<Rerun>>,
    /// What asked for it.
    #[serde(skip)]
    pub request: Arc<RunRequest>,
    /// What planning found; `None` until then.
    #[serde(skip)]
    pub planned: Option<Arc<Planned>>,
    /// Where it stands.
    pub phase: RunPhase,
    /// Its concurrency group, where the workflow names one.
    pub claim: Option<GroupClaim>,
    /// What held it back before anything of it began, where somebody has to approve it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<ApprovalGate>,
    /// Jobs by key (`id`, or `id/<cell>`), in plan order.
    #[serde(skip)]
    pub jobs: IndexMap<JobKey, Arc<Job>>,
    /// Called workflows under way or done, by the key their jobs' keys begin with.
    #[serde(skip)]
    pub calls: IndexMap<JobKey, Arc<CalledWorkflow>>,
    /// A cancel that was accepted.
    pub cancelled: Option<Cancellation>,
    /// Its author has had a final answer already, which this database lost: nothing more is published of it.
    #[serde(default)]
    pub answered: bool,
    /// When the run's own time was over, if it was.
    pub expired_at: Option<Millis>,
    /// Why it could not be planned, for its author: the run's log shows it.
    pub message: Option<String>,
    /// Why its files could not be had when they were last asked for in vain, for people.
    #[serde(default)]
    pub delayed: Option<String>,
    /// Whether the request brought secrets; jobs get them only where the commit is proven.
    pub secrets: bool,
    /// Their names.
    #[serde(default)]
    pub secret_names: Vec<String>,
    /// The operator's rules when it was made.
    pub rules: RunRules,
    /// Environments that the operator protects, the first that fits a job counts.
    #[serde(default)]
    pub environments: Vec<EnvironmentProtection>,
    /// Who may read it.
    pub visibility: Visibility,
    /// When its data may be removed.
    pub expires_at: Millis,
    /// When it was made.
    pub created_at: Millis,
    /// When its first job began.
    pub started_at: Option<Millis>,
    /// Since when it does nothing but wait for people: that is not taken off its time.
    #[serde(default)]
    pub paused_at: Option<Millis>,
    /// How long it did so before.
    #[serde(default)]
    pub paused_ms: Millis,
    /// Seconds stamp of the last status event: the next is greater.
    pub stamped_at: u64,
    /// Bytes of the reports that are stored. They count towards [`MAX_REPORTS`].
    #[serde(default)]
    pub report_bytes: u64,
}

/// Rules of the operator that a run keeps for its whole life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRules {
    /// Milliseconds from the first job's begin after which the run is ended; 0: no limit.
    pub max_duration_ms: Millis,
    /// What happens to a job whose worker was lost after its first step began.
    pub retry_started: RetryStarted,
    /// Where not everybody may read the run: whether the repository's maintainers may.
    pub maintainers_read: bool,
    /// There is one worker only: an image that it could not have, no other has.
    #[serde(default)]
    pub one_worker: bool,
    /// Its progress and each of its jobs are reported to whoever follows the repository, besides the answers to who asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reports_jobs: bool,
}

/// Whether a job is retried whose worker was lost after its first step began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetryStarted {
    /// Only where it was given no secret.
    #[default]
    Harmless,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum RunPhase {
    /// Its files are being fetched and read.
    Planning,
    /// It waits for something named.
    Waiting {
        /// For what.
        on: WaitCondition,
    },
    /// Its jobs are queued or running.
    Active,
    /// All jobs ended; the log is being stored.
    #[serde(rename = "sealing")]
    Finalizing {
        /// How it will end.
        end: RunEnd,
    },
    /// Final.
    Done {
        /// How it ended.
        end: RunEnd,
        /// The stored log.
        log: FinalizedLog,
    },
}

/// What a run can wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "on")]
pub enum WaitCondition {
    /// A concurrency group.
    Concurrency {
        /// Its name.
        group: String,
        /// Number of the run that holds it; `None`: not known yet.
        holder: Option<u64>,
    },
    /// Somebody's approval of an environment, or of the run.
    Approval {
        /// Name of the environment; empty: the run itself is to be approved.
        environment: String,
        /// Who may give it, 64 hex; empty in lists.
        approvers: Vec<String>,
    },
    /// Files of its repository that can't be had yet: in lists, for a run that is not planned.
    Files {
        /// Why, for people.
        why: String,
    },
    /// A moment.
    Timer {
        /// Which.
        until: Millis,
    },
}

/// What a run or a job wants of a concurrency group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupClaim {
    /// The group, and how.
    pub ask: ConcurrencyRequest,
    /// Whether the group was asked for, is waited for or held, or was given back.
    #[serde(rename = "standing")]
    pub state: ClaimState,
}

/// How far a claim on a concurrency group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimState {
    /// The group was not asked for yet.
    #[serde(rename = "outside")]
    NotRequested,
    /// It waits for the group or holds it.
    #[serde(rename = "inside")]
    Joined,
    /// The group was given back.
    Left,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEnd {
    /// Conclusion.
    pub conclusion: Conclusion,
    /// Why, unless it succeeded.
    pub reason: Option<Reason>,
    /// 0, the failed step's code, 124 timeout, 125 refused or not started, 130 cancelled.
    pub exit_code: i32,
    /// When.
    pub at: Millis,
}

/// The stored log of a run that ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalizedLog {
    /// URL of the text for the clients' log viewer, its last segment the SHA-256; empty: none could be stored.
    pub url: String,
    /// SHA-256 of that text; `None`: none could be stored.
    #[serde(with = "empty_if_none")]
    pub sha256: Option<BlobHash>,
    /// URL of the complete text.
    pub full_url: String,
}

/// One job, or one cell of a matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Id in its file, behind those of the calls it stands in: `build`, or `caller/build`.
    pub id: String,
    /// Key of the call it belongs to; empty: the run's own file.
    #[serde(default, rename = "within")]
    pub parent_call: JobKey,
    /// Its cell.
    #[serde(rename = "leg")]
    pub cell: MatrixCell,
    /// Display name.
    pub name: String,
    /// Labels a worker must have.
    pub labels: Vec<String>,
    /// Milliseconds it may take.
    pub timeout_ms: u64,
    /// Whether its failure is tolerated.
    pub tolerated: bool,
    /// Whether its failure ends the other cells of its matrix.
    pub fail_fast: bool,
    /// How many cells of its matrix may run at a time; `None`: all.
    pub max_parallel: Option<usize>,
    /// Its concurrency group, where it names one.
    pub claim: Option<GroupClaim>,
    /// What it deploys to, where it names an environment.
    #[serde(default)]
    pub environment: Option<String>,
    /// What held it back before it started, where its environment is protected.
    #[serde(default)]
    pub gate: Option<ApprovalGate>,
    /// Where it stands.
    pub phase: JobPhase,
    /// Where it ran, if that was an earlier run.
    #[serde(rename = "carried")]
    pub reused: Option<ReusedJob>,
    /// Attempts so far: the last one is current.
    pub attempts: Vec<AttemptRecord>,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum JobPhase {
    /// Its needs are not done; a matrix has one such entry until then, under the job's id.
    Blocked,
    /// A cell that waits for others of its matrix (`max-parallel`).
    Held,
    /// It waits for something named.
    Waiting {
        /// Since when.
        since: Millis,
        /// For what.
        on: WaitCondition,
    },
    /// It waits for a worker.
    Queued {
        /// Since when. Why it still waits stands in the queue, where the scheduler writes it.
        since: Millis,
    },
    /// A worker has it.
    Running {
        /// Since when.
        since: Millis,
    },
    /// A worker was told to end it.
    Cancelling {
        /// Since when.
        since: Millis,
        /// Why.
        reason: Reason,
    },
    /// Final.
    Done {
        /// How it ended, before `continue-on-error`.
        conclusion: Conclusion,
        /// Why, unless it succeeded.
        reason: Option<Reason>,
        /// What is kept of the accepted report; `None` where nothing ran.
        outcome: Option<Box<JobOutcome>>,
    },
}

/// What a run keeps of an accepted report. The report itself is stored beside the run ([`RunEffect::StoreReport`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOutcome {
    /// The attempt that reported it, from 1.
    pub attempt: u32,
    /// Exit code of the step that failed; 0 on success.
    pub exit_code: i32,
    /// Outputs that another job may read. They count towards [`MAX_OUTPUTS`].
    pub outputs: IndexMap<String, String>,
    /// When the attempt started.
    pub started_at: Millis,
    /// When the attempt ended.
    pub finished_at: Millis,
    /// Name of the step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<String>,
}

/// (run, job, attempt): what a lease is for. The number is the fencing token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AttemptId {
    /// Run id.
    pub run: RunId,
    /// Job key.
    pub job: JobKey,
    /// From 1.
    pub number: u32,
}

/// One hand-out of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// From 1.
    pub number: u32,
    /// Worker id.
    pub worker: String,
    /// When it was accepted.
    pub accepted_at: Millis,
    /// When its first step was about to start.
    pub begun_at: Option<Millis>,
    /// Why it ended, where it was not the last.
    pub lost: Option<Reason>,
}

/// A cancel that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// Who, for people.
    pub by: String,
    /// When.
    pub at: Millis,
}
