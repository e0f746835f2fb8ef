//! Runs one attempt: machine, steps, post steps, report.

use std::{collections::BTreeMap, sync::Arc};

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use workflow::plan::{JobOrder, JobReport};

use crate::{fetch::Sources, log::Sink, sandbox::Sandbox};

/// One attempt to run.
pub struct Attempt {
    /// What to do.
    pub order: JobOrder,
    /// `secrets` context.
    pub secrets: BTreeMap<String, SecretString>,
    /// Further values to mask.
    pub masks: Vec<SecretString>,
    /// Image for the job where it names no container.
    pub image: String,
    /// Cancelled: steps with `always()` still run, within the grace; see `kill`.
    pub cancel: CancellationToken,
    /// Cancelled: everything ends now.
    pub kill: CancellationToken,
}

/// Hears of what an attempt reaches.
pub trait Observer: Send + Sync {
    /// The machine runs, the first step is about to start.
    fn begun(&self, image_digest: Option<String>);
    /// A step changed: index, name, `running` or its conclusion, and its outcome.
    fn step(&self, index: u32, name: &str, state: &str, outcome: &str);
}

/// Runs an attempt to its end. Never fails: whatever goes wrong is the report's reason.
pub async fn execute(
    _attempt: Attempt,
    _sandbox: Arc<dyn Sandbox>,
    _sources: Arc<dyn Sources>,
    _sink: Arc<dyn Sink>,
    _observer: Arc<dyn Observer>,
) -> JobReport {
    unreachable!("written next")
}
