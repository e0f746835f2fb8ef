//! Connections to relays: one client for reading, sending and looking up.
//!
//! The SDK keeps each connection and reconnects it. Its checks are not relied upon: what it brings is verified again
//! by whoever takes it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::future::join_all;
use nostr::{Event, Filter, Keys, RelayUrl, message::MachineReadablePrefix, util::BoxedFuture};
use nostr_sdk::{
    Client, ClientOptions,
    pool::{
        ConnectionMode, Relay, RelayLimits, RelayOptions, relay,
        transport::{
            error::TransportError,
            websocket::{WebSocketSink, WebSocketStream, WebSocketTransport},
        },
    },
};
use url::Url;

/// When a question to relays ends.
pub use nostr_sdk::pool::relay::ReqExitPolicy;

use network::{self, Reach};

mod socket;

/// First wait before a lost connection is tried again; the SDK lets it grow to a minute.
const RETRY: Duration = Duration::from_secs(2);

/// A relay's answer to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has the event, now or from before.
    Taken,
    /// It will not take it.
    Refused(String),
    /// Not now: unreachable, busy, or wants something first.
    Later(String),
}

/// The relays we talk to. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Relays {
    client: Client,
    named: Arc<HashSet<String>>,
}

/// Dials what the operator named, and of the rest only open addresses; looked at again for each connection, since a
/// name may lead elsewhere later.
#[derive(Debug)]
struct Guard {
    named: Arc<HashSet<String>>,
    allow_private: bool,
}

impl WebSocketTransport for Guard {
    fn support_ping(&self) -> bool {
        true
    }

    fn connect<'a>(
        &'a self,
        url: &'a Url,
        _: &'a ConnectionMode,
        timeout: Duration,
    ) -> BoxedFuture<'a, Result<(WebSocketSink, WebSocketStream), TransportError>> {
        Box::pin(async move {
            let private = self.allow_private || self.named.contains(url.as_str().trim_end_matches('/'));
            let checked = network::check_relay(url.as_str(), Reach { private, file: false }).await;
            socket::connect(&checked.map_err(TransportError::backend)?, timeout).await
        })
    }
}

/// A relay's URL in the one form we keep; `None`: it is none.
pub fn normal(url: &str) -> Option<String> {
    let url = RelayUrl::parse(url.trim()).ok()?;
    Some(url.as_str_without_trailing_slash().to_owned())
}

impl Relays {
    /// Makes the client; nothing is dialled before it is used. `keys` answer NIP-42.
    pub fn new(keys: &Keys, config: &config::Relays) -> Self {
        let named = [&config.read, &config.write, &config.index, &config.lookup];
        let named: HashSet<String> = named.into_iter().flatten().filter_map(|url| normal(url)).collect();
        let named = Arc::new(named);
        let client = Client::builder()
            .signer(keys.clone())
            .websocket_transport(Guard { named: named.clone(), allow_private: config.allow_private })
            .opts(ClientOptions::new().automatic_authentication(true))
            .build();
        Self { client, named }
    }

    /// The relay, being connected from now on.
    ///
    /// # Errors
    /// The URL is none.
    pub async fn open(&self, url: &str) -> anyhow::Result<Relay> {
        // Events are measured by our own limits, which answer with a reason.
        let limits = RelayLimits { events: relay::limits::RelayEventLimits::disable(), ..RelayLimits::default() };
        let options = RelayOptions::new().limits(limits).retry_interval(RETRY);
        self.client.pool().add_relay(url, options).await?;
        let relay = self.client.relay(url).await?;
        relay.connect();
        Ok(relay)
    }

    /// Ends the connection to a relay that the operator did not name.
    pub async fn release(&self, url: &str) {
        if self.named.contains(url) {
            return;
        }
        if let Err(error) = self.client.force_remove_relay(url).await {
            tracing::debug!(relay = url, %error, "relay was not open");
        }
    }

    /// Sends an event and waits for the answer, at most some seconds.
    pub async fn send(&self, url: &str, event: &Event) -> Answer {
        let relay = match self.open(url).await {
            Ok(relay) => relay,
            Err(error) => return Answer::Refused(format!("{error:#}")),
        };
        relay.wait_for_connection(Duration::from_secs(10)).await;
        match relay.send_event(event).await {
            Ok(_) => Answer::Taken,
            Err(relay::Error::RelayMessage(message)) => answer(message),
            Err(error) => Answer::Later(error.to_string()),
        }
    }

    /// Asks relays at the same time and returns what came within `wait`, each event once and verified.
    pub async fn fetch(&self, urls: &[String], filter: &Filter, exit: ReqExitPolicy, wait: Duration) -> Vec<Event> {
        let asked = urls.iter().map(|url| async move {
            let relay = self.open(url).await?;
            relay.wait_for_connection(wait).await;
            anyhow::Ok(relay.fetch_events(filter.clone(), wait, exit).await?)
        });
        let mut seen = HashSet::new();
        let answers = join_all(asked).await.into_iter().zip(urls);
        let answers = answers.filter_map(|(answer, url)| {
            answer.inspect_err(|error| tracing::debug!(relay = url, "not asked: {error:#}")).ok()
        });
        answers.flatten().filter(|event| event.verify().is_ok() && seen.insert(event.id)).collect()
    }
}

/// Reads a refusal (NIP-01: machine-readable prefixes).
fn answer(message: String) -> Answer {
    use MachineReadablePrefix as Prefix;
    match Prefix::parse(&message) {
        Some(Prefix::Duplicate) => Answer::Taken,
        Some(Prefix::RateLimited | Prefix::Error | Prefix::AuthRequired) => Answer::Later(message),
        _ => Answer::Refused(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_has_the_event_took_it_and_a_busy_one_is_asked_again() {
        let cases = [
            ("duplicate: already have this event", Answer::Taken),
            ("rate-limited: slow down", Answer::Later("rate-limited: slow down".into())),
            ("auth-required: sign in", Answer::Later("auth-required: sign in".into())),
            ("error: disk full", Answer::Later("error: disk full".into())),
            ("blocked: not on the list", Answer::Refused("blocked: not on the list".into())),
            ("no", Answer::Refused("no".into())),
        ];
        for (message, expected) in cases {
            assert_eq!(answer(message.into()), expected, "{message}");
        }
    }
}
