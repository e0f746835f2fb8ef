//! Sessions with workers: offers, leases, logs, blobs. The only place that knows gRPC.
//!
//! What it needs of the other stages it asks through the traits below; `serve` implements them.

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use secrecy::SecretString;
use workflow::plan::{JobOrder, JobReport};

use crate::store::Queued;

/// (run, job, attempt): what a lease is for. The number is the fencing token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AttemptId {
    /// Run id.
    pub run: String,
    /// Job key.
    pub job: String,
    /// From 1.
    pub number: u32,
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
    fn queued(&self) -> BoxFuture<'_, anyhow::Result<Vec<Queued>>>;
    /// A worker accepted a job: its next attempt begins. `None`: it waits no longer.
    fn begin<'a>(&'a self, run: &'a str, job: &'a str, worker: &'a str) -> BoxFuture<'a, anyhow::Result<Option<Handout>>>;
    /// Whether the attempt is current and held by this worker.
    fn holds<'a>(&'a self, attempt: &'a AttemptId, worker: &'a str) -> BoxFuture<'a, anyhow::Result<bool>>;
    /// Attempts that are current by the store, with their worker: each gets a full lease term after a restart.
    fn leased(&self) -> BoxFuture<'_, anyhow::Result<Vec<(AttemptId, String)>>>;
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
    /// A git bundle with the commit and its history, less what `have` reaches.
    fn bundle<'a>(
        &'a self,
        repository: &'a str,
        commit: &'a str,
        have: &'a [String],
    ) -> BoxFuture<'a, anyhow::Result<BoxStream<'static, std::io::Result<Bytes>>>>;
}
