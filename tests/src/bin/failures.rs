//! `make failures KILLS=200`: kills the roles of a busy pool at random moments. The last line counts what passed.

#![allow(clippy::print_stdout)]

use std::process::ExitCode;

use clap::Parser;
use longshore_tests::kills;

/// Kills relay, coordinator and worker with -9 at random moments of a busy pool
#[derive(Debug, Parser)]
struct Args {
    /// How often
    #[arg(long, default_value_t = 20)]
    kills: u64,
    /// The first seed; each kill has the next one. A time, unless given
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let seed = args.seed.unwrap_or(since.as_secs());
    let (passed, failed) = kills::run(args.kills, seed, |line| println!("{line}")).await?;
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
