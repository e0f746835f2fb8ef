//! The gRPC port: sockets, TLS, and the two services.

use std::{pin::Pin, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::{Stream, StreamExt as _};
use proto::worker::{
    ActionsApiRequest, ArchiveRequest, DataChunk, FromWorker, LogAck, LogRequest, ResolveRequest, Resolved,
    SourceRequest, ToWorker,
    bulk_server::{Bulk, BulkServer},
    workers_server::{Workers, WorkersServer},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

use super::{Inner, actions_connection, bulk, session, tracked};

/// Control messages that wait for one worker to read them; with more the session is ended.
const OUTBOX: usize = 256;
/// HTTP/2 window of a connection and of a stream, in bytes: enough for a log at wire speed.
const WINDOW: u32 = 4 * 1024 * 1024;
/// Idle time before an HTTP/2 ping, and the time its answer may take.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Certificate chain and private key of the worker port, PEM.
#[derive(Clone)]
pub struct ServerTls {
    /// Certificate chain.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: zeroize::Zeroizing<Vec<u8>>,
}

pub(super) async fn serve(
    inner: Arc<Inner>,
    listener: TcpListener,
    tls: Option<ServerTls>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut server = Server::builder()
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE));
    if let Some(tls) = tls {
        let config = ServerTlsConfig::new().identity(Identity::from_pem(&tls.certificate, &tls.key));
        server =
            server.tls_config(config).context("TLS of the worker port: certificate and key don't work together")?;
    }
    let service = Service { inner, stop: stop.clone() };
    let limit = proto::MESSAGE_LIMIT;
    // Without TCP_NODELAY on accepted sockets every call waits 40 ms for the peer's delayed acknowledgement.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server
        .add_service(WorkersServer::new(service.clone()).max_decoding_message_size(limit))
        .add_service(BulkServer::new(service).max_decoding_message_size(limit))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
        .context("worker port")
}

#[derive(Clone)]
struct Service {
    inner: Arc<Inner>,
    stop: CancellationToken,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<DataChunk, Status>> + Send>>;

#[tonic::async_trait]
impl Workers for Service {
    type SessionStream = ReceiverStream<Result<ToWorker, Status>>;

    async fn session(&self, request: Request<Streaming<FromWorker>>) -> Result<Response<Self::SessionStream>, Status> {
        let (out, stream) = mpsc::channel(OUTBOX);
        let session = session::run(self.inner.clone(), request.into_inner().boxed(), out, self.stop.clone());
        tracked::spawn(&self.inner.tasks, "session of a worker", session);
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl Bulk for Service {
    type LogsStream = ReceiverStream<Result<LogAck, Status>>;
    type SourceStream = Chunks;
    type ArchiveStream = Chunks;
    type ActionsApiStream = Chunks;

    async fn logs(&self, request: Request<Streaming<LogRequest>>) -> Result<Response<Self::LogsStream>, Status> {
        let (acks, stream) = mpsc::channel(4);
        let taking = bulk::logs(self.inner.clone(), request.into_inner(), acks, self.stop.clone());
        tracked::spawn(&self.inner.tasks, "log stream", taking);
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn source(&self, request: Request<SourceRequest>) -> Result<Response<Self::SourceStream>, Status> {
        bulk::source(&self.inner, request.into_inner()).await.map(Response::new)
    }

    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<Resolved>, Status> {
        bulk::resolve(&self.inner, request.into_inner()).await.map(Response::new)
    }

    async fn archive(&self, request: Request<ArchiveRequest>) -> Result<Response<Self::ArchiveStream>, Status> {
        bulk::archive(&self.inner, request.into_inner()).await.map(Response::new)
    }

    async fn actions_api(&self, request: Request<Streaming<ActionsApiRequest>>) -> Result<Response<Chunks>, Status> {
        actions_connection::serve(&self.inner, request.into_inner()).await.map(Response::new)
    }
}
