//! Asking relays for events, and sending them.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use nostr::{Event, Filter};
use nostr_sdk::Client;
/// Connections to relays.
pub(crate) use nostr_sdk::Client as Relays;

use crate::terminal::printable::printable;

/// How long relays get to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to relays; at least one must answer, and the others are named.
#[allow(clippy::print_stderr)]
pub(crate) async fn connect(relays: &[String]) -> Result<Client> {
    if relays.is_empty() {
        bail!("name a relay with --relay, e.g. --relay wss://relay.example.org");
    }
    let client = Client::default();
    for relay in relays {
        client.add_relay(relay).await.with_context(|| format!("{relay} is no relay URL (ws:// or wss://)"))?;
    }
    let output = client.try_connect(PATIENCE).await;
    if output.success.is_empty() {
        let failed: Vec<String> = output.failed.iter().map(|(url, why)| format!("{url}: {why}")).collect();
        bail!("no relay answers: {}", failed.join("; "));
    }
    for (url, why) in &output.failed {
        eprintln!("warning: {url} does not answer: {}", printable(why));
    }
    Ok(client)
}

/// Stored events that match one of the filters.
pub(crate) async fn find(client: &Client, filters: Vec<Filter>) -> Result<Vec<Event>> {
    let mut found = Vec::new();
    for filter in filters {
        found.extend(client.fetch_events(filter, PATIENCE).await.context("the relays did not answer in time")?);
    }
    Ok(found)
}

/// Sends an event; at least one relay must take it.
pub(crate) async fn send(client: &Client, event: &Event) -> Result<()> {
    let output = client.send_event(event).await.context("no relay took the event")?;
    if output.success.is_empty() {
        let failed: Vec<String> = output.failed.iter().map(|(url, why)| format!("{url}: {why}")).collect();
        bail!("no relay took the event: {}", failed.join("; "));
    }
    Ok(())
}
