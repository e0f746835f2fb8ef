//! Who a client is: the address that limits count, also behind proxies.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

/// Bits of an IPv6 address that a host's network has.
const SITE: u32 = 64;
/// Bits that one customer of a provider has at most: often less, but many have a whole /48.
const CUSTOMER: u32 = 48;
/// The clients of one [`ClientNetwork`] together may have what so many clients may.
pub const CLIENTS_OF_NETWORK: usize = 4;

/// What limits count as one client: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddress(IpAddr);

/// Clients that may well be one and the same: the /48 of an IPv6 address; of IPv4 each address is a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientNetwork(IpAddr);

impl ClientAddress {
    /// The network that it is in.
    pub fn network(self) -> ClientNetwork {
        ClientNetwork(match self.0 {
            IpAddr::V6(address) => IpAddr::V6(prefix(address, CUSTOMER)),
            address @ IpAddr::V4(_) => address,
        })
    }
}

fn prefix(address: Ipv6Addr, bits: u32) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(address) >> (128 - bits) << (128 - bits))
}

impl std::fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/{SITE}"),
        }
    }
}

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(prefix(address, SITE)),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// Proxies whose word on a client's address counts. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// The proxies in these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into())
    }

    /// Whether the address is one of theirs.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client of a request that came from `peer`: the last address in `Forwarded` (RFC 7239) or `X-Forwarded-For`
    /// that is no trusted proxy. Of a peer that is none, nothing is believed. A proxy writes one of the two headers and
    /// may pass the other on as a client sent it: where they disagree, the client is the proxy.
    pub fn client<'a>(
        &self,
        peer: IpAddr,
        forwarded: impl Iterator<Item = &'a str>,
        x_forwarded_for: impl Iterator<Item = &'a str>,
    ) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.contains(peer) {
            return peer;
        }
        let standard: Vec<Option<IpAddr>> = forwarded.flat_map(elements).map(forwarded_for).collect();
        let customary: Vec<Option<IpAddr>> =
            x_forwarded_for.flat_map(|line| line.split(',')).map(|text| address(text.trim())).collect();
        match (standard.as_slice(), customary.as_slice()) {
            (hops, []) | ([], hops) => self.last_untrusted(peer, hops),
            (standard, customary) => {
                let client = self.last_untrusted(peer, standard);
                if client == self.last_untrusted(peer, customary) { client } else { peer }
            }
        }
    }

    /// Goes back over the hops, which each proxy appended to, as long as they are trusted.
    fn last_untrusted(&self, peer: IpAddr, hops: &[Option<IpAddr>]) -> IpAddr {
        let mut known = peer;
        for hop in hops.iter().rev() {
            // What can't be read was hidden by the proxy before it, or made up before that.
            let Some(hop) = hop else { return known };
            known = *hop;
            if !self.contains(known) {
                return known;
            }
        }
        known
    }
}

/// Elements of a `Forwarded` header. A quoted value may hold commas.
fn elements(line: &str) -> Vec<&str> {
    split_unquoted(line, ',')
}

/// The address of an element's `for`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = split_unquoted(element, ';');
    let value = pairs
        .into_iter()
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(name, value)| name.trim().eq_ignore_ascii_case("for").then(|| value.trim()))?;
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    address(bare.unwrap_or(value))
}

/// Splits outside of quoted strings, in which a backslash escapes.
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|letter: char| {
        if escaped {
            escaped = false;
        } else if quoted && letter == '\\' {
            escaped = true;
        } else if letter == '"' {
            quoted = !quoted;
        } else {
            return letter == separator && !quoted;
        }
        false
    })
    .collect()
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse::<IpAddr>().ok();
    parsed.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip())).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn client(peer: &str, forwarded: &[&str], x_forwarded_for: &[&str]) -> String {
        let proxies = ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"].map(|network| network.parse().unwrap());
        let proxies = TrustedProxies::new(proxies.to_vec());
        let found = proxies.client(peer.parse().unwrap(), forwarded.iter().copied(), x_forwarded_for.iter().copied());
        found.to_string()
    }

    #[test]
    fn an_ipv4_address_and_a_64_of_ipv6_count_as_one_client() {
        let cases = [
            ("203.0.113.7", "203.0.113.7", true),
            ("203.0.113.7", "203.0.113.8", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::ffff:203.0.113.7", "203.0.113.7", true),
            ("::ffff:203.0.113.7", "::ffff:203.0.113.8", false),
        ];
        for (one, other, same) in cases {
            let [a, b] = [one, other].map(|text| ClientAddress::from(text.parse::<IpAddr>().unwrap()));
            assert_eq!(a == b, same, "{one} {other}");
        }
    }

    #[test]
    fn clients_of_a_48_of_ipv6_are_in_one_network_and_those_of_ipv4_are_not() {
        let cases = [
            ("2001:db8:1:2::1", "2001:db8:1:ffff::1", true),
            ("2001:db8:1:2::1", "2001:db8:2:2::1", false),
            ("203.0.113.7", "203.0.113.8", false),
        ];
        for (one, other, same) in cases {
            let [a, b] = [one, other].map(|text| ClientAddress::from(text.parse::<IpAddr>().unwrap()).network());
            assert_eq!(a == b, same, "{one} {other}");
        }
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        let none: &[&str] = &[];
        let cases: [(&str, &[&str], &[&str], &str); 22] = [
            // Without headers, and from a peer that is no proxy: whatever is claimed.
            ("203.0.113.7", none, none, "203.0.113.7"),
            ("203.0.113.7", none, &["198.51.100.1"], "203.0.113.7"),
            ("203.0.113.7", &["for=198.51.100.1"], none, "203.0.113.7"),
            ("2001:db8::1", none, &["10.0.0.1"], "2001:db8::1"),
            ("10.0.0.1", none, none, "10.0.0.1"),
            // What the client wrote stands before what the proxies appended.
            ("10.0.0.1", none, &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", none, &["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", none, &["1.2.3.4", "198.51.100.1, 10.0.0.9"], "198.51.100.1"),
            ("10.0.0.1", none, &["198.51.100.1,10.0.0.9,192.0.2.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", none, &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", none, &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", none, &["2001:db8::7"], "2001:db8::7"),
            ("10.0.0.1", none, &["[2001:db8::7]:443"], "2001:db8::7"),
            // All are trusted: the one that is furthest.
            ("10.0.0.1", none, &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // What can't be read is not passed over.
            ("10.0.0.1", none, &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", none, &["198.51.100.1, , 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["for=198.51.100.1;proto=https"], none, "198.51.100.1"),
            ("fd00::1", &["for=1.2.3.4", "Proto=https; For=\"[2001:db8::7]:4711\", for=10.0.0.2"], none, "2001:db8::7"),
            ("10.0.0.1", &["for=198.51.100.1, for=_hidden"], none, "10.0.0.1"),
            // A comma or a semicolon in a quoted value begins nothing.
            ("10.0.0.1", &["for=198.51.100.1;host=\"a\\\",for=1.2.3.4;for=5.6.7.8\""], none, "198.51.100.1"),
            // Both headers: they agree, or one of them is the client's own.
            ("10.0.0.1", &["for=198.51.100.1"], &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["for=1.2.3.4"], &["198.51.100.1"], "10.0.0.1"),
        ];
        for (peer, forwarded, customary, expected) in cases {
            assert_eq!(client(peer, forwarded, customary), expected, "{peer} {forwarded:?} {customary:?}");
        }
    }
}
