//! Where a run's workflow files came from, if not from the commit.

use serde::{Deserialize, Serialize};

/// A workflow file that came from a definition (kind 35417), not from the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionOverride {
    /// Path that it stands for.
    pub path: String,
    /// Id of the definition's event, 64 hex.
    pub event: String,
    /// Its author, 64 hex.
    pub author: String,
    /// Of its text, hex.
    pub sha256: String,
    /// Whether the commit has a file there, which does not count.
    pub replaces: bool,
}
