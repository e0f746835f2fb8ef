//! A Nostr relay as a process of its own. Prints its URL, then runs until it is ended; with `--journal` a later process
//! has the events of an earlier one, however that ended.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Parser;
use nostr_relay_builder::prelude::{
    BoxedFuture, Event, JsonUtil, LocalRelay, MemoryDatabase, MemoryDatabaseOptions, NostrDatabase, PolicyResult,
    RateLimit, RelayBuilder, WritePolicy,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;

/// Runs a relay on 127.0.0.1
#[derive(Debug, Parser)]
struct Args {
    /// Where it listens; 0: a free port
    #[arg(default_value_t = 0)]
    port: u16,
    /// Subscriptions of one connection
    #[arg(long, default_value_t = 10_000)]
    subscriptions: usize,
    /// Events that were taken, one a line; those that are there already are served
    #[arg(long)]
    journal: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // The builder's own default of 60 events a minute is for the public internet.
    let limit = RateLimit { max_reqs: args.subscriptions, notes_per_minute: 10_000_000 };
    // The builder's own database drops the oldest of 75,000 events, which a measurement waits for in vain.
    let options = MemoryDatabaseOptions { events: true, max_events: None };
    let mut builder = RelayBuilder::default().rate_limit(limit).database(MemoryDatabase::with_opts(options));
    if let Some(path) = &args.journal {
        builder =
            builder.database(restored(path).await?).write_policy(Journal::open(path)?).default_filter_limit(100_000);
    }
    let relay = LocalRelay::new(builder);
    let port = args.port;
    let listener = TcpListener::bind(("127.0.0.1", port)).await.context("the port cannot be had")?;
    announce(&format!("ws://{}", listener.local_addr()?));
    local_relay::serve(listener, relay).await?;
    Ok(())
}

/// Writes each event down before it is stored and answered: a process that is killed loses nothing it said OK to.
#[derive(Debug)]
struct Journal(Mutex<File>);

impl Journal {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(Mutex::new(file.with_context(|| format!("{}", path.display()))?)))
    }
}

impl WritePolicy for Journal {
    fn admit_event<'a>(&'a self, event: &'a Event, _: &'a SocketAddr) -> BoxedFuture<'a, PolicyResult> {
        let line = event.as_json() + "\n";
        let written = self.0.lock().write_all(line.as_bytes());
        Box::pin(std::future::ready(match written {
            Ok(()) => PolicyResult::Accept,
            Err(error) => PolicyResult::Reject(error.to_string()),
        }))
    }
}

/// What an earlier process took.
async fn restored(path: &Path) -> anyhow::Result<MemoryDatabase> {
    let options = MemoryDatabaseOptions { events: true, max_events: None };
    let database = MemoryDatabase::with_opts(options);
    let Ok(file) = File::open(path) else { return Ok(database) };
    for line in BufReader::new(file).lines() {
        // The last line may be cut: nobody was told OK for it.
        if let Ok(event) = Event::from_json(line?) {
            database.save_event(&event).await?;
        }
    }
    Ok(database)
}

#[allow(clippy::print_stdout)]
fn announce(url: &str) {
    println!("{url}");
}
