//! What a job's process says to its worker, one message after the other.

use bytes::Bytes;
use futures::SinkExt as _;
use prost::Message as _;
use proto::job_process::{FromJobProcess, from_job_process::Message};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::socket::FrameWriter;

/// A message, and who waits until it is written.
struct QueuedMessage {
    message: Message,
    written: Option<oneshot::Sender<()>>,
}

/// Sends messages to the worker. What may come often waits until it is written.
#[derive(Clone)]
pub(super) struct WorkerLink(mpsc::UnboundedSender<QueuedMessage>);

impl WorkerLink {
    /// Messages are written until the handle is dropped.
    pub(super) fn new(writer: FrameWriter) -> (Self, AbortOnDropHandle<()>) {
        let (messages, queue) = mpsc::unbounded_channel();
        (Self(messages), AbortOnDropHandle::new(tokio::spawn(write_all(writer, queue))))
    }

    pub(super) fn send(&self, message: Message) {
        // A worker that is gone has ended this process.
        let _ = self.0.send(QueuedMessage { message, written: None });
    }

    pub(super) async fn send_and_wait(&self, message: Message) {
        let (written, wait) = oneshot::channel();
        let _ = self.0.send(QueuedMessage { message, written: Some(written) });
        let _ = wait.await;
    }
}

async fn write_all(mut writer: FrameWriter, mut queue: mpsc::UnboundedReceiver<QueuedMessage>) {
    while let Some(QueuedMessage { message, written }) = queue.recv().await {
        let frame = FromJobProcess { message: Some(message) }.encode_to_vec();
        if let Err(error) = writer.send(Bytes::from(frame)).await {
            tracing::error!(%error, "a message to the worker could not be sent");
            return;
        }
        if let Some(written) = written {
            let _ = written.send(());
        }
    }
}
