//! Where a URL from outside may lead: public addresses and known protocols, checked after name resolution.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

mod peer_text;
mod resolver;

pub use peer_text::peer_text;

/// What an operator allows beyond public addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Loopback, private and link-local addresses (`dev`).
    pub private: bool,
    /// `file://` (`dev`).
    pub file: bool,
}

/// A URL that was checked, with the addresses its host stood for at that moment.
#[derive(Debug, Clone)]
pub struct CheckedUrl {
    /// The URL.
    pub url: Url,
    /// To be used instead of resolving again: a second answer might differ from the checked one.
    pub addresses: Vec<SocketAddr>,
}

/// Why a URL may not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// Not a URL.
    #[error("{0:?} is not a URL")]
    NoUrl(String),
    /// Another protocol.
    #[error("{0}: only {1} URLs are used")]
    Protocol(String, &'static str),
    /// User or password in it.
    #[error("{0} carries a user name or password")]
    Credentials(String),
    /// It leads to this machine or its network.
    #[error("{url} leads to {address}, which is not a public address")]
    Private {
        /// The URL.
        url: String,
        /// Where it leads.
        address: IpAddr,
    },
    /// The name has no address.
    #[error("{0}: the host name has no address")]
    Unresolved(String),
}

/// Checks a clone URL: http(s) without credentials, every address of its host public; `file://` where allowed.
pub async fn check_clone(text: &str, reach: Reach) -> Result<CheckedUrl, Forbidden> {
    let url = Url::parse(text).map_err(|_| Forbidden::NoUrl(text.to_owned()))?;
    if url.scheme() == "file" && reach.file {
        return Ok(CheckedUrl { url, addresses: Vec::new() });
    }
    check_web(url.as_str(), reach).await
}

/// Checks the address of a web server in the same way.
pub async fn check_web(text: &str, reach: Reach) -> Result<CheckedUrl, Forbidden> {
    let url = Url::parse(text).map_err(|_| Forbidden::NoUrl(text.to_owned()))?;
    check(url, &["https", "http"], "http and https", reach).await
}

/// Checks a relay URL in the same way.
pub async fn check_relay(text: &str, reach: Reach) -> Result<CheckedUrl, Forbidden> {
    let url = Url::parse(text).map_err(|_| Forbidden::NoUrl(text.to_owned()))?;
    check(url, &["wss", "ws"], "ws and wss", reach).await
}

/// Whether a relay URL from outside may be worth a connection, as far as the URL alone says: its addresses are checked when
/// it is dialled. Costs no look-up.
pub fn may_be_relay(text: &str, reach: Reach) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    if !["wss", "ws"].contains(&url.scheme()) || !url.username().is_empty() || url.password().is_some() {
        return false;
    }
    match url.host() {
        None => false,
        Some(_) if reach.private => true,
        Some(Host::Ipv4(address)) => is_public(address.into()),
        Some(Host::Ipv6(address)) => is_public(address.into()),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            let last = name.rsplit('.').next().unwrap_or_default();
            name.contains('.') && !LOCAL.iter().any(|local| last.eq_ignore_ascii_case(local))
        }
    }
}

/// Top-level names that the public internet does not have (RFC 6761, RFC 7686, RFC 8375).
const LOCAL: [&str; 7] = ["arpa", "internal", "invalid", "local", "localhost", "onion", "test"];

async fn check(url: Url, schemes: &[&str], named: &'static str, reach: Reach) -> Result<CheckedUrl, Forbidden> {
    let shown = url.to_string();
    if !schemes.contains(&url.scheme()) {
        return Err(Forbidden::Protocol(shown, named));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Forbidden::Credentials(format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())));
    }
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses: Vec<SocketAddr> = match url.host() {
        Some(Host::Ipv4(address)) => vec![(address, port).into()],
        Some(Host::Ipv6(address)) => vec![(address, port).into()],
        Some(Host::Domain(name)) => {
            resolver::addresses(name, port).await.ok_or_else(|| Forbidden::Unresolved(shown.clone()))?
        }
        None => return Err(Forbidden::NoUrl(shown)),
    };
    if addresses.is_empty() {
        return Err(Forbidden::Unresolved(shown));
    }
    if !reach.private
        && let Some(address) = addresses.iter().map(SocketAddr::ip).find(|address| !is_public(*address))
    {
        return Err(Forbidden::Private { url: shown, address });
    }
    Ok(CheckedUrl { url, addresses })
}

/// Whether an address is on the public internet (IANA special-purpose registries).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240;
    !special
}

/// The v4 address inside a mapped, 6to4 or NAT64 one: it leads to the same place.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let pair = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(pair(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some(pair(high, low)),
        _ => None,
    }
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Global unicast is 2000::/3; 2001::/23 and the documentation ranges within it are not routed.
    let [first, second, ..] = address.segments();
    let documentation = (first == 0x2001 && second == 0xdb8) || (first == 0x3fff && second < 0x1000);
    (first & 0xe000) == 0x2000 && !(first == 0x2001 && second < 0x200) && !documentation
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn attack_60_clone_urls_into_the_operators_network_are_refused() {
        for url in [
            "http://169.254.169.254/latest/meta-data",
            "http://127.0.0.1/x.git",
            "http://localhost:8080/x.git",
            "https://10.0.0.5/x.git",
            "https://192.168.1.1/x.git",
            "https://172.16.0.1/x.git",
            "http://100.64.0.1/x.git",
            "http://[::1]/x.git",
            "http://[fd00:ec2::254]/x.git",
            "http://[fe80::1]/x.git",
            "http://[::ffff:169.254.169.254]/x.git",
            "http://[64:ff9b::7f00:1]/x.git",
            "http://[2002:7f00:1::]/x.git",
            "http://0/x.git",
            "http://2130706433/x.git",
            "http://0x7f.1/x.git",
            "file:///etc",
            "ext::sh -c id",
            "ssh://git@example.org/x.git",
            "git://127.0.0.1/x",
            "-u/x",
            "https://user:password@example.org/x.git",
        ] {
            assert!(check_clone(url, Reach::default()).await.is_err(), "{url}");
        }
        for url in ["ws://127.0.0.1:7000", "http://example.org", "wss://[::1]"] {
            assert!(check_relay(url, Reach::default()).await.is_err(), "{url}");
        }
    }

    #[test]
    fn attack_60_a_relay_that_cannot_be_public_is_known_by_its_url() {
        for url in [
            "ws://127.0.0.1:7000",
            "wss://[::1]",
            "ws://10.1.2.3",
            "wss://localhost",
            "wss://relay",
            "wss://relay.local",
            "wss://x.invalid.",
            "wss://a@relay.example.org",
            "https://relay.example.org",
            "relay.example.org",
        ] {
            assert!(!may_be_relay(url, Reach::default()), "{url}");
        }
        assert!(may_be_relay("wss://relay.example.org", Reach::default()));
        assert!(may_be_relay("ws://127.0.0.1:7000", Reach { private: true, file: false }));
    }

    #[tokio::test]
    async fn loopback_and_folders_are_reached_only_where_allowed() {
        let dev = Reach { private: true, file: true };
        assert!(check_clone("http://127.0.0.1:8000/x.git", dev).await.is_ok());
        assert!(check_clone("file:///srv/x.git", dev).await.is_ok());
        assert!(check_clone("http://1.1.1.1/x.git", Reach::default()).await.is_ok());
        assert!(check_clone("ext::sh -c id", dev).await.is_err());
    }

    #[test]
    fn a_password_in_a_url_is_not_repeated_in_the_error() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let error = runtime.block_on(check_clone("https://u:canary@example.org/x", Reach::default())).unwrap_err();
        assert!(!error.to_string().contains("canary"));
    }
}
