//! Makes a job of what a coordinator sent, and runs it to its report.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use proto::worker::{Attempt, Job};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use workflow::plan::{Conclusion, JobOrder, JobReport, Reason};

use super::{
    actions_tunnel::ActionsTunnel,
    bulk::{BulkConnection, BulkUrlWatch},
};
use crate::{
    config::JobLimits,
    fetch::{ActionStore, Mirrors, RepositoryFetcher},
    job::{self, ProgressReporter},
    log::{LogSink, spool::SpoolFile},
    sandbox::Sandbox,
};

/// One attempt as its coordinator handed it over, and the way back to it.
pub struct AssignedJob {
    /// What the coordinator sent.
    pub job: Job,
    /// Where its log goes.
    pub log: SpoolFile,
    /// The worker's data folder: mirrors and actions are below it.
    pub data: PathBuf,
    /// Bytes of all mirrors.
    pub mirror_bytes: u64,
    /// File of the coordinator's certificate authority.
    pub ca_file: Option<PathBuf>,
    /// URL of the coordinator's bulk service, while there is a session.
    pub(crate) coordinator: BulkUrlWatch,
    /// Cancelled: steps with `always()` still run.
    pub cancel: CancellationToken,
    /// Cancelled: everything ends now.
    pub kill: CancellationToken,
}

/// What a worker adds to every job.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobSettings {
    /// Image for a job that names no container.
    pub(crate) image: String,
    /// The engine's runtime for it; empty: the engine's own.
    pub(crate) runtime: String,
    pub(crate) limits: JobLimits,
    pub(crate) node: Option<PathBuf>,
}

impl AssignedJob {
    /// What to do.
    pub fn order(&self) -> anyhow::Result<JobOrder> {
        serde_json::from_slice(&self.job.order)
            .context("this worker does not understand the order; is it older than its coordinator?")
    }

    /// Where its repository and its actions come from: the coordinator, which is asked in the attempt's name.
    pub fn sources(&self) -> Arc<dyn RepositoryFetcher> {
        self.sources_over(self.connection())
    }

    fn connection(&self) -> Arc<BulkConnection> {
        Arc::new(BulkConnection::new(self.coordinator.clone(), self.ca_file.clone()))
    }

    fn sources_over(&self, connection: Arc<BulkConnection>) -> Arc<dyn RepositoryFetcher> {
        let mirrors =
            Mirrors::new(self.data.join("mirrors"), self.mirror_bytes, ActionStore::new(self.data.join("actions")));
        Arc::new(mirrors).for_attempt(connection, self.attempt(), self.job.token.clone())
    }

    fn attempt(&self) -> Attempt {
        self.job.attempt.clone().unwrap_or_default()
    }

    /// Runs it to its end. Never fails: whatever goes wrong is the report's reason.
    pub(crate) async fn run(
        mut self,
        settings: JobSettings,
        sandbox: Arc<dyn Sandbox>,
        sink: Arc<dyn LogSink>,
        observer: Arc<dyn ProgressReporter>,
    ) -> JobReport {
        let order = match self.order() {
            Ok(order) => order,
            Err(error) => return failed(Reason::StartFailed(format!("{error:#}"))),
        };
        let connection = self.connection();
        let sources = self.sources_over(Arc::clone(&connection));
        let runtime_token = std::mem::take(&mut self.job.runtime_token);
        let access = (!runtime_token.is_empty()).then(|| job::ActionsApiAccess {
            token: runtime_token.into(),
            id_token: self.job.id_token,
            tunnel: Arc::new(ActionsTunnel::new(connection.endpoint.clone(), self.attempt(), self.job.token.clone())),
        });
        let secrets: BTreeMap<_, _> =
            self.job.secrets.drain().map(|(name, value)| (name, SecretString::from(value))).collect();
        let work = job::JobAttempt {
            order,
            secrets,
            image: settings.image,
            runtime: settings.runtime,
            limits: settings.limits,
            node: settings.node,
            checked_out: false,
            actions_api: access,
            cancel: self.cancel.clone(),
            kill: self.kill.clone(),
        };
        let mut task = tokio::spawn(job::execute(work, sandbox, sources, sink, observer));
        let (ended, timed_out) = match tokio::time::timeout(self.time_limit(), &mut task).await {
            Ok(ended) => (ended, false),
            Err(_) => {
                self.kill.cancel();
                (task.await, true)
            }
        };
        let failure = |error| failed(Reason::ProcessLost(format!("it failed: {error}")));
        let mut report = ended.unwrap_or_else(failure);
        if timed_out {
            report.conclusion = Conclusion::Failure;
            report.reason = Some(Reason::Timeout);
        }
        report
    }

    /// Time the run may still take.
    pub(crate) fn time_limit(&self) -> Duration {
        match self.job.time_limit_ms {
            0 => Duration::MAX,
            ms => Duration::from_millis(ms),
        }
    }
}

/// The report of an attempt that did not come to its steps.
pub(crate) fn failed(reason: Reason) -> JobReport {
    let now_ms = workflow::time::unix_millis(std::time::SystemTime::now());
    JobReport { started_at_ms: now_ms, finished_at_ms: now_ms, ..JobReport::failed(reason) }
}
