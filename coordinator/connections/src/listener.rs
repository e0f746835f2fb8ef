//! Takes connections for which there is a permit, and refuses others at once.

use std::{
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::{
    client_address::{ClientAddress, TrustedProxies},
    shares::{Full, Permit, Shares},
};

/// Wait after a failure that the next attempt would meet as well, e.g. no free descriptor.
const PAUSE: Duration = Duration::from_millis(100);
/// Time between two log entries of the same trouble.
const QUIET: Duration = Duration::from_secs(10);

/// A port, and the permits for its connections.
#[derive(Debug)]
pub struct LimitedListener {
    listener: TcpListener,
    shares: Shares,
    /// Connections of one client at this port that nobody has vouched for.
    each: usize,
    proxies: TrustedProxies,
    /// Sent to who is refused.
    refusals: Refusals,
    said: Option<Instant>,
}

/// What a refused client reads before its connection is closed; may be empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Refusals {
    /// It has too many connections.
    pub client: &'static [u8],
    /// There are too many.
    pub all: &'static [u8],
}

/// A connection with its permit.
#[derive(Debug)]
pub struct Accepted {
    /// The connection, without delay (`TCP_NODELAY`).
    pub stream: TcpStream,
    /// Its other end.
    pub peer: IpAddr,
    /// To be dropped with it.
    pub permit: Permit,
}

impl LimitedListener {
    /// Takes connections at a port. Those of trusted proxies count in all alone.
    pub fn new(
        listener: TcpListener,
        shares: Shares,
        each: usize,
        proxies: TrustedProxies,
        refusals: Refusals,
    ) -> Self {
        Self { listener, shares, each, proxies, refusals, said: None }
    }

    /// Its address.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Proxies whose word counts here.
    pub fn proxies(&self) -> &TrustedProxies {
        &self.proxies
    }

    /// The next connection that has a permit. May be dropped at any moment.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
                Err(error) => {
                    if !is_of_one_connection(&error) {
                        self.warn(&format!("connections can't be taken: {error}"));
                        tokio::time::sleep(PAUSE).await;
                    }
                    continue;
                }
            };
            let permit = match self.proxies.contains(peer) {
                true => self.shares.enter_exempt(),
                false => self.shares.enter_up_to(ClientAddress::from(peer), self.each),
            };
            match permit {
                Ok(permit) => {
                    // Without it an answer waits for the peer's delayed acknowledgement.
                    let _ = stream.set_nodelay(true);
                    return Accepted { stream, peer, permit };
                }
                Err(full) => self.refuse(stream, peer, full),
            }
        }
    }

    fn refuse(&mut self, stream: TcpStream, peer: IpAddr, full: Full) {
        let (text, reason) = match full {
            Full::Client => (self.refusals.client, "its address has as many as limits.connections_per_address allows"),
            Full::All => (self.refusals.all, "there are as many as limits.connections allows"),
        };
        // It does not block; what does not fit the socket's buffer at once is not worth a wait.
        if let Ok(mut stream) = stream.into_std() {
            let _ = stream.write(text);
        }
        self.warn(&format!("a connection of {peer} was refused: {reason}"));
    }

    fn warn(&mut self, text: &str) {
        if self.said.is_none_or(|said| said.elapsed() > QUIET) {
            self.said = Some(Instant::now());
            tracing::warn!("{text}");
        }
    }
}

/// Whether the failure is that of one connection, and the next may be taken at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
