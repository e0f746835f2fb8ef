//! Carries one connection of a job to the services that actions call.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _};
use proto::worker::{OriginUp, Part, origin_up::Message};
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio_util::{io::ReaderStream, task::AbortOnDropHandle};
use tonic::{Status, Streaming};

use super::{Inner, bulk::caller, tracked};

/// Bytes of one message.
const PIECE: usize = 64 * 1024;

type Parts = Pin<Box<dyn Stream<Item = Result<Part, Status>> + Send>>;

/// The answer ends with the connection; dropped, it takes the connection with it.
pub(super) async fn serve(inner: &Arc<Inner>, mut up: Streaming<OriginUp>) -> Result<Parts, Status> {
    let Some(OriginUp { message: Some(Message::Open(open)) }) = up.message().await? else {
        return Err(Status::invalid_argument("a connection begins with OriginOpen"));
    };
    let caller = caller(inner, open.attempt, &open.token).await?;
    let (attempt, worker, registry) = (caller.attempt.clone(), caller.worker, Arc::clone(inner));
    let held = Arc::new(move || registry.registry.lock().holds(&attempt, &worker));
    let (near, far) = tokio::io::duplex(PIECE);
    let serving = tracked::caught("connection of a job", inner.config.actions_api.serve(caller.attempt, held, far));
    let serving = AbortOnDropHandle::new(inner.tasks.spawn(serving));
    let (reading, writing): (ReadHalf<_>, WriteHalf<_>) = tokio::io::split(near);
    let carrying = AbortOnDropHandle::new(inner.tasks.spawn(tracked::caught("data of a job", carry(up, writing))));
    let down = ReaderStream::with_capacity(reading, PIECE).map(move |piece| {
        let _both = (&serving, &carrying);
        piece.map(|data| Part { data }).map_err(|error| Status::unavailable(error.to_string()))
    });
    Ok(Box::pin(down))
}

/// What the job sends. Its end is the end of this direction alone.
async fn carry(mut up: Streaming<OriginUp>, mut to: WriteHalf<tokio::io::DuplexStream>) {
    while let Ok(Some(OriginUp { message: Some(Message::Data(data)) })) = up.message().await {
        if to.write_all(&data).await.is_err() {
            return;
        }
    }
    // Whoever serves it may have closed it already.
    let _ = to.shutdown().await;
}
