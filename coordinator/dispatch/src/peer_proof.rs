//! Connections of the worker port: who is at the other end has to prove within a deadline that it is a worker. Until then
//! a connection counts for its address, and may send little.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use connections::{
    client_address::ClientAddress,
    listener::{Accepted, LimitedListener},
    shares::{Limits, Permit, Shares},
};
use futures::{Stream, future::BoxFuture, stream};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};
use tonic::{
    Extensions, Status,
    transport::server::{Connected, TlsConnectInfo},
};

/// Time for the handshakes of TLS and HTTP/2, and for `Register` and `Proof` or the token of an attempt.
const DEADLINE: Duration = Duration::from_secs(20);
/// Bytes that are read meanwhile: room for a worker that names some thousand attempts, or all refs of a repository. What
/// is beyond the first of them counts for all such connections together.
const BYTES: usize = 512 * 1024;
const FIRST_BYTES: usize = 32 * 1024;
const BYTES_OF_ALL: usize = 64 * 1024 * 1024;
/// Connections that are at it at a time, in all and from one address. A worker that finds no room tries again: after a
/// restart all workers of a pool come at once, maybe from one address.
const UNPROVEN: Limits = Limits { all: 2048, each: 1024 };
/// Sessions that are at it on one connection.
const SESSIONS: usize = 4;

/// Whether somebody proved to be a worker at the other end of a connection. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct PeerProof(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    proven: AtomicBool,
    /// The connection's permit, and that among the unproven.
    permits: Mutex<(Permit, Option<Permit>)>,
    /// Sessions whose handshake goes on.
    sessions: AtomicUsize,
}

/// A handshake of a session, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Handshake(PeerProof);

impl PeerProof {
    /// That of a request's connection; a call that came over no connection is proven.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let plain = extensions.get::<Self>();
        plain
            .or_else(|| extensions.get::<TlsConnectInfo<Self>>().map(TlsConnectInfo::get_ref))
            .cloned()
            .unwrap_or_default()
    }

    /// A worker is at the other end.
    pub(super) fn prove(&self) {
        let Some(shared) = &self.0 else { return };
        if shared.proven.load(Ordering::Relaxed) {
            return;
        }
        let mut permits = shared.permits.lock();
        // One that was lost meanwhile is closed.
        if permits.0.exempt() {
            permits.1 = None;
            shared.proven.store(true, Ordering::Relaxed);
        }
    }

    /// Begins the handshake of a session.
    pub(super) fn handshake(self) -> Result<Handshake, Status> {
        if let Some(shared) = &self.0
            && shared.sessions.fetch_add(1, Ordering::Relaxed) >= SESSIONS
        {
            shared.sessions.fetch_sub(1, Ordering::Relaxed);
            return Err(Status::resource_exhausted("too many sessions begin on this connection at a time"));
        }
        Ok(Handshake(self))
    }
}

impl Handshake {
    /// The worker proved who it is.
    pub(super) fn succeed(self) {
        self.0.prove();
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        if let Some(shared) = &self.0.0 {
            shared.sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Connections as they come in.
pub(super) fn incoming(listener: LimitedListener) -> impl Stream<Item = io::Result<WorkerConnection>> {
    let (unproven, bytes) = (Shares::new(UNPROVEN), Arc::new(AtomicUsize::new(0)));
    stream::unfold((listener, unproven, bytes), async |(mut listener, unproven, bytes)| {
        loop {
            let accepted = listener.accept().await;
            // Who has no permit among the unproven is hung up on.
            if let Ok(permit) = unproven.enter(ClientAddress::from(accepted.peer)) {
                let connection = WorkerConnection::new(accepted, permit, bytes.clone());
                return Some((Ok(connection), (listener, unproven, bytes)));
            }
        }
    })
}

/// A connection that fails when its deadline is over before somebody proved to be a worker.
pub(super) struct WorkerConnection {
    stream: TcpStream,
    proof: PeerProof,
    /// `None`: it is proven.
    trial: Option<Trial>,
}

struct Trial {
    deadline: Pin<Box<Sleep>>,
    /// One of its permits was given to another.
    lost: BoxFuture<'static, ()>,
    /// Bytes that were read.
    read: usize,
    /// Bytes beyond the first that were read on all such connections.
    of_all: Arc<AtomicUsize>,
}

impl Trial {
    fn count(&mut self, bytes: usize) {
        let before = self.read.saturating_sub(FIRST_BYTES);
        self.read += bytes;
        self.of_all.fetch_add(self.read.saturating_sub(FIRST_BYTES) - before, Ordering::Relaxed);
    }

    fn read_too_much(&self) -> bool {
        let is_beyond = self.read > FIRST_BYTES && self.of_all.load(Ordering::Relaxed) > BYTES_OF_ALL;
        self.read > BYTES || is_beyond
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.of_all.fetch_sub(self.read.saturating_sub(FIRST_BYTES), Ordering::Relaxed);
    }
}

impl WorkerConnection {
    fn new(accepted: Accepted, unproven: Permit, of_all: Arc<AtomicUsize>) -> Self {
        let Accepted { stream, permit, .. } = accepted;
        let (one, other) = (permit.lost(), unproven.lost());
        let lost = Box::pin(async move {
            tokio::select! {
                biased;
                () = one => {}
                () = other => {}
            }
        });
        let trial = Trial { deadline: Box::pin(sleep(DEADLINE)), lost, read: 0, of_all };
        let shared = Shared {
            proven: AtomicBool::new(false),
            permits: Mutex::new((permit, Some(unproven))),
            sessions: AtomicUsize::new(0),
        };
        Self { stream, proof: PeerProof(Some(Arc::new(shared))), trial: Some(trial) }
    }

    /// Whether the connection may go on: it is proven, or its deadline lies ahead.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(trial) = &mut self.trial else { return Ok(()) };
        if self.proof.0.as_ref().is_none_or(|shared| shared.proven.load(Ordering::Relaxed)) {
            self.trial = None;
            return Ok(());
        }
        if trial.read_too_much() {
            return Err(io::Error::other("too much was sent before a worker proved to be there"));
        }
        if trial.deadline.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no worker proved to be there in time"));
        }
        match trial.lost.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::other("the permit was given to another address")),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for WorkerConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(trial) = &mut self.trial {
            trial.count(buffer.filled().len().saturating_sub(before));
        }
        polled
    }
}

impl AsyncWrite for WorkerConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for WorkerConnection {
    type ConnectInfo = PeerProof;

    fn connect_info(&self) -> PeerProof {
        self.proof.clone()
    }
}
