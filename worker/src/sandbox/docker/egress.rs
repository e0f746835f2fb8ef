//! Closes the host and private addresses to job networks.
//!
//! Two chains of ours, entered only by packets from our own address block: `LONGSHORE` for what the host would forward,
//! `LONGSHORE-HOST` for what is meant for the host itself. They stand in the table `mangle`, which the engine leaves
//! alone: its ways into `DOCKER-USER` and into its isolation of networks are gone for a moment whenever anybody makes a
//! network. So one job's network is closed to another's here as well. Rules are added where they are missing and never
//! taken away, so that workers on one engine cannot open each other's networks.

use std::{collections::BTreeSet, net::Ipv4Addr, path::Path};

use parking_lot::Mutex;
use tokio::process::Command;

/// Keeps the rules of one address block. What a job may reach while they stand: public addresses and the host's name
/// servers. While they do not: nothing.
pub(super) struct EgressRules {
    addresses: (Ipv4Addr, u8),
    /// The rules as `iptables -S` lists them; `None`: they could not be set.
    set: Mutex<Option<BTreeSet<String>>>,
}

impl EgressRules {
    pub(super) fn new(addresses: (Ipv4Addr, u8)) -> Self {
        Self { addresses, set: Mutex::new(None) }
    }

    /// Whether jobs may have a network.
    pub(super) fn are_set(&self) -> bool {
        self.set.lock().is_some()
    }

    /// Sets the rules where one of them is missing: a restart of the engine or of a firewall drops them. `network`: a
    /// bridge of ours, which shows whether the engine is here at all.
    pub(super) async fn ensure(&self, network: &str) {
        let known = self.set.lock().clone();
        if let Some(known) = known
            && listed().await.is_ok_and(|listed| known.is_subset(&listed))
        {
            return;
        }
        let set = match close(self.addresses, network).await {
            Ok(()) => listed().await,
            Err(cause) => Err(cause),
        };
        if let Err(cause) = &set {
            tracing::warn!(
                cause,
                "new jobs get no network: the rules that protect this host cannot be set (needs root and iptables)"
            );
        }
        *self.set.lock() = set.ok();
    }
}

/// Our rules as they stand.
async fn listed() -> Result<BTreeSet<String>, String> {
    let rules = iptables(&["-S"]).await?;
    Ok(rules.lines().filter(|rule| rule.contains("LONGSHORE")).map(str::to_owned).collect())
}

/// Private, shared, link-local (cloud metadata), loopback, benchmark, multicast and reserved blocks (RFC 6890).
const CLOSED: [&str; 10] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

async fn close(addresses: (Ipv4Addr, u8), network: &str) -> Result<(), String> {
    let bridge = format!("/sys/class/net/br-{}", network.get(..12).unwrap_or(network));
    if !Path::new(&bridge).exists() {
        return Err("the engine runs in another network namespace than this worker".into());
    }
    let block = format!("{}/{}", addresses.0, addresses.1);
    for chain in ["LONGSHORE", "LONGSHORE-HOST"] {
        // It may exist; whether it does is seen by the first rule.
        let _ = iptables(&["-N", chain]).await;
        ensure("-I", chain, &["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "RETURN"]).await?;
        for resolver in resolvers() {
            for protocol in ["udp", "tcp"] {
                ensure("-I", chain, &["-d", &resolver, "-p", protocol, "--dport", "53", "-j", "RETURN"]).await?;
            }
        }
    }
    // Inside one network a job and its services talk: what stays on one bridge is not forwarded.
    ensure("-I", "LONGSHORE", &["-m", "physdev", "--physdev-is-bridged", "-j", "RETURN"]).await?;
    for closed in [block.as_str()].into_iter().chain(CLOSED) {
        ensure("-A", "LONGSHORE", &["-d", closed, "-j", "DROP"]).await?;
    }
    ensure("-A", "LONGSHORE-HOST", &["-j", "DROP"]).await?;
    ensure("-I", "FORWARD", &["-s", &block, "-j", "LONGSHORE"]).await?;
    ensure("-I", "INPUT", &["-s", &block, "-j", "LONGSHORE-HOST"]).await
}

/// IPv4 name servers of the host, which the engine hands to containers.
fn resolvers() -> Vec<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let addresses =
        text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<Ipv4Addr>().ok());
    addresses.map(|address| address.to_string()).collect()
}

async fn ensure(how: &str, chain: &str, rule: &[&str]) -> Result<(), String> {
    let with = |verb| [&[verb, chain], rule].concat();
    match iptables(&with("-C")).await {
        Ok(_) => Ok(()),
        Err(_) => iptables(&with(how)).await.map(drop),
    }
}

/// Runs it on the table `mangle`; gives what it printed.
async fn iptables(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("iptables").args(["-w", "-t", "mangle"]).args(arguments).output().await;
    let output = output.map_err(|error| format!("iptables does not start: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("iptables {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
