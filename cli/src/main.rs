//! `longshore`: coordinator, worker and client in one binary. One file for each command; this one lists them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a command prints is its result")]

mod client;
mod coordinator;
mod dev;
mod eval;
mod exec;
mod lint;
mod plan;
mod worker;

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// CI/CD for Nostr git.
///
/// A coordinator listens on relays for job events and hands the jobs to any number of workers, which run them in
/// containers. To try it on this machine, with nothing set up: `longshore dev`. To run a workflow of a checkout without
/// any of that: `longshore exec .`
#[derive(Parser)]
#[command(name = "longshore", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    // On this machine
    Exec(exec::Args),
    Lint(lint::Args),
    Plan(plan::Args),
    Eval(eval::Args),
    Dev(dev::Args),
    // The roles of a pool
    Coordinator(coordinator::Args),
    Worker(worker::Args),
    Keygen(client::keygen::Args),
    // A pool's clients
    Submit(client::submit::Args),
    Verify(client::verify::Args),
}

impl Command {
    /// What is written to stderr unless LONGSHORE_LOG says otherwise: a role tells what it does, a tool only trouble.
    fn log_level(&self) -> &'static str {
        match self {
            Self::Coordinator(_) | Self::Worker(_) | Self::Dev(_) => "info,nostr_relay_pool=warn,nostr_relay_builder=warn",
            _ => "warn,nostr_relay_pool=error",
        }
    }

    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Exec(args) => Box::pin(exec::run(args)).await,
            Self::Lint(args) => lint::run(&args),
            Self::Plan(args) => plan::run(&args),
            Self::Eval(args) => eval::run(&args),
            Self::Dev(args) => Box::pin(dev::run(args)).await,
            Self::Coordinator(args) => Box::pin(coordinator::run(args)).await,
            Self::Worker(args) => Box::pin(worker::run(args)).await,
            Self::Keygen(args) => client::keygen::run(&args),
            Self::Submit(args) => Box::pin(client::submit::run(args)).await,
            Self::Verify(args) => Box::pin(client::verify::run(args)).await,
        }
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let filter = EnvFilter::try_from_env("LONGSHORE_LOG").unwrap_or_else(|_| EnvFilter::new(command.log_level()));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    // Two libraries could each bring a provider of their own; a second call would only repeat this choice.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(command.run()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
