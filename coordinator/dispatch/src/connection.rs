//! One worker's connection: its messages in both directions, and the handle with which a session answers.

use std::sync::Arc;

use domain::run::AttemptId;
use futures::stream::BoxStream;
use proto::worker::{FromWorker, ToWorker, to_worker::Message};
use tokio::sync::mpsc;
use tonic::Status;

use super::{Inner, messages};

/// Messages of one worker, in order; the end of the stream or an error ends its session.
pub type WorkerInbound = BoxStream<'static, Result<FromWorker, Status>>;

/// Where messages to one worker go.
pub type WorkerOutbound = mpsc::Sender<Result<ToWorker, Status>>;

/// An authenticated session. What it sends is dropped once a newer session of the worker has begun.
pub(super) struct Session {
    pub(super) inner: Arc<Inner>,
    /// Id of the worker in the pool.
    pub(super) worker: String,
    pub(super) generation: u64,
}

impl Session {
    pub(super) fn send(&self, message: Message) {
        self.inner.registry.lock().send(&self.worker, self.generation, message);
    }

    /// Tells the worker to end an attempt that it does not hold.
    pub(super) fn stop(&self, attempt: &AttemptId) {
        self.send(messages::stop(attempt, "the attempt is not this worker's, or is over"));
    }
}
