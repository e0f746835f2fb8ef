//! Which relay addresses may be dialled: an event may name any, and must not lead us into a private network.

use std::net::IpAddr;

use url::{Host, Url};

/// Why an address is not dialled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// It is no `ws://` or `wss://` URL with a host.
    #[error("{0} is no relay address: give ws://HOST or wss://HOST")]
    Malformed(String),
    /// The name has no address.
    #[error("{0} can't be resolved")]
    Unknown(String),
    /// It leads into a private network.
    #[error("{0} is on a private network: set relays.allow_private to allow that")]
    Private(String),
}

/// Checks a relay's URL and every address its name resolves to.
///
/// # Errors
/// Anything but `ws` and `wss`; loopback, private, link-local and reserved addresses unless `allow_private`.
pub async fn check(url: &Url, allow_private: bool) -> Result<(), AddressError> {
    let host = match (url.scheme(), url.host()) {
        ("ws" | "wss", Some(host)) => host,
        _ => return Err(AddressError::Malformed(url.to_string())),
    };
    if allow_private {
        return Ok(());
    }
    let addresses: Vec<IpAddr> = match host {
        Host::Ipv4(address) => vec![address.into()],
        Host::Ipv6(address) => vec![address.into()],
        Host::Domain(name) => {
            let port = url.port_or_known_default().unwrap_or(443);
            let found = tokio::net::lookup_host((name, port)).await;
            found.map_err(|_| AddressError::Unknown(name.to_owned()))?.map(|address| address.ip()).collect()
        }
    };
    match addresses.iter().all(|address| is_public(*address)) {
        _ if addresses.is_empty() => Err(AddressError::Unknown(url.to_string())),
        true => Ok(()),
        false => Err(AddressError::Private(url.to_string())),
    }
}

/// Whether an address is on the open Internet (IANA special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(a == 0
                || v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_documentation()
                || (a == 100 && (64..128).contains(&b))
                || (a, b, c) == (192, 0, 0)
                || (a == 198 && (b == 18 || b == 19))
                || a >= 224)
        }
        IpAddr::V6(v6) => match (v6.to_ipv4_mapped(), v6.segments()) {
            (Some(v4), _) => is_public(v4.into()),
            // Only 2000::/3 is handed out; 6to4, NAT64 and Teredo carry an IPv4 address that was not looked at.
            (None, [first, second, ..]) => {
                first & 0xe000 == 0x2000
                    && first != 0x2002
                    && (first, second) != (0x2001, 0)
                    && (first, second) != (0x2001, 0xdb8)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn only_open_addresses_are_dialled() {
        let cases = [
            ("wss://1.1.1.1", true),
            ("ws://[2606:4700::1111]:8080/path", true),
            ("https://1.1.1.1", false),
            ("wss://127.0.0.1", false),
            ("wss://localhost", false),
            ("wss://10.1.2.3", false),
            ("wss://172.16.0.1", false),
            ("wss://192.168.1.1", false),
            ("wss://169.254.169.254", false),
            ("wss://100.64.0.1", false),
            ("wss://0.0.0.0", false),
            ("wss://2130706433", false),
            ("wss://0x7f.1", false),
            ("wss://[::1]", false),
            ("wss://[::ffff:127.0.0.1]", false),
            ("wss://[fe80::1]", false),
            ("wss://[fd00::1]", false),
            ("wss://[64:ff9b::7f00:1]", false),
        ];
        for (url, open) in cases {
            assert_eq!(check(&Url::parse(url).unwrap(), false).await.is_ok(), open, "{url}");
        }
        assert!(check(&Url::parse("ws://127.0.0.1:1").unwrap(), true).await.is_ok());
        assert!(check(&Url::parse("file:///etc").unwrap(), true).await.is_err());
    }
}
