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
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Identity, Server, ServerTlsConfig},
};

use super::{
    Inner, actions_connection, bulk,
    peer_proof::{self, PeerProof, UnprovenCall},
    session, tracked,
};
use connections::listener::LimitedListener;

/// Control messages that wait for one worker to read them; with more the session is ended.
const OUTBOX: usize = 256;
/// HTTP/2 window of a connection and of a stream, in bytes: enough for a log at wire speed.
const WINDOW: u32 = 4 * 1024 * 1024;
/// Calls on one connection at a time: a worker has one for each job's log and for each connection of an action.
const CALLS: u32 = 4096;
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
    listener: LimitedListener,
    tls: Option<ServerTls>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut server = Server::builder()
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .max_concurrent_streams(CALLS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE));
    if let Some(tls) = tls {
        let config = ServerTlsConfig::new().identity(Identity::from_pem(&tls.certificate, &tls.key));
        server =
            server.tls_config(config).context("TLS of the worker port: certificate and key don't work together")?;
    }
    let service = Service { inner, stop: stop.clone() };
    let limit = proto::MESSAGE_LIMIT;
    // A report that is too long, though not by far, is still read, so that its worker can be told.
    let session_limit = 2 * limit;
    server
        .add_service(WorkersServer::new(service.clone()).max_decoding_message_size(session_limit))
        .add_service(InterceptedService::new(BulkServer::new(service).max_decoding_message_size(limit), count_call))
        .serve_with_incoming_shutdown(peer_proof::incoming(listener), stop.cancelled_owned())
        .await
        .context("worker port")
}

/// Counts a call from its first byte on, as long as its connection is not proven.
fn count_call(mut request: Request<()>) -> Result<Request<()>, Status> {
    let call = PeerProof::of(request.extensions()).begin_call()?;
    request.extensions_mut().insert(call);
    Ok(request)
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
        let handshake = PeerProof::of(request.extensions()).handshake()?;
        let session = session::run(self.inner.clone(), request.into_inner().boxed(), out, handshake, self.stop.clone());
        tracked::spawn(&self.inner.tasks, "session of a worker", session);
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Who is at the other end of a call, and its place among those that showed no token, held until it did.
fn started<T>(request: &Request<T>) -> (PeerProof, Option<UnprovenCall>) {
    (PeerProof::of(request.extensions()), request.extensions().get().cloned())
}

#[tonic::async_trait]
impl Bulk for Service {
    type LogsStream = ReceiverStream<Result<LogAck, Status>>;
    type SourceStream = Chunks;
    type ArchiveStream = Chunks;
    type ActionsApiStream = Chunks;

    async fn logs(&self, request: Request<Streaming<LogRequest>>) -> Result<Response<Self::LogsStream>, Status> {
        let (acks, stream) = mpsc::channel(4);
        let (proof, call) = started(&request);
        let taking = bulk::logs(self.inner.clone(), request.into_inner(), (proof, call), acks, self.stop.clone());
        tracked::spawn(&self.inner.tasks, "log stream", taking);
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn source(&self, request: Request<SourceRequest>) -> Result<Response<Self::SourceStream>, Status> {
        let (proof, _call) = started(&request);
        bulk::source(&self.inner, request.into_inner(), &proof).await.map(Response::new)
    }

    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<Resolved>, Status> {
        let (proof, _call) = started(&request);
        bulk::resolve(&self.inner, request.into_inner(), &proof).await.map(Response::new)
    }

    async fn archive(&self, request: Request<ArchiveRequest>) -> Result<Response<Self::ArchiveStream>, Status> {
        let (proof, _call) = started(&request);
        bulk::archive(&self.inner, request.into_inner(), &proof).await.map(Response::new)
    }

    async fn actions_api(&self, request: Request<Streaming<ActionsApiRequest>>) -> Result<Response<Chunks>, Status> {
        let (proof, _call) = started(&request);
        actions_connection::serve(&self.inner, request.into_inner(), &proof).await.map(Response::new)
    }
}
