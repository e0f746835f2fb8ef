//! `make bench`: the goals as a table of ratios, each beside a floor measured in the same run. Exit code 0 where all
//! hold, 1 where one does not or cannot be measured.

#![allow(clippy::print_stdout)]

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use longshore_tests::bench::{
    engine::Engine,
    goals::{Choice, Goal, measure},
    progress,
    scale::Scale,
};
use tokio::signal::unix::{SignalKind, signal};

/// Measures the goals beside floors of the same run
#[derive(Debug, Parser)]
struct Args {
    /// Which to measure, e.g. g1,g3; `floors` is Docker alone, without the product [default: all goals]
    #[arg(long, value_delimiter = ',', ignore_case = true)]
    only: Vec<Goal>,
    /// Pairs for each ratio [default: 30 for g1 and g3, 20 for g4, 10 for others]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: Option<u16>,
    /// The part of the large measurements that is done, e.g. 0.01 to see that they work
    #[arg(long, default_value = "1")]
    scale: Scale,
    /// The program `longshore` of an earlier commit: g1, g3, g4, g6 and w1 to w4 are measured beside it, in turns
    #[arg(long)]
    base: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let all = Goal::value_variants().iter().copied().filter(|goal| *goal != Goal::Floors);
    let goals = if args.only.is_empty() { all.collect() } else { args.only.into_iter().collect() };
    let choice = Choice { goals, pairs: args.pairs.map(usize::from), scale: args.scale, base: args.base };
    let load = std::fs::read_to_string("/proc/loadavg").context("cannot read the machine's load")?;
    let mut terminate = signal(SignalKind::terminate())?;

    let engine = if choice.needs_engine() { Some(Engine::connect().await?) } else { None };
    let clean_up = async || match &engine {
        Some(engine) => engine.clean_up().await,
        None => Ok(()),
    };
    let measured = {
        let mut measuring = Box::pin(measure(engine.as_ref(), &choice));
        let stopped = tokio::select! {
            measured = &mut measuring => Ok(measured),
            _ = tokio::signal::ctrl_c() => Err("interrupted"),
            _ = terminate.recv() => Err("ended from outside"),
        };
        match stopped {
            Ok(measured) => measured,
            // Before the product's processes go with `measuring`: a worker cannot remove what our containers hold.
            Err(cause) => clean_up().await.and(Err(anyhow::anyhow!(cause))),
        }
    };
    progress("removing what was made");
    let cleaned = clean_up().await;
    let report = measured?;
    cleaned.context("not everything could be removed: docker ps --all --filter label=longshore.bench shows it")?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("Load before the start {}, {cores} cores.{}\n\n{}", load.trim(), doubts(&load), report.markdown());
    if !choice.scale.is_whole() {
        progress("only a part was measured: these figures are not for publishing");
    }
    if cfg!(debug_assertions) {
        progress("this is a debug build, whose figures say nothing: use make bench");
        return Ok(ExitCode::FAILURE);
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn doubts(load: &str) -> &'static str {
    match load.split(' ').next().and_then(|first| first.parse::<f64>().ok()) {
        Some(first) if first < 1.0 => "",
        _ => " **The machine was not quiet (load 1 or more): measure again.**",
    }
}
