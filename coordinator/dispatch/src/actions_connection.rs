//! Connects one connection of a job to the services that actions call.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _};
use proto::worker::{ActionsApiRequest, DataChunk, actions_api_request::Message};
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio_util::{io::ReaderStream, task::AbortOnDropHandle};
use tonic::{Status, Streaming};

use super::{Inner, bulk::caller, peer_proof::PeerProof, tracked};

/// Bytes of one message.
const CHUNK: usize = 64 * 1024;

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
    let (attempt, worker, registry) = (caller.attempt.clone(), caller.worker, Arc::clone(inner));
    let held = Arc::new(move || registry.registry.lock().holds(&attempt, &worker));
    let (near, far) = tokio::io::duplex(CHUNK);
    let serving = tracked::caught("connection of a job", inner.config.actions_api.serve(caller.attempt, held, far));
    let serving = AbortOnDropHandle::new(inner.tasks.spawn(serving));
    let (reading, writing): (ReadHalf<_>, WriteHalf<_>) = tokio::io::split(near);
    let sending = AbortOnDropHandle::new(inner.tasks.spawn(tracked::caught("data of a job", forward(up, writing))));
    let down = ReaderStream::with_capacity(reading, CHUNK).map(move |data| {
        let _both = (&serving, &sending);
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
