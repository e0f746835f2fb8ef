//! `make flood`: floods a pool and prints a table of what had to hold.

#![allow(clippy::print_stdout)]

use std::{process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use longshore_tests::{
    bench::scale::Scale,
    flood::{Row, connections, events, jobs, refusals},
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
    /// How often a good job is timed beside each kind of hostile job, and beside a sleeping one
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    pairs: u8,
    /// Only the kinds of hostile jobs whose names hold one of these, e.g. disk,fork
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Flood {
    /// Idle connections and event streams, from many addresses and from one
    Connections,
    /// Events of a thousand keys, through a relay that the pool reads
    Events,
    /// Refused jobs that name relays where nobody answers
    Refusals,
    /// A hostile job of each kind beside a good one on the same worker: the good job's time by that beside a sleeping job, how
    /// the worker's own process grows, and how the hostile job ends. Needs Docker; eight minutes
    Jobs,
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
    if wanted(Flood::Jobs) {
        rows.extend(Box::pin(jobs::run(&args.kinds, args.pairs.into(), |line| println!("{line}"))).await?);
    }
    println!();
    rows.iter().for_each(|row| println!("{row}"));
    Ok(if rows.iter().all(|row| row.holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
