//! A Nostr relay as a process of its own: `relay [PORT]`. Prints its URL, then runs until it is ended.

use nostr_relay_builder::{LocalRelay, RelayBuilder, builder::RateLimit};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // The builder's own default of 60 events a minute is for the public internet.
    let limit = RateLimit { max_reqs: 10_000, notes_per_minute: 1_000_000 };
    let mut builder = RelayBuilder::default().rate_limit(limit);
    if let Some(port) = std::env::args().nth(1) {
        builder = builder.port(port.parse()?);
    }
    let relay = LocalRelay::new(builder);
    relay.run().await?;
    announce(&relay.url().await.to_string());
    std::future::pending::<()>().await;
    Ok(())
}

#[allow(clippy::print_stdout)]
fn announce(url: &str) {
    println!("{url}");
}
