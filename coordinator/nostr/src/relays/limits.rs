//! What a relay allows one connection (NIP-11).

use std::time::Duration;

use network::CheckedUrl;
use serde::Deserialize;

/// How long the information document may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an information document that are read.
const DOCUMENT: usize = 64 * 1024;
/// More subscriptions or filters are never used, whatever the relay allows.
const MOST: usize = 50;

/// Limits of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionLimits {
    /// Subscriptions open at a time (`max_subscriptions`).
    pub(super) subscriptions: usize,
    /// Filters in one subscription (`max_filters`, which older relays state).
    pub(super) filters: usize,
}

impl Default for ConnectionLimits {
    /// What common relays allow where they state nothing.
    fn default() -> Self {
        Self { subscriptions: 20, filters: 10 }
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    limitation: Limitation,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Limitation {
    max_subscriptions: Option<u32>,
    max_filters: Option<u32>,
}

impl ConnectionLimits {
    /// Reads an information document. A value that is absent, zero or unreadable leaves the default.
    pub(super) fn read(document: &[u8]) -> Self {
        let default = Self::default();
        let Ok(Document { limitation }) = serde_json::from_slice(document) else { return default };
        let clamp = |value: Option<u32>, otherwise: usize| match value.and_then(|value| usize::try_from(value).ok()) {
            Some(value) if value > 0 => value.min(MOST),
            _ => otherwise,
        };
        Self {
            subscriptions: clamp(limitation.max_subscriptions, default.subscriptions),
            filters: clamp(limitation.max_filters, default.filters),
        }
    }

    /// Asks a relay for its information document; the defaults where it has none.
    pub(super) async fn fetch(relay: CheckedUrl) -> Self {
        match document(relay).await {
            Ok(document) => Self::read(&document),
            Err(error) => {
                tracing::debug!("no information document (NIP-11): {error}");
                Self::default()
            }
        }
    }
}

async fn document(relay: CheckedUrl) -> Result<Vec<u8>, reqwest::Error> {
    let CheckedUrl { url, addresses } = relay;
    let host = url.host_str().unwrap_or_default().to_owned();
    // `Url` does not change between special schemes and others, but ws and http are both special.
    let mut page = url.clone();
    let scheme = if url.scheme() == "wss" { "https" } else { "http" };
    let _ = page.set_scheme(scheme);
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .resolve_to_addrs(&host, &addresses)
        .build()?;
    let answer = client.get(page).header(reqwest::header::ACCEPT, "application/nostr+json").send().await?;
    let mut answer = answer.error_for_status()?;
    let mut document = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        document.extend_from_slice(&piece);
        if document.len() > DOCUMENT {
            break;
        }
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_states_no_limit_gets_twenty_subscriptions_of_ten_filters() {
        for (document, subscriptions, filters) in [
            ("", 20, 10),
            ("{}", 20, 10),
            (r#"{"limitation":{"max_subscriptions":0}}"#, 20, 10),
            (r#"{"limitation":{"max_subscriptions":"many"}}"#, 20, 10),
            (r#"{"limitation":{"max_subscriptions":8,"max_filters":3}}"#, 8, 3),
            (r#"{"limitation":{"max_subscriptions":5000}}"#, MOST, 10),
        ] {
            let expected = ConnectionLimits { subscriptions, filters };
            assert_eq!(ConnectionLimits::read(document.as_bytes()), expected, "{document}");
        }
    }
}
