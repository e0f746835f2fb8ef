//! Which back end runs a worker's jobs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A back end. New ones are added here; everything else asks [`SandboxKind`] what they can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SandboxKind {
    /// Containers of a Docker engine.
    #[default]
    Docker,
    /// Processes of this machine, for trusted use.
    Host,
}

impl SandboxKind {
    /// The word in configurations and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Host => "host",
        }
    }

    /// Whether a job is kept from this machine and from other jobs.
    pub fn is_isolated(self) -> bool {
        self != Self::Host
    }

    /// Whether jobs run in images, which a Docker engine on this machine has or pulls.
    pub fn needs_docker_engine(self) -> bool {
        self == Self::Docker
    }
}

impl fmt::Display for SandboxKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SandboxKind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        [Self::Docker, Self::Host].into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| {
            format!("sandbox = \"{word}\": it is \"docker\", or \"host\" for trusted jobs without isolation")
        })
    }
}

impl TryFrom<String> for SandboxKind {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        word.parse()
    }
}

impl From<SandboxKind> for String {
    fn from(kind: SandboxKind) -> Self {
        kind.as_str().to_owned()
    }
}
