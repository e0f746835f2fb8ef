//! Sessions with workers: offers, leases, logs, blobs. The only place that knows gRPC.
//!
//! What it needs of the other stages it asks through the traits below; `serve` implements them. [`pool`] holds who is
//! connected and who holds what, [`session`] speaks with one worker, [`bulk`] takes logs and gives objects, [`origin`]
//! carries jobs' connections,
//! [`hand_out`] offers queued jobs, [`deadline`] ends what was not renewed in time.

mod bulk;
mod deadline;
mod enrol;
mod hand_out;
mod origin;
mod pool;
mod server;
mod session;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture, stream::BoxStream};
use parking_lot::{Mutex, MutexGuard};
use proto::worker::{ResolveRequest, Resolved};
use secrecy::SecretString;
use tokio::{io::DuplexStream, net::TcpListener, sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use workflow::plan::{JobOrder, JobReport};

use self::pool::Pool;
pub use self::{
    enrol::worker_id,
    pool::Connected,
    server::ServerTls,
    session::{Inbound, Outbound},
};
use domain::run::AttemptId;
use domain::run::Millis;
use domain::schedule::QueuedJob;
use store::WorkerRow;

/// How long things may take. All are measured on a monotonic clock.
#[derive(Debug, Clone)]
pub struct Terms {
    /// A worker that is not heard of for this long has lost its attempts.
    pub lease: Duration,
    /// How often a worker renews.
    pub renew: Duration,
    /// An offer that is not accepted by then goes back to the queue; it is no try.
    pub offer: Duration,
    /// A cancel that is not confirmed by then costs the worker the slot.
    pub confirm: Duration,
    /// A job whose labels no worker has is given up then.
    pub unmatched: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            renew: Duration::from_secs(10),
            offer: Duration::from_secs(5),
            confirm: Duration::from_secs(60),
            unmatched: Duration::from_secs(3600),
        }
    }
}

/// What dispatch is made of.
pub struct Parts {
    /// The run side.
    pub runs: Arc<dyn Runs>,
    /// Where log bytes go.
    pub logs: Arc<dyn Logs>,
    /// Where repository objects come from.
    pub objects: Arc<dyn Objects>,
    /// The services that actions call.
    pub origin: Arc<dyn Origin>,
    /// Who may be a worker.
    pub enrolment: Arc<dyn Enrolment>,
    /// Makes attempt and enrolment tokens; the same on every coordinator, e.g. derived from the store key.
    pub token_key: [u8; 32],
    /// URL of the bulk service that workers are told; empty: where their session is.
    pub bulk_url: String,
    /// How long things may take.
    pub terms: Terms,
}

/// The worker side of a coordinator. Cloning is cheap.
#[derive(Clone)]
pub struct Dispatch(Arc<Inner>);

struct Inner {
    parts: Parts,
    tokens: enrol::Tokens,
    pool: Mutex<Pool>,
    /// The queue or the free slots changed.
    wake: Notify,
    /// There is an earlier deadline than the one waited for.
    rearm: Notify,
}

impl Inner {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock()
    }

    /// Changes the pool, then tells those who wait for what the change may have brought.
    fn change<T>(&self, with: impl FnOnce(&mut Pool) -> T) -> T {
        let (value, earlier) = {
            let mut pool = self.pool();
            let value = with(&mut pool);
            (value, pool.take_earlier())
        };
        if earlier {
            self.rearm.notify_one();
        }
        value
    }
}

impl Dispatch {
    /// Reads which attempts are out, each with a full lease term from now: their workers may come back with them.
    pub async fn open(parts: Parts) -> anyhow::Result<Self> {
        let mut pool = Pool::new(parts.terms.clone());
        let now = Instant::now();
        for leased in parts.runs.leased().await? {
            pool.restore(leased, now);
        }
        let tokens = enrol::Tokens::new(&parts.token_key);
        Ok(Self(Arc::new(Inner { parts, tokens, pool: Mutex::new(pool), wake: Notify::new(), rearm: Notify::new() })))
    }

    /// Takes sessions until `stop`; `tls` is `None` in `dev` alone.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Option<ServerTls>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let (inner, guard) = (&self.0, stop.clone().drop_guard());
        let result =
            tokio::try_join!(server::serve(inner.clone(), listener, tls, stop.clone()), self.run(stop.clone()).map(Ok));
        drop(guard);
        result.map(|_| ())
    }

    /// Assigns jobs and lets what is over expire, until `stop`: all but the port.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::join!(hand_out::run(self.0.clone(), stop.clone()), deadline::run(self.0.clone(), stop));
    }

    /// Serves one worker's session to its end, whatever carries its messages.
    pub async fn session(&self, inbound: Inbound, outbound: Outbound, stop: CancellationToken) {
        session::run(self.0.clone(), inbound, outbound, stop).await;
    }

    /// The queue changed.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Asks the worker that holds an attempt to end it. False: nobody holds it.
    pub fn cancel(&self, attempt: &AttemptId, reason: &str) -> bool {
        self.0.change(|pool| pool.cancel(attempt, reason, Instant::now()))
    }

    /// Sets whether a worker takes new jobs. False: it is not connected.
    pub fn drain(&self, worker: &str, draining: bool) -> bool {
        let known = self.0.change(|pool| pool.drain(worker, draining));
        self.wake();
        known
    }

    /// Connected workers, by id.
    pub fn workers(&self) -> Vec<Connected> {
        self.0.pool().connected()
    }

    /// A one-time token with which one unknown worker can enrol until `until`.
    pub fn enrolment_token(&self, until: Millis) -> String {
        self.0.tokens.enrolment(until, rand::random())
    }
}

/// An attempt as messages name it.
fn attempt_message(id: &AttemptId) -> proto::worker::Attempt {
    proto::worker::Attempt { run: id.run.clone(), job: id.job.clone(), attempt: id.number }
}

/// The attempt that a message names.
fn attempt_id(message: proto::worker::Attempt) -> AttemptId {
    AttemptId { run: message.run, job: message.job, number: message.attempt }
}

/// What a worker gets for an attempt.
#[derive(Debug)]
pub struct Handout {
    /// The attempt that began.
    pub attempt: AttemptId,
    /// What to do.
    pub order: JobOrder,
    /// Values by name.
    pub secrets: Vec<(String, SecretString)>,
    /// Further values to mask.
    pub masks: Vec<SecretString>,
    /// 0: none.
    pub time_limit_ms: u64,
}

/// An attempt that is out by the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// The attempt.
    pub attempt: AttemptId,
    /// Id of its worker.
    pub worker: String,
    /// Address of its repository; empty: none.
    pub repository: String,
    /// It is being cancelled, with the reason.
    pub cancelling: Option<String>,
}

/// The answer to a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts (now, or it did before).
    Accepted,
    /// The attempt is not current.
    Stale,
}

/// The run side, as dispatch sees it. All calls may be repeated.
pub trait Runs: Send + Sync {
    /// Jobs that wait, oldest first.
    fn queued(&self) -> BoxFuture<'_, anyhow::Result<Vec<QueuedJob>>>;
    /// A worker accepted a job: its next attempt begins. `None`: it waits no longer.
    fn begin<'a>(
        &'a self,
        run: &'a str,
        job: &'a str,
        worker: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<Option<Handout>>>;
    /// Whether the attempt is current and held by this worker.
    fn holds<'a>(&'a self, attempt: &'a AttemptId, worker: &'a str) -> BoxFuture<'a, anyhow::Result<bool>>;
    /// Attempts that are current by the store: each gets a full lease term after a restart.
    fn leased(&self) -> BoxFuture<'_, anyhow::Result<Vec<Leased>>>;
    /// The first step is about to start.
    fn begun<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, anyhow::Result<Verdict>>;
    /// The attempt ended.
    fn finished<'a>(&'a self, attempt: &'a AttemptId, report: JobReport) -> BoxFuture<'a, anyhow::Result<Verdict>>;
    /// The lease ran out, or the worker no longer has the attempt.
    fn lost<'a>(&'a self, attempt: &'a AttemptId, reason: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// Why a queued job still waits, for people.
    fn waits<'a>(&'a self, run: &'a str, job: &'a str, reason: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// No worker had the labels for the configured time.
    fn unmatched<'a>(&'a self, run: &'a str, job: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// Where log bytes go. `Bytes` are encoded records, see `worker.proto`.
pub trait Logs: Send + Sync {
    /// Bytes already there for the attempt.
    fn open<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, anyhow::Result<u64>>;
    /// Appends at an offset; a repeated range is skipped, a gap is an error. Returns the new length.
    fn append<'a>(&'a self, attempt: &'a AttemptId, offset: u64, data: Bytes) -> BoxFuture<'a, anyhow::Result<u64>>;
    /// Everything appended so far survives a crash after this returns. Returns the length.
    fn sync<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, anyhow::Result<u64>>;
    /// The log is complete: checks total and SHA-256.
    fn close<'a>(&'a self, attempt: &'a AttemptId, total: u64, sha256: &'a [u8]) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// Where repository objects come from.
pub trait Objects: Send + Sync {
    /// A git bundle with commits (and tag objects) and their history, less what `have` reaches.
    fn bundle<'a>(
        &'a self,
        repository: &'a str,
        wanted: &'a [String],
        have: &'a [String],
    ) -> BoxFuture<'a, anyhow::Result<BoxStream<'static, std::io::Result<Bytes>>>>;
    /// What a workflow of the repository `own` means by a name; its objects are here afterwards.
    fn resolve<'a>(&'a self, own: &'a str, asked: &'a ResolveRequest) -> BoxFuture<'a, anyhow::Result<Resolved>>;
    /// The files of a commit that was resolved before, as tar.
    fn archive<'a>(
        &'a self,
        repository: &'a str,
        commit: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<BoxStream<'static, std::io::Result<Bytes>>>>;
}

/// The services that actions call.
pub trait Origin: Send + Sync {
    /// What an attempt is given for them; `None`: it gets none.
    fn access<'a>(&'a self, attempt: &'a AttemptId, order: &'a JobOrder) -> Option<Access>;
    /// Serves one connection of an attempt to its end. `held` says whether the attempt still is its worker's.
    fn serve(
        &self,
        attempt: AttemptId,
        held: Arc<dyn Fn() -> bool + Send + Sync>,
        connection: DuplexStream,
    ) -> BoxFuture<'static, ()>;
}

/// What an attempt is given for the services that actions call.
#[derive(Debug)]
pub struct Access {
    /// Its token.
    pub token: SecretString,
    /// It may ask for OIDC tokens.
    pub id_token: bool,
}

/// Who may be a worker. The store's table of workers, and the configured identities.
pub trait Enrolment: Send + Sync {
    /// The worker with this identity (Ed25519 public key, hex), if it was enrolled or is configured.
    fn known<'a>(&'a self, identity: &'a str) -> BoxFuture<'a, anyhow::Result<Option<WorkerRow>>>;
    /// Enrols a worker with a one-time token whose id is `token`. False: the token was used before. Both are one
    /// transaction.
    fn enrol<'a>(&'a self, worker: &'a WorkerRow, token: &'a str) -> BoxFuture<'a, anyhow::Result<bool>>;
    /// A known worker connected, as described.
    fn seen<'a>(&'a self, worker: &'a WorkerRow) -> BoxFuture<'a, anyhow::Result<()>>;
}
