//! Addresses of host names, asked of the machine's name servers (`/etc/resolv.conf`, `/etc/hosts`) without a thread for
//! each question: names come from outside, and their servers may never answer.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{TokioResolver, config::LookupIpStrategy};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};

/// Names that are asked for at the same time.
const AT_ONCE: usize = 128;
/// How long a look-up may take, with the wait for its turn.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long one name server may take; each is asked twice.
const SERVER: Duration = Duration::from_secs(2);
/// The machine's configuration is read again after this: a machine may change its network.
const FRESH: Duration = Duration::from_secs(60);

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);
static RESOLVER: Mutex<Option<(Instant, TokioResolver)>> = Mutex::new(None);

/// The addresses of a host, version 4 first: where version 6 leads nowhere, it takes long to say so. `None`: it has none
/// that is known in time.
pub(crate) async fn addresses(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let asked = async {
        let _turn = TURNS.acquire().await.ok()?;
        resolver()?.lookup_ip(host).await.ok()
    };
    let found = tokio::time::timeout(PATIENCE, asked).await.ok()??;
    let mut found: Vec<SocketAddr> = found.iter().map(|address: IpAddr| (address, port).into()).collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    Some(found)
}

/// `None` where the machine's configuration can't be read: no name has an address then.
fn resolver() -> Option<TokioResolver> {
    let mut known = RESOLVER.lock();
    if let Some((read, resolver)) = known.as_ref()
        && read.elapsed() < FRESH
    {
        return Some(resolver.clone());
    }
    let mut builder = TokioResolver::builder_tokio().ok()?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    (options.timeout, options.attempts) = (SERVER, 1);
    let resolver = builder.build().ok()?;
    *known = Some((Instant::now(), resolver.clone()));
    Some(resolver)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_has_an_address_and_a_reserved_name_has_none() {
        let found = addresses("localhost", 7).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 7), "{found:?}");
        assert!(addresses("nobody.invalid", 7).await.unwrap_or_default().is_empty());
    }
}
