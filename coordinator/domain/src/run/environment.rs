//! Protected environments: what the operator demands before a job deploys. And approvals, of jobs and of runs: who decides,
//! and what was decided.

use serde::{Deserialize, Serialize};

use super::Millis;

/// What the operator asks for before a job of an environment starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentProtection {
    /// Pattern of its name; case makes no difference.
    pub name: String,
    /// Who is asked.
    pub approvers: Approvers,
    /// Milliseconds that a job waits at least.
    pub wait_ms: Millis,
    /// Patterns of the branches and tags that may be deployed; empty: all.
    pub branches: Vec<String>,
}

/// Who is asked before a job starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "who", content = "keys")]
pub enum Approvers {
    /// The repository's maintainers.
    Maintainers,
    /// These keys, 64 hex.
    Keys(Vec<String>),
    /// Nobody.
    Nobody,
}

/// What held a job back, or a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalGate {
    /// Who is asked, 64 hex.
    pub approvers: Vec<String>,
    /// When it may start at the earliest.
    pub until: Millis,
    /// What was said.
    pub decision: Option<ApprovalDecision>,
}

/// What somebody said who was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalDecision {
    /// Yes or no.
    pub verdict: ApprovalVerdict,
    /// Who, 64 hex.
    pub by: String,
    /// For people; may be empty.
    pub comment: String,
    /// When.
    pub at: Millis,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalVerdict {
    /// The job, or the run, may start.
    Approved,
    /// It may not.
    Rejected,
}

/// Why somebody can't decide.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// No such job waits.
    #[error("no job of this run waits for an approval{0}")]
    NothingWaits(String),
    /// Others are asked: who, and about what.
    #[error("only {0} may approve or reject {1}")]
    NotAsked(String, String),
}
