//! The worker side of a coordinator: sessions, offers, leases, logs. The only place that knows gRPC.
//!
//! The store decides which worker holds what: leases and commands to workers are its rows. Here are the [`registry`] of
//! connected workers and offers, a [`session`] with each worker and its [`worker_messages`], the [`assigner`] that offers the
//! jobs of the [`queue`], [`wait_reasons`] for those that can't be offered, [`expiry`] of offers and leases,
//! [`worker_commands`] for cancels and drains, [`bulk`] for logs and objects, and [`actions_connection`] for the services
//! that actions call.

mod actions_connection;
mod assigner;
mod auth;
mod bulk;
mod connection;
mod expiry;
mod messages;
mod peer_proof;
mod queue;
mod refusal_log;
mod registry;
mod server;
mod session;
mod tracked;
mod wait_reasons;
mod worker_commands;
mod worker_messages;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use config::LeaseTimeouts;
use connections::listener::LimitedListener;
use domain::id::{JobKey, RunId};
use domain::run::{AttemptId, Millis};
use futures::{FutureExt as _, future::BoxFuture, stream::BoxStream};
use logs::Logs;
use parking_lot::Mutex;
use proto::worker::{ResolveRequest, Resolved};
use secrecy::SecretString;
use store::{Store, WorkerChange};
use tokio::{io::DuplexStream, sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use workflow::plan::{JobOrder, JobReport};

use self::{
    actions_connection::OpenConnections, peer_proof::PeerProof, queue::QueueCache, refusal_log::RefusalLog,
    registry::WorkerRegistry,
};
pub use self::{
    auth::worker_id,
    connection::{WorkerInbound, WorkerOutbound},
    registry::{ConnectedWorker, WorkerProgram},
    server::ServerTls,
};

/// How long tasks may take to end their work with the store after the port was closed.
const GRACE: Duration = Duration::from_secs(5);

/// What dispatch is made of.
pub struct DispatchConfig {
    /// Queue, leases, workers.
    pub store: Store,
    /// The run service.
    pub runs: Arc<dyn RunCommands>,
    /// Where log bytes go.
    pub logs: Logs,
    /// Where repository objects come from.
    pub objects: Arc<dyn SourceObjects>,
    /// The services that actions call.
    pub actions_api: Arc<dyn ActionsApi>,
    /// Identities (Ed25519 public keys, hex) of workers that need no enrolment.
    pub configured_workers: Vec<String>,
    /// Id of this coordinator: the same after a restart, unlike any other's.
    pub coordinator: String,
    /// Makes attempt and enrolment tokens; the same on every coordinator, e.g. derived from the store key.
    pub token_key: [u8; 32],
    /// URL of the bulk service that workers are given; empty: the address of their session.
    pub bulk_url: String,
    /// Bytes of the log of one attempt.
    pub log_bytes: u64,
    /// Jobs that one worker may have at a time.
    pub worker_slots: u32,
    /// How long leases, offers and cancels last.
    pub timeouts: LeaseTimeouts,
    /// A job whose labels no worker of the pool has is given up after this.
    pub unmatched: Duration,
    /// Unix milliseconds.
    pub clock: fn() -> Millis,
}

/// The worker side of a coordinator. Cloning is cheap.
#[derive(Clone)]
pub struct Dispatch(Arc<Inner>);

struct Inner {
    config: DispatchConfig,
    tokens: auth::Tokens,
    registry: Mutex<WorkerRegistry>,
    queue: Mutex<QueueCache>,
    /// The queue or the free slots changed.
    assign: Notify,
    /// There are offers to expire.
    offered: Notify,
    /// A renewal could not be stored: leases get full terms once the store works again.
    renewals_failed: AtomicBool,
    actions_connections: Arc<OpenConnections>,
    refusals: Mutex<RefusalLog>,
    tasks: TaskTracker,
}

impl Inner {
    /// Worker and repository of an attempt's lease, as known here or else by the store.
    async fn holder(&self, attempt: &AttemptId) -> anyhow::Result<Option<(String, Arc<str>)>> {
        let known =
            self.registry.lock().holder(attempt).map(|holder| (holder.worker.clone(), holder.repository.clone()));
        match known {
            Some(holder) => Ok(Some(holder)),
            None => Ok(self.config.store.lease(attempt).await?.map(|lease| (lease.worker, lease.repository.into()))),
        }
    }

    async fn holds(&self, attempt: &AttemptId, worker: &str) -> anyhow::Result<bool> {
        #[cfg(feature = "testing")]
        if !domain::run::testing::is_fenced() {
            return Ok(true);
        }
        Ok(self.holder(attempt).await?.is_some_and(|(holder, _)| holder == worker))
    }
}

impl DispatchConfig {
    /// The worker side; it serves nothing before [`Dispatch::serve`].
    pub fn build(self) -> Dispatch {
        Dispatch(Arc::new(Inner {
            tokens: auth::Tokens::new(&self.token_key),
            registry: Mutex::new(WorkerRegistry::new(self.timeouts)),
            queue: Mutex::default(),
            assign: Notify::new(),
            offered: Notify::new(),
            actions_connections: Arc::default(),
            renewals_failed: AtomicBool::new(false),
            refusals: Mutex::new(RefusalLog::new(Instant::now())),
            tasks: TaskTracker::new(),
            config: self,
        }))
    }
}

impl Dispatch {
    /// Takes sessions until `stop`; `tls` is `None` in `dev` alone.
    ///
    /// # Errors
    /// The leases can't be read, or the port fails.
    pub async fn serve(
        &self,
        listener: LimitedListener,
        tls: Option<ServerTls>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let (inner, guard) = (&self.0, stop.clone().drop_guard());
        self.read_leases().await?;
        let result =
            tokio::try_join!(server::serve(inner.clone(), listener, tls, stop.clone()), self.run(stop.clone()).map(Ok));
        drop(guard);
        inner.tasks.close();
        if tokio::time::timeout(GRACE, inner.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = inner.tasks.len(), "sessions were cut off");
        }
        result.map(|_| ())
    }

    /// Reads the leases: before the first session, and before [`Self::run`].
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn read_leases(&self) -> anyhow::Result<()> {
        let leases = self.0.config.store.leases().await?;
        self.0.registry.lock().sync_leases(leases, Instant::now());
        Ok(())
    }

    /// Everything but the port, until `stop`: assignment, expiry, wait reasons and commands to workers.
    pub async fn run(&self, stop: CancellationToken) {
        let inner = &self.0;
        tokio::join!(
            assigner::run(inner.clone(), stop.clone()),
            wait_reasons::run(inner.clone(), stop.clone()),
            expiry::offers(inner.clone(), stop.clone()),
            expiry::leases(inner.clone(), stop.clone()),
            worker_commands::run(inner.clone(), stop),
        );
    }

    /// Serves one worker's session to its end, over any transport.
    pub async fn session(&self, inbound: WorkerInbound, outbound: WorkerOutbound, stop: CancellationToken) {
        let Ok(handshake) = PeerProof::default().handshake() else { return };
        session::run(self.0.clone(), inbound, outbound, handshake, stop).await;
    }

    /// Sets whether a worker takes new jobs. The coordinator that has its session sends the command.
    ///
    /// # Errors
    /// The store can't be written.
    pub async fn drain(&self, worker: &str, draining: bool) -> anyhow::Result<()> {
        let change = WorkerChange::Draining { id: worker.to_owned(), draining };
        Ok(self.0.config.store.commit(vec![change.into()]).await?)
    }

    /// Workers connected to this coordinator, by id.
    pub fn workers(&self) -> Vec<ConnectedWorker> {
        self.0.registry.lock().connected()
    }

    /// Jobs that wait for a worker.
    pub fn queued(&self) -> usize {
        self.0.queue.lock().len()
    }

    /// A one-time token with which one unknown worker can enrol until `until`.
    pub fn enrolment_token(&self, until: Millis) -> String {
        self.0.tokens.enrolment(until, rand::random())
    }
}

/// A job that a worker accepted, with what it needs to run it.
#[derive(Debug)]
pub struct Assignment {
    /// The attempt that began.
    pub attempt: AttemptId,
    /// What to do.
    pub order: JobOrder,
    /// Values by name.
    pub secrets: Vec<(String, SecretString)>,
    /// Milliseconds the run may still take; 0: no limit.
    pub time_limit_ms: u64,
}

/// Whether what a worker reports about an attempt counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledgement {
    /// It counts; also for a repeated report.
    Accepted,
    /// The attempt is not current.
    Stale,
}

/// Commands of dispatch to the run service. Every call may be repeated.
pub trait RunCommands: Send + Sync {
    /// A worker accepted a job: its next attempt begins, with a lease in the same transaction. `None`: the job no longer
    /// waits. After an error the attempt did not begin, or is lost.
    fn begin<'a>(
        &'a self,
        run: &'a RunId,
        job: &'a JobKey,
        worker: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<Option<Assignment>>>;
    /// The first step is about to start.
    fn begun<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, anyhow::Result<Acknowledgement>>;
    /// The attempt ended; so does its lease.
    fn finished<'a>(
        &'a self,
        attempt: &'a AttemptId,
        report: JobReport,
    ) -> BoxFuture<'a, anyhow::Result<Acknowledgement>>;
    /// The lease ran out, or the worker no longer has the attempt; the lease ends.
    fn lost<'a>(&'a self, attempt: &'a AttemptId, reason: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// Why queued jobs of a run still wait: job key and a sentence for people.
    fn wait_reasons<'a>(&'a self, run: &'a RunId, reasons: Vec<(JobKey, String)>) -> BoxFuture<'a, anyhow::Result<()>>;
    /// No worker had the labels for the configured time.
    fn unmatched<'a>(&'a self, run: &'a RunId, job: &'a JobKey) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// Where repository objects come from.
pub trait SourceObjects: Send + Sync {
    /// A git bundle with commits (and tag objects) and their history, less what `have` reaches.
    fn bundle<'a>(
        &'a self,
        repository: &'a str,
        wanted: &'a [String],
        have: &'a [String],
    ) -> BoxFuture<'a, anyhow::Result<BoxStream<'static, std::io::Result<Bytes>>>>;
    /// What a workflow of the repository `own` means by a name; its objects are here afterwards.
    fn resolve<'a>(&'a self, own: &'a str, request: &'a ResolveRequest) -> BoxFuture<'a, anyhow::Result<Resolved>>;
    /// The files of a commit that was resolved before, as tar.
    fn archive<'a>(
        &'a self,
        repository: &'a str,
        commit: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<BoxStream<'static, std::io::Result<Bytes>>>>;
}

/// The services that actions call.
pub trait ActionsApi: Send + Sync {
    /// An attempt's access to them; `None`: it gets none.
    fn access<'a>(&'a self, attempt: &'a AttemptId, order: &'a JobOrder) -> Option<ActionsAccess>;
    /// Serves one connection of an attempt to its end. `held` says whether the attempt still is its worker's.
    fn serve(
        &self,
        attempt: AttemptId,
        held: Arc<dyn Fn() -> bool + Send + Sync>,
        connection: DuplexStream,
    ) -> BoxFuture<'static, ()>;
}

/// An attempt's access to the services that actions call.
#[derive(Debug)]
pub struct ActionsAccess {
    /// Its token.
    pub token: SecretString,
    /// It may ask for OIDC tokens.
    pub id_token: bool,
}
