//! Connects one connection of a job to the services that actions call.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use domain::run::AttemptId;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use proto::worker::{ActionsApiRequest, DataChunk, actions_api_request::Message};
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio_util::{io::ReaderStream, task::AbortOnDropHandle};
use tonic::{Status, Streaming};

use super::{Inner, bulk::caller, peer_proof::PeerProof, tracked};

/// Bytes of one message.
const CHUNK: usize = 64 * 1024;

/// Connections of one attempt at a time: each has buffers here, whoever opened it in the job.
const CONNECTIONS: usize = 64;

/// How many connections attempts have.
#[derive(Default)]
pub(super) struct OpenConnections(Mutex<HashMap<AttemptId, usize>>);

impl OpenConnections {
    /// Counts a further one, as long as what is given lives; `None`: the attempt has as many as it may.
    fn open(self: &Arc<Self>, attempt: &AttemptId) -> Option<OpenConnection> {
        let mut open = self.0.lock();
        let count = open.entry(attempt.clone()).or_default();
        (*count < CONNECTIONS).then(|| {
            *count += 1;
            OpenConnection { all: Arc::clone(self), attempt: attempt.clone() }
        })
    }
}

/// One of them.
struct OpenConnection {
    all: Arc<OpenConnections>,
    attempt: AttemptId,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut open = self.all.0.lock();
        if let Some(count) = open.get_mut(&self.attempt) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.attempt);
            }
        }
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<DataChunk, Status>> + Send>>;

/// The response ends with the connection; dropping it closes the connection.
pub(super) async fn serve(
    inner: &Arc<Inner>,
    mut up: Streaming<ActionsApiRequest>,
    proof: &PeerProof,
) -> Result<Chunks, Status> {
    let Some(ActionsApiRequest { message: Some(Message::Open(open)) }) = up.message().await? else {
        return Err(Status::invalid_argument("a connection begins with ActionsApiOpen"));
    };
    let caller = caller(inner, proof, open.attempt, &open.token).await?;
    let counted = inner.actions_connections.open(&caller.attempt).ok_or_else(|| {
        Status::resource_exhausted(format!("a job may have {CONNECTIONS} connections to the services at a time"))
    })?;
    let (attempt, worker, registry) = (caller.attempt.clone(), caller.worker, Arc::clone(inner));
    let held = Arc::new(move || registry.registry.lock().holds(&attempt, &worker));
    let (near, far) = tokio::io::duplex(CHUNK);
    let serving = tracked::caught("connection of a job", inner.config.actions_api.serve(caller.attempt, held, far));
    let serving = AbortOnDropHandle::new(inner.tasks.spawn(serving));
    let (reading, writing): (ReadHalf<_>, WriteHalf<_>) = tokio::io::split(near);
    let sending = AbortOnDropHandle::new(inner.tasks.spawn(tracked::caught("data of a job", forward(up, writing))));
    let down = ReaderStream::with_capacity(reading, CHUNK).map(move |data| {
        let _all = (&serving, &sending, &counted);
        data.map(|data| DataChunk { data }).map_err(|error| Status::unavailable(error.to_string()))
    });
    Ok(Box::pin(down))
}

/// Writes what the job sends. The end of its stream closes this direction alone.
async fn forward(mut up: Streaming<ActionsApiRequest>, mut to: WriteHalf<tokio::io::DuplexStream>) {
    while let Ok(Some(ActionsApiRequest { message: Some(Message::Data(data)) })) = up.message().await {
        if to.write_all(&data).await.is_err() {
            return;
        }
    }
    // Whoever serves it may have closed it already.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]
    use super::*;

    #[test]
    fn attack_59_an_attempt_has_a_number_of_connections_to_the_services() {
        let attempt = |number| AttemptId { run: "r".into(), job: "j".into(), number };
        let all = Arc::new(OpenConnections::default());
        let mut open: Vec<_> = (0..CONNECTIONS).map(|_| all.open(&attempt(1)).unwrap()).collect();
        assert!(all.open(&attempt(1)).is_none());
        assert!(all.open(&attempt(2)).is_some());
        open.pop();
        open.push(all.open(&attempt(1)).unwrap());
        assert!(all.open(&attempt(1)).is_none());
        drop(open);
        assert!(all.0.lock().is_empty());
    }
}
