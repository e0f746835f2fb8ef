//! The pull request that a run is of, as the events say that started it.

use serde::{Deserialize, Serialize};

use super::OriginEvent;

/// A pull request that started a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggeringPullRequest {
    /// Its number in its repository.
    pub number: u64,
    /// Id of its event, 64 hex.
    pub root: String,
    /// Its author, 64 hex: whose code it is.
    pub author: String,
    /// Its head.
    pub head: String,
    /// The event that names the head: the pull request itself, or an update of it.
    pub head_event: OriginEvent,
    /// Whether the base's code is run, and not the head's (`pull_request_target`).
    pub runs_base: bool,
}
