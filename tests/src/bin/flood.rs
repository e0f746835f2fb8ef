//! `make flood`: floods a pool and prints a table of what had to hold.

#![allow(clippy::print_stdout)]

use std::{process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use longshore_tests::flood::{Row, connections};
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Flood {
    /// Idle connections and event streams, from many addresses and from one
    Connections,
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
    println!();
    rows.iter().for_each(|row| println!("{row}"));
    Ok(if rows.iter().all(|row| row.holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
