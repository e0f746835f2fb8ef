//! `longshore worker`: takes jobs from a coordinator and runs them.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use ::config::load::{Given, load};
use anyhow::Result;
use tracing::warn;
use worker::{config::Config, coordinator_client::Shutdown};

use crate::data_lock;

/// Take jobs from a coordinator and run them in containers
///
/// `longshore keygen` writes a commented configuration. TERM ends it after its running jobs, a second one cancels them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration (TOML)
    #[arg(long, value_name = "FILE", env = "LONGSHORE_CONFIG")]
    config: Option<PathBuf>,
    /// One key of the configuration, e.g. --set slots=4; may be repeated. LONGSHORE_SLOTS=4 does the same
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let environment = std::env::vars().collect();
    let given = Given { file: args.config.as_deref(), environment, sets: &args.sets, ..Default::default() };
    let loaded = load(&Config::complete(), &given)?;
    for warning in loaded.warnings.into_iter().chain(loaded.config.check()?) {
        warn!("{warning}");
    }
    let config = loaded.config;
    let _alone = data_lock::acquire(&config.data, "`data`")?;
    let (slots, coordinator) = (config.slots, config.coordinator.clone());
    let sandbox = worker::sandbox(&config).await?;
    println!("connecting to {coordinator}");
    let (kind, bound) = (sandbox.kind(), sandbox.disk_bound());
    let ready = format!("ready: {slots} slots, sandbox {kind} ({bound}), coordinator {coordinator}");
    // Jobs go on where nobody reads it any more.
    let welcomed = move || drop(writeln!(std::io::stdout(), "{ready}"));
    worker::run(config, sandbox, Shutdown::from_signals()?, welcomed).await?;
    Ok(ExitCode::SUCCESS)
}

/// Returns when somebody asks this process to end: Ctrl-C, or TERM.
pub(crate) async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
