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
use futures::{
    Stream, StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
    task::AtomicWaker,
};
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
/// Other calls on one connection before one of them showed its token: as many as an action has connections. Each takes some
/// 10 KiB.
const CALLS: usize = 40;
/// Those on all connections, and on those of one address. Who has most loses connections.
const CALLS_OF_ALL: Limits = Limits { all: 8192, each: 1024 };

/// Whether somebody proved to be a worker at the other end of a connection. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct PeerProof(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    address: ClientAddress,
    proven: AtomicBool,
    /// The connection's permit, and that among the unproven.
    permits: Mutex<(Permit, Option<Permit>)>,
    /// Sessions whose handshake goes on.
    sessions: AtomicUsize,
    /// Other calls that showed no token yet.
    calls: AtomicUsize,
    calls_of_all: Shares,
    /// Each ends when the permit of a call is given to another address.
    lost_calls: Mutex<FuturesUnordered<BoxFuture<'static, ()>>>,
    /// The connection's task, which looks at the above.
    task: AtomicWaker,
}

/// A call on a connection that is not proven, counted until it is dropped. Clones are the same call.
#[derive(Debug, Clone)]
pub(super) struct UnprovenCall(#[expect(dead_code, reason = "it is held")] Option<Arc<CountedCall>>);

#[derive(Debug)]
struct CountedCall {
    shared: Arc<Shared>,
    _permit: Permit,
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        self.shared.calls.fetch_sub(1, Ordering::Relaxed);
    }
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

    /// Begins a call that will show a token.
    pub(super) fn begin_call(&self) -> Result<UnprovenCall, Status> {
        let Some(shared) = self.0.as_ref().filter(|shared| !shared.proven.load(Ordering::Relaxed)) else {
            return Ok(UnprovenCall(None));
        };
        // Unavailable: a worker tries again.
        let refused = |why: &str| Status::unavailable(format!("{why}: try again once one of them has shown its token"));
        if shared.calls.fetch_add(1, Ordering::Relaxed) >= CALLS {
            shared.calls.fetch_sub(1, Ordering::Relaxed);
            return Err(refused("too many calls begin on this connection at a time"));
        }
        let Ok(permit) = shared.calls_of_all.enter(shared.address) else {
            shared.calls.fetch_sub(1, Ordering::Relaxed);
            return Err(refused("too many calls begin at a time"));
        };
        shared.lost_calls.lock().push(Box::pin(permit.lost()));
        shared.task.wake();
        Ok(UnprovenCall(Some(Arc::new(CountedCall { shared: shared.clone(), _permit: permit }))))
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
    /// Where it comes from; `None`: over no connection.
    pub(super) fn address(&self) -> Option<ClientAddress> {
        self.0.0.as_ref().map(|shared| shared.address)
    }

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
    let calls = Shares::new(CALLS_OF_ALL);
    stream::unfold((listener, unproven, calls, bytes), async |(mut listener, unproven, calls, bytes)| {
        loop {
            let accepted = listener.accept().await;
            // Who has no permit among the unproven is hung up on.
            if let Ok(permit) = unproven.enter(ClientAddress::from(accepted.peer)) {
                let connection = WorkerConnection::new(accepted, permit, calls.clone(), bytes.clone());
                return Some((Ok(connection), (listener, unproven, calls, bytes)));
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
    fn new(accepted: Accepted, unproven: Permit, calls: Shares, of_all: Arc<AtomicUsize>) -> Self {
        let Accepted { stream, permit, peer } = accepted;
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
            address: ClientAddress::from(peer),
            proven: AtomicBool::new(false),
            permits: Mutex::new((permit, Some(unproven))),
            sessions: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            calls_of_all: calls,
            lost_calls: Mutex::default(),
            task: AtomicWaker::new(),
        };
        Self { stream, proof: PeerProof(Some(Arc::new(shared))), trial: Some(trial) }
    }

    /// Whether the connection may go on: it is proven, or its deadline lies ahead.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(trial) = &mut self.trial else { return Ok(()) };
        let unproven = self.proof.0.as_ref().filter(|shared| !shared.proven.load(Ordering::Relaxed));
        let Some(shared) = unproven else {
            self.trial = None;
            return Ok(());
        };
        if trial.read_too_much() {
            return Err(io::Error::other("too much was sent before a worker proved to be there"));
        }
        if trial.deadline.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no worker proved to be there in time"));
        }
        shared.task.register(cx.waker());
        let call_lost = matches!(shared.lost_calls.lock().poll_next_unpin(cx), Poll::Ready(Some(())));
        match trial.lost.as_mut().poll(cx) {
            Poll::Pending if !call_lost => Ok(()),
            _ => Err(io::Error::other("the permit was given to another address")),
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
