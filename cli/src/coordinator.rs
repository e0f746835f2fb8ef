//! `longshore coordinator`: the role that decides.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use config::{Config, load};
use nostr_client::relays::Answer;
use tokio_util::sync::CancellationToken;

/// Run a coordinator: listens for job events, hands jobs to workers, publishes results
///
/// `longshore keygen` makes its keys and a configuration to begin with. Every key of the file can also be set by an
/// environment variable (LONGSHORE_RELAYS_READ for relays.read) or by --set.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration (TOML)
    #[arg(long, value_name = "FILE", env = "LONGSHORE_CONFIG")]
    config: Option<PathBuf>,
    /// One key of the configuration, e.g. relays.read=wss://relay.example; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let environment = std::env::vars().collect();
    let given = load::Given { file: args.config.as_deref(), environment, sets: &args.sets, ..Default::default() };
    let loaded = load::load(&Config::complete(), &given)?;
    let config: Config = loaded.config;
    for warning in loaded.warnings.into_iter().chain(config.check()?) {
        tracing::warn!("{warning}");
    }
    let _alone = crate::data_lock::acquire(&config.data, "`data`")?;
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            crate::worker::terminated().await;
            stop.cancel();
        }
    });
    let running = Box::pin(::coordinator::start(config, stop)).await.context("the coordinator did not start")?;
    println!("pages on http://{}, workers on {}, key {}", running.http, running.grpc, running.pubkey);
    for (relay, answer) in &running.advertised {
        println!("{}", advertised(relay, answer));
    }
    println!("ready");
    running.ended().await?;
    Ok(ExitCode::SUCCESS)
}

/// Whether clients of a relay will find the pool.
pub(crate) fn advertised(relay: &str, answer: &Answer) -> String {
    match answer {
        Answer::Taken => format!("{relay} took the advertisement"),
        Answer::Refused(why) => format!("{relay} refused the advertisement: {why}"),
        Answer::Later(why) => format!("{relay} has no advertisement yet: {why}"),
    }
}
