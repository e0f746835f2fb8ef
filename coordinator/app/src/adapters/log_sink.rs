//! Log bytes of workers, as dispatch hands them over.

use bytes::Bytes;
use domain::run::AttemptId;
use futures::{FutureExt, future::BoxFuture};

/// Where log bytes of workers go.
pub(crate) struct LogSink(pub(crate) logs::Logs);

impl dispatch::Logs for LogSink {
    fn open<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, anyhow::Result<u64>> {
        self.0.open(&attempt.run, &attempt.job, attempt.number).boxed()
    }

    fn append<'a>(&'a self, attempt: &'a AttemptId, offset: u64, data: Bytes) -> BoxFuture<'a, anyhow::Result<u64>> {
        self.0.append(&attempt.run, &attempt.job, attempt.number, offset, data).boxed()
    }

    fn sync<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, anyhow::Result<u64>> {
        self.0.sync(&attempt.run, &attempt.job, attempt.number).boxed()
    }

    fn close<'a>(&'a self, attempt: &'a AttemptId, total: u64, sha256: &'a [u8]) -> BoxFuture<'a, anyhow::Result<()>> {
        self.0.close(&attempt.run, &attempt.job, attempt.number, total, sha256).boxed()
    }
}
