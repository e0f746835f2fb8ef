//! Who this worker is, and how it reaches a coordinator.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use zeroize::Zeroizing;

/// HTTP/2 window of a stream and a connection, in bytes.
const WINDOW: u32 = 4 * 1024 * 1024;
/// A silent connection is asked after this long, and given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// The worker's enrolment key.
pub(super) struct Identity(Ed25519KeyPair);

impl Identity {
    /// Reads a seed (32 bytes, hex).
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let remedy = || format!("worker identity {}: `longshore keygen` makes one", path.display());
        let text = Zeroizing::new(std::fs::read_to_string(path).with_context(remedy)?);
        let seed = Zeroizing::new(hex::decode(text.trim()).context("it is not hex").with_context(remedy)?);
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
        Ok(Self(pair.ok().context("it is not 32 bytes in hex").with_context(remedy)?))
    }

    /// Public key, hex.
    pub(super) fn public(&self) -> String {
        hex::encode(self.0.public_key())
    }

    /// Answers a coordinator's challenge.
    pub(super) fn prove(&self, nonce: &[u8]) -> Bytes {
        Bytes::copy_from_slice(self.0.sign(&[proto::SESSION_CONTEXT, nonce].concat()).as_ref())
    }
}

/// How to connect to a URL; the certificate authority is required for `https`.
pub(super) fn endpoint(url: &str, ca_file: Option<&Path>) -> anyhow::Result<Endpoint> {
    let wrong = || format!("coordinator `{url}`: write it as https://HOST:PORT");
    let endpoint = Endpoint::from_shared(url.to_owned()).with_context(wrong)?;
    let endpoint = endpoint
        .tcp_nodelay(true)
        .connect_timeout(CONNECT)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    match (endpoint.uri().scheme_str(), ca_file) {
        (Some("http"), None) => Ok(endpoint),
        (Some("https"), Some(path)) => {
            let pem = std::fs::read(path).with_context(|| {
                format!("ca_file {}: copy the coordinator's ca.pem (made by `longshore keygen`) there", path.display())
            })?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            endpoint.tls_config(tls).with_context(|| format!("ca_file {}: not a PEM certificate", path.display()))
        }
        (scheme, ca) => {
            ensure!(scheme != Some("https"), "coordinator `{url}`: set `ca_file` to the coordinator's ca.pem");
            ensure!(ca.is_none(), "coordinator `{url}`: with `ca_file` it must begin with https://");
            Err(anyhow::anyhow!(wrong()))
        }
    }
}
