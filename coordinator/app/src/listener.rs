//! The ports that a coordinator listens on, and the permits for their connections.

use std::{io, net::SocketAddr};

use anyhow::Context as _;
use config::Config;
use connections::{
    client_address::TrustedProxies,
    descriptors,
    listener::{LimitedListener, Refusals},
    shares::{Limits, Shares},
};
use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// Connections that may wait to be taken. After a restart every worker of a pool connects at once, while the coordinator
/// still reads its state; one that finds no room tries again after a second. The kernel has a limit of its own
/// (`net.core.somaxconn`, 4096 by default).
const BACKLOG: u32 = 4096;

/// Both ports, which share the permits for connections.
pub(super) struct Ports {
    pub(super) http: LimitedListener,
    pub(super) grpc: LimitedListener,
}

impl Ports {
    /// Listens as the configuration says.
    ///
    /// # Errors
    /// An address is not ours, or is used by another process.
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        let each = config.limits.connections_per_address;
        let shares = Shares::new(Limits { all: descriptors::connections(config.limits.connections), each });
        let proxies = TrustedProxies::new(config.web.proxies()?);
        let http = listen("http", &config.http).await?;
        let grpc = listen("grpc", &config.grpc).await?;
        Ok(Self {
            http: LimitedListener::new(http, shares.clone(), each, proxies, web::REFUSALS),
            // Those that have not registered yet: all workers of an address may come at once.
            grpc: LimitedListener::new(
                grpc,
                shares,
                each.saturating_mul(4),
                TrustedProxies::default(),
                Refusals::default(),
            ),
        })
    }
}

/// Listens on the address that the configuration gives under this key.
async fn listen(key: &str, address: &str) -> anyhow::Result<TcpListener> {
    let listener = first_of(address).await;
    listener.with_context(|| format!("{key} = \"{address}\": cannot listen there; is another process using the port?"))
}

/// A name may have several addresses; the first that is ours is taken.
async fn first_of(address: &str) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in lookup_host(address).await? {
        match bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of an earlier life that the kernel has not forgotten yet don't keep the port from us.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
