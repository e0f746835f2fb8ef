//! Lists of runs: which runs are requested, by whom, and what is shown of each run.

use domain::id::RunId;
use domain::run::{Millis, Visibility, WaitCondition};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};

/// Runs that a search for words looks at.
pub const SEARCHED: u64 = 20_000;

/// Which runs are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Address of the repository.
    pub repository: Option<String>,
    /// Name of the repository, whoever owns it.
    pub repository_name: Option<String>,
    /// Path of the workflow as the request wrote it.
    pub workflow: Option<String>,
    /// Short name of the branch or tag.
    pub branch: Option<String>,
    /// Name of the GitHub event.
    pub event: Option<String>,
    /// Id of what asked for it.
    pub request: Option<String>,
    /// Id of the run that it repeats.
    pub previous: Option<RunId>,
    /// How it stands: one of these; empty: any.
    pub status: Vec<Status>,
    /// Author, 64 hex.
    pub actor: Option<String>,
    /// Only those that have not ended.
    pub unfinished: bool,
    /// Each stands in the names of workflow, branch and repository, or in the title; case is ignored. Only the newest
    /// [`SEARCHED`] runs of the store are looked at.
    pub words: Vec<String>,
    /// For whom.
    pub reader: Reader,
}

/// The status of a run: its phase, divided by what has begun and by how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Status {
    /// Its files are being fetched and read.
    Planning,
    /// It waits for something named.
    Waiting,
    /// No job of it has begun.
    Queued,
    /// A job began.
    Running,
    /// All jobs ended; its log is being stored.
    #[serde(rename = "sealing")]
    #[strum(serialize = "sealing")]
    Finalizing,
    /// Done, all went well.
    Success,
    /// Done, something failed.
    Failure,
    /// Done, somebody ended it.
    Cancelled,
    /// Done, nothing was to be run.
    Skipped,
}

/// The phase of a run (`domain::run::RunPhase`) by its name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum PhaseName {
    /// Its files are being fetched and read.
    Planning,
    /// It waits for something named.
    Waiting,
    /// Its jobs are queued or running.
    Active,
    /// All jobs ended; the log is being stored.
    #[strum(serialize = "sealing")]
    Finalizing,
    /// Final.
    Done,
}

/// A run as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// UUID v7.
    pub id: RunId,
    /// Unique in the store.
    pub serial: u64,
    /// Counts the runs of one workflow of one repository.
    pub number: u64,
    /// From 1.
    pub attempt: u32,
    /// The run it repeats.
    pub previous: Option<RunId>,
    /// Address of the repository.
    pub repository: String,
    /// Path of the workflow as the request wrote it.
    pub workflow: String,
    /// The workflow's name, once planned.
    pub name: String,
    /// `run-name`, or the first line of the commit's message; empty: not known.
    pub title: String,
    /// The job, and its step, that failed it; empty: none did.
    pub failed: String,
    /// Commit; empty: not known yet.
    pub commit: String,
    /// Short name of the branch or tag.
    pub branch: String,
    /// Name of the GitHub event, once planned.
    pub event: String,
    /// Author, 64 hex.
    pub actor: String,
    /// Its phase.
    pub phase: PhaseName,
    /// Its status.
    pub status: Status,
    /// What it waits for.
    pub wait: Option<WaitCondition>,
    /// Why a queued job of it still waits, for people.
    pub queued: Option<String>,
    /// How it ended.
    pub conclusion: Option<String>,
    /// When it was made.
    pub created_at: Millis,
    /// When its first job began.
    pub started_at: Option<Millis>,
    /// When its last job ended.
    pub ended_at: Option<Millis>,
    /// Number of its latest change.
    pub changed: u64,
}

/// Who reads a list of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reader {
    /// Nobody in particular: public runs.
    #[default]
    Anyone,
    /// A key (64 hex): public runs and those it may read.
    Key(String),
    /// The operator, or the program itself: all.
    Operator,
}

impl Reader {
    /// Whether this reader may see what has this visibility.
    pub fn may_read(&self, visibility: &Visibility) -> bool {
        match (visibility, self) {
            (Visibility::Public, _) | (Visibility::Readers(_), Self::Operator) => true,
            (Visibility::Readers(readers), Self::Key(key)) => readers.contains(key),
            (Visibility::Readers(_), Self::Anyone) => false,
        }
    }
}

/// A part of a list, newest first.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Only runs with a smaller serial.
    pub before: Option<u64>,
    /// At most this many.
    pub limit: u32,
}
