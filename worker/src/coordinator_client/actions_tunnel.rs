//! Carries a job's connections to the coordinator, where the services that actions call are.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use proto::worker::{
    ActionsApiOpen, ActionsApiRequest, Attempt, actions_api_request::Message, bulk_client::BulkClient,
};
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream},
    sync::Mutex,
};
use tokio_util::io::ReaderStream;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tracing::debug;

use super::bulk::BulkEndpointWatch;
use crate::job::Tunnel;

/// Bytes of one message.
const MESSAGE_BYTES: usize = 64 * 1024;
/// How long a connection of a job waits for a coordinator.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// The way of one attempt. It has a connection to the coordinator of its own: what this job does not read must not fill
/// the window that other jobs' logs need.
pub(super) struct ActionsTunnel(Arc<TunnelState>);

struct TunnelState {
    address: BulkEndpointWatch,
    attempt: Attempt,
    token: String,
    channel: Mutex<Option<(Endpoint, Channel)>>,
}

impl ActionsTunnel {
    pub(super) fn new(address: BulkEndpointWatch, attempt: Attempt, token: String) -> Self {
        Self(Arc::new(TunnelState { address, attempt, token, channel: Mutex::default() }))
    }
}

impl Tunnel for ActionsTunnel {
    fn serve(&self, connection: DuplexStream) -> BoxFuture<'static, ()> {
        let inner = Arc::clone(&self.0);
        async move {
            if let Err(status) = inner.carry(connection).await {
                debug!(reason = status.message(), "a connection of a job broke");
            }
        }
        .boxed()
    }
}

impl TunnelState {
    async fn channel(&self) -> Result<Channel, Status> {
        let mut address = self.address.clone();
        let wait = tokio::time::timeout(CONNECT_TIMEOUT, address.wait_for(Option::is_some)).await;
        let endpoint = wait.ok().and_then(|found| found.ok()?.clone());
        let endpoint = endpoint.ok_or_else(|| Status::unavailable("there is no coordinator"))?;
        let mut known = self.channel.lock().await;
        match known.as_ref() {
            Some((at, channel)) if at.uri() == endpoint.uri() => Ok(channel.clone()),
            _ => {
                let channel = endpoint.connect_lazy();
                *known = Some((endpoint, channel.clone()));
                Ok(channel)
            }
        }
    }

    async fn carry(&self, connection: DuplexStream) -> Result<(), Status> {
        let mut client = BulkClient::new(self.channel().await?).max_decoding_message_size(proto::MESSAGE_LIMIT);
        let (reading, mut writing) = tokio::io::split(connection);
        let open = ActionsApiOpen { attempt: Some(self.attempt.clone()), token: self.token.clone() };
        let open = ActionsApiRequest { message: Some(Message::Open(open)) };
        let data = |data: Bytes| ActionsApiRequest { message: Some(Message::Data(data)) };
        let pieces = ReaderStream::with_capacity(reading, MESSAGE_BYTES);
        // A side that breaks ends its direction; the coordinator sees a request that is cut off.
        let pieces = pieces.take_while(|piece| std::future::ready(piece.is_ok())).filter_map(async |piece| piece.ok());
        let up = futures::stream::iter([open]).chain(pieces.map(data));
        let mut down = client.actions_api(up).await?.into_inner();
        let broken = |error: std::io::Error| Status::cancelled(error.to_string());
        while let Some(part) = down.message().await? {
            writing.write_all(&part.data).await.map_err(broken)?;
        }
        writing.shutdown().await.map_err(broken)
    }
}
