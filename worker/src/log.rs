//! Masks, numbers, spools and ships output.
//!
//! Flow: a step's bytes pass the [`mask`], become records (time, step, stream, text), and go to a [`LogSink`]: the spool
//! and stream of a worker, or the terminal and file of `longshore exec`.

pub mod mask;
pub mod spool;

use bytes::Bytes;
use futures::future::BoxFuture;

/// One record of a job's log, already masked. The wire form is `proto::worker::LogRecord`.
pub type Record = proto::worker::LogRecord;

/// What a record is of.
pub use proto::worker::LogStream;

/// Takes records in order. Returns when there is room again.
pub trait LogSink: Send + Sync {
    /// Appends records.
    fn append(&self, records: Vec<Record>) -> BoxFuture<'_, std::io::Result<()>>;
    /// Everything appended is safely stored; returns the number of bytes and the SHA-256 of the encoded stream.
    fn finish(&self) -> BoxFuture<'_, std::io::Result<(u64, Bytes)>>;
}
