//! Who does: takes jobs from a coordinator and runs their steps.
//!
//! A job meets the modules in this order: [`coordinator_client`] receives it, [`job_process`] has a process for it, in which
//! [`job`] runs it; [`github`] says behind the seam `dialect` how a step becomes a command, [`mod@sandbox`] runs the
//! command, [`log`] masks, numbers and spools what it printed. [`fetch`] brings images and repositories. [`config`] is what
//! an operator may set.

pub mod config;
pub mod coordinator_client;
mod dialect;
mod disk_usage;
pub mod fetch;
pub mod github;
pub mod job;
pub mod job_process;
pub mod log;
pub mod sandbox;

use std::sync::Arc;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    config::Config,
    coordinator_client::Shutdown,
    job_process::ProcessExecutor,
    sandbox::{
        Sandbox, SandboxKind,
        docker::{DockerConfig, DockerSandbox},
        host::HostSandbox,
    },
};

/// Runs a worker until it is told to end: the processes of its jobs, which are this very program with the command
/// [`job_process::COMMAND`], and its link to the coordinator. `welcomed` is called whenever that takes it in.
pub async fn run(
    config: Config,
    sandbox: Arc<dyn Sandbox>,
    shutdown: Shutdown,
    welcomed: impl Fn() + Send + Sync + 'static,
) -> anyhow::Result<()> {
    // Here, not where it connects: `exec` connects for each run, and its jobs are its user's own.
    for warning in sandbox.warnings() {
        tracing::warn!("{warning}");
    }
    raise_open_files();
    let executor = match ProcessExecutor::start(&config, Arc::clone(&sandbox)) {
        Ok(executor) => Arc::new(executor),
        Err(error) => {
            sandbox.close().await;
            return Err(error);
        }
    };
    let ended = coordinator_client::run(config, executor.clone(), shutdown, welcomed).await;
    executor.close().await;
    ended
}

/// Volumes and processes of jobs hold files of this process open, and systemd gives it 1,024. Where more is refused, jobs
/// are as many as fit.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the soft limit of open files could not be raised");
    }
}

/// The back end that a configuration asks for.
pub async fn sandbox(config: &Config) -> anyhow::Result<Arc<dyn Sandbox>> {
    Ok(match config.sandbox {
        SandboxKind::Docker => DockerSandbox::connect(docker_config(config)).await.context("the docker sandbox")?,
        SandboxKind::Host => HostSandbox::new().context("the host sandbox")?,
    })
}

fn docker_config(config: &Config) -> DockerConfig {
    let name = if config.name.is_empty() { "worker" } else { &config.name };
    // Names may repeat; machines are told apart by who made them.
    let pool = coordinator_client::identity_of(&config.identity_file).unwrap_or_else(|| "local".into());
    DockerConfig {
        worker: name.to_owned(),
        pool,
        job_limits: Some(config.job_limits().resources()),
        volumes: config.disk.fixed_volumes.then(|| (config.data.join("volumes"), config.limits.disk)),
        local_images: Some(config.shared_images()),
        private_registries: config.private_registries.clone(),
        pulled_images: Some(config.data.join("images.json")),
        image_bytes: config.disk.image_bytes,
        min_free: config.disk.min_free,
        ..DockerConfig::default()
    }
}
