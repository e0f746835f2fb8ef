//! Containers beside a job's own that serve it: what they are made of, and how they are.

use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{MachineSpec, SandboxError};

/// A service to start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Name by which the job reaches it.
    pub name: String,
    /// Image, environment, user, volumes, limits.
    pub machine: MachineSpec,
    /// Further names.
    pub aliases: Vec<String>,
    /// In place of the image's, where it is not empty.
    pub entrypoint: Vec<String>,
    /// In place of the image's, where it is not empty.
    pub command: Vec<String>,
    /// What it asks for beyond the image's own check; `None`: that alone.
    pub health: Option<HealthCheck>,
    /// Ports of the job's localhost that lead to it, each with the service's own port.
    pub ports: Vec<(u16, u16)>,
}

/// A health check; what is `None` or empty is the image's or the engine's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// As the engine takes it: `["CMD-SHELL", …]`, or `["NONE"]`.
    pub test: Vec<String>,
    /// Between two checks.
    pub interval: Option<Duration>,
    /// For one check.
    pub timeout: Option<Duration>,
    /// Time in which a failed check does not count.
    pub start_period: Option<Duration>,
    /// Failed checks in a row that make it unhealthy.
    pub retries: Option<u32>,
}

/// How a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceState {
    /// It runs, and its health check has not decided yet.
    Starting,
    /// It runs, and is healthy or has no check.
    Ready,
    /// Its health check says no.
    Unhealthy,
    /// Its process ended.
    Ended {
        /// Its exit code.
        code: i64,
        /// The memory limit was hit.
        out_of_memory: bool,
    },
}

/// A running service. It ends with its job's machine.
pub trait Service: Send + Sync {
    /// Id of its container.
    fn id(&self) -> &str;
    /// Id of the job's network.
    fn network(&self) -> &str;
    /// Its IPv4 address there.
    fn address(&self) -> &str;
    /// How it is now.
    fn state(&self) -> BoxFuture<'_, Result<ServiceState, SandboxError>>;
    /// The last lines it printed.
    fn last_lines(&self) -> BoxFuture<'_, String>;
}
