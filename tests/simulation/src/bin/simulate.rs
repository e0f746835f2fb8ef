//! `make simulate SEEDS=N`: simulates that many pools, on every core. The last line counts what passed.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
};

use clap::Parser;
use longshore_simulation::{Sabotage, explain, simulate};

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates pools whose network, disk, clocks and processes fail
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// This seed alone, with everything that happens
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Puts a fault into the product, which has to be found
    #[arg(long)]
    sabotage: Option<Sabotage>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        return match explain(seed, args.sabotage) {
            Ok((text, summary)) => {
                println!("{text}{summary:?}\n1 passed, 0 failed");
                ExitCode::SUCCESS
            }
            Err(text) => {
                println!("{text}\n0 passed, 1 failed");
                ExitCode::FAILURE
            }
        };
    }
    let (next, failed) = (AtomicU64::new(args.first), AtomicU64::new(0));
    let end = args.first.saturating_add(args.seeds);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if let Err(violation) = simulate(seed, args.sabotage) {
                        failed.fetch_add(1, Ordering::Relaxed);
                        println!("SEED={seed}: {violation}");
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{} passed, {failed} failed", args.seeds - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
