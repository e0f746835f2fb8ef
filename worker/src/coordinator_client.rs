//! One session with a coordinator: register, accept, renew, report, resume.
//!
//! [`attempts`] is what this worker runs, independent of sessions; [`session`] reports it to a coordinator and takes
//! orders; [`attempt`] runs one job beside it; [`journal`] is their memory on disk; [`connect`] knows TLS and the worker's
//! identity. Two serve the process of a job: [`assigned_job`] makes a job of what the coordinator sent, and
//! [`actions_tunnel`] carries its connections.

mod actions_tunnel;
mod assigned_job;
mod attempt;
mod attempt_trace;
mod attempts;
pub(crate) mod bulk;
mod connect;
mod journal;
mod log_upload;
mod reconnect;
mod report;
mod session;
mod sweep;

use std::{sync::Arc, time::Instant};

use anyhow::Context as _;
use futures::future::BoxFuture;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, warn};

use self::{
    attempts::AttemptTable, bulk::BulkServiceClient, connect::Identity, journal::Journal, reconnect::Reconnect,
    session::SessionEnd,
};
use crate::{config::Config, job::ProgressReporter};

pub(crate) use self::assigned_job::{JobSettings, failed};
pub use self::{assigned_job::AssignedJob, report::encode as encode_report};

/// The public key (hex) of an identity file; `None` where there is none that can be read.
pub(crate) fn identity_of(file: &std::path::Path) -> Option<String> {
    Identity::read(file).ok().map(|identity| identity.public())
}

/// How a worker is ended.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Take no new jobs; end when the running ones are done.
    pub drain: CancellationToken,
    /// End the running jobs too.
    pub stop: CancellationToken,
}

impl Shutdown {
    /// Ends with the process's signals: the first SIGTERM or SIGINT drains, the second ends the jobs too.
    pub fn from_signals() -> anyhow::Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be heard")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be heard")?;
        let shutdown = Self::default();
        let tokens = [shutdown.drain.clone(), shutdown.stop.clone()];
        tokio::spawn(async move {
            for token in tokens {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(shutdown)
    }
}

/// Runs attempts, each to its end.
pub trait Executor: Send + Sync {
    /// Gives the report, encoded by [`encode_report`]. Never fails: whatever goes wrong is the report's reason.
    fn execute(&self, job: AssignedJob, observer: Arc<dyn ProgressReporter>) -> BoxFuture<'static, Vec<u8>>;
    /// Removes what an earlier life of this worker left.
    fn sweep(&self) -> BoxFuture<'_, ()>;
}

/// What all parts of a worker share.
struct Worker {
    config: Config,
    identity: Identity,
    attempts: AttemptTable,
    journal: Journal,
    executor: Arc<dyn Executor>,
    bulk: watch::Sender<Option<BulkServiceClient>>,
    /// URL of the bulk service.
    address: watch::Sender<Option<String>>,
    /// Called when a session has come about.
    welcomed: Box<dyn Fn() + Send + Sync>,
}

/// Serves a coordinator until told to end, and calls `welcomed` whenever a session with it has come about. Fails only
/// where it cannot begin: bad keys, no data folder.
pub async fn run(
    config: Config,
    executor: Arc<dyn Executor>,
    shutdown: Shutdown,
    welcomed: impl Fn() + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let identity = Identity::read(&config.identity_file)?;
    let endpoint = connect::endpoint(&config.coordinator, config.ca_file.as_deref())?;
    let journal = Journal::open(&config.data)
        .with_context(|| format!("data folder {}: make it writable or set `data`", config.data.display()))?;
    executor.sweep().await;
    let _sweeping = AbortOnDropHandle::new(tokio::spawn(sweep::run(executor.clone())));
    let worker = Arc::new(Worker {
        identity,
        attempts: AttemptTable::default(),
        journal,
        executor,
        bulk: watch::Sender::new(None),
        address: watch::Sender::new(None),
        welcomed: Box::new(welcomed),
        config,
    });
    attempt::resume(&worker).await?;

    let mut reconnect = Reconnect::new();
    // Why there is no session: a repeated reason is logged once.
    let mut logged: Option<String> = None;
    loop {
        if worker.attempts.is_empty() && shutdown.drain.is_cancelled() {
            return Ok(());
        }
        let began = Instant::now();
        let ended = session::run(&worker, &endpoint, &shutdown).await;
        worker.bulk.send_replace(None);
        worker.address.send_replace(None);
        let lasted = matches!(ended, SessionEnd::Cut(_)).then(|| began.elapsed());
        match ended {
            SessionEnd::Done => return Ok(()),
            SessionEnd::Cut(reason) => {
                warn!(reason, "the session with the coordinator ended; jobs go on, connecting again");
                logged = None;
            }
            SessionEnd::Refused(reason) | SessionEnd::Unreachable(reason) if logged.as_ref() == Some(&reason) => {}
            SessionEnd::Refused(reason) => {
                error!(reason, "the coordinator refuses this worker; trying again");
                logged = Some(reason);
            }
            SessionEnd::Unreachable(reason) => {
                warn!(coordinator = worker.config.coordinator, reason, "no session with a coordinator; trying again");
                logged = Some(reason);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(reconnect.wait(lasted)) => {}
            () = shutdown.stop.cancelled() => {
                // Without a coordinator nobody hears of the results: the journal keeps them for the next start.
                worker.attempts.kill_all();
                worker.attempts.all_ended().await;
                return Ok(());
            }
        }
    }
}
