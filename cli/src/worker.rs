//! `longshore worker`: the role that does.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::bail;
use coordinator::config::load;
use worker::{
    config::Config,
    link::{self, Sandboxed, Shutdown},
    sandbox::{Limits, Sandbox, docker::DockerConfig},
};

use crate::exec::machine::{Kind, back_end};

/// Run a worker: takes jobs from a coordinator and runs them in containers
///
/// It dials out; nothing needs to reach it. `longshore keygen` makes its key and a configuration to begin with. TERM or
/// Ctrl-C lets running jobs end and takes no more; a second one ends them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration (TOML)
    #[arg(long, value_name = "FILE", env = "LONGSHORE_CONFIG")]
    config: Option<PathBuf>,
    /// One key of the configuration, e.g. slots=4; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let given =
        load::Given { file: args.config.as_deref(), environment: std::env::vars().collect(), sets: &args.sets };
    let loaded = load::load(&Config::complete(), &given)?;
    let config: Config = loaded.config;
    for warning in loaded.warnings.into_iter().chain(config.check()?) {
        tracing::warn!("{warning}");
    }
    let shutdown = Shutdown::default();
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            asked_to_end().await;
            shutdown.drain.cancel();
            asked_to_end().await;
            shutdown.stop.cancel();
        }
    });
    let sandbox = sandbox(&config).await?;
    println!("ready: {} slots, sandbox {}, coordinator {}", config.slots, sandbox.name(), config.coordinator);
    let ended = link::run(config, Arc::new(Sandboxed(sandbox.clone())), shutdown).await;
    sandbox.close().await;
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// The back end a configuration names, its warm pool filling.
pub(crate) async fn sandbox(config: &Config) -> anyhow::Result<Arc<dyn Sandbox>> {
    let kind = match config.sandbox.as_str() {
        "docker" => Kind::Docker,
        "host" => Kind::Host,
        other => bail!("sandbox = \"{other}\": there are \"docker\" and \"host\""),
    };
    let limits =
        Limits { memory: config.limits.memory, processes: config.limits.processes, ..Limits::default() };
    let name = if config.name.is_empty() { "worker".to_owned() } else { config.name.clone() };
    let docker = DockerConfig { worker: name, pool_size: config.pool.size, limits, ..DockerConfig::default() };
    let sandbox = back_end(kind, docker).await?;
    let mut images: Vec<String> = config.labels.values().cloned().collect();
    images.sort();
    images.dedup();
    sandbox.warm(&images);
    Ok(sandbox)
}

/// Returns when somebody asks this process to end: Ctrl-C, or TERM.
pub(crate) async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
