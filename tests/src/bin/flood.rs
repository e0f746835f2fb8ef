//! `make flood`: floods a pool and prints a table of what had to hold.

#![allow(clippy::print_stdout)]

use std::{process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use longshore_tests::{
    bench::scale::Scale,
    flood::{Row, connections, events, refusals},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Floods a pool with what strangers can send and open, and looks at what it still does
#[derive(Debug, Parser)]
struct Args {
    /// Only these floods
    #[arg(long, value_delimiter = ',')]
    only: Vec<Flood>,
    /// How long each flood of connections lasts, in seconds
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// The part of the floods of events that is sent, e.g. 0.1 to see that they work
    #[arg(long, default_value = "1")]
    scale: Scale,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Flood {
    /// Idle connections and event streams, from many addresses and from one
    Connections,
    /// Events of a thousand keys, through a relay that the pool reads
    Events,
    /// Refused jobs that name relays where nobody answers
    Refusals,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let wanted = |flood| args.only.is_empty() || args.only.contains(&flood);
    let mut rows: Vec<Row> = Vec::new();
    if wanted(Flood::Connections) {
        rows.extend(connections::run(Duration::from_secs(args.seconds), |line| println!("{line}")).await?);
    }
    if wanted(Flood::Events) {
        rows.extend(Box::pin(events::run(args.scale, |line| println!("{line}"))).await?);
    }
    if wanted(Flood::Refusals) {
        rows.extend(Box::pin(refusals::run(args.scale, |line| println!("{line}"))).await?);
    }
    println!();
    rows.iter().for_each(|row| println!("{row}"));
    Ok(if rows.iter().all(|row| row.holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
