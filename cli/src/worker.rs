//! `longshore worker`: takes jobs from a coordinator and runs them.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use ::coordinator::config::load::{Given, load};
use anyhow::{Context as _, Result, bail};
use tracing::warn;
use worker::{config::Config, link::Shutdown};

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
    let given = Given { file: args.config.as_deref(), environment: std::env::vars().collect(), sets: &args.sets };
    let loaded = load(&Config::complete(), &given)?;
    for warning in loaded.warnings.into_iter().chain(loaded.config.check()?) {
        warn!("{warning}");
    }
    let config = loaded.config;
    let _alone = alone(&config.data, "`data`")?;
    let (slots, coordinator) = (config.slots, config.coordinator.clone());
    let sandbox = worker::sandbox(&config).await?;
    println!("ready: {slots} slots, sandbox {}, coordinator {coordinator}", sandbox.name());
    worker::run(config, sandbox, Shutdown::from_signals()?).await?;
    Ok(ExitCode::SUCCESS)
}

/// Keeps a data folder, which is made where it is missing, for this process until the file is dropped. `key` is what
/// names another folder. However the process ends, its lock ends with it.
pub(crate) fn alone(data: &Path, key: &str) -> Result<File> {
    let path = data.join("lock");
    let unusable = || format!("data folder {}: make it writable or set {key}", data.display());
    std::fs::create_dir_all(data).with_context(unusable)?;
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.with_context(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who has it is a help only: the file may not be written yet.
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.is_empty() { String::new() } else { format!(" {}", holder.trim()) };
            bail!("{} is in use by process{holder}: stop it, or name another folder with {key}", data.display());
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("{}: cannot be locked", path.display())).with_context(unusable);
        }
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).with_context(unusable)?;
    Ok(file)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_data_folder_in_use_is_refused_until_its_process_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = alone(&data, "--data").unwrap();
        let refused = alone(&data, "--data").unwrap_err().to_string();
        let holder = format!("{} is in use by process {}: stop it", data.display(), std::process::id());
        assert!(refused.contains(&holder) && refused.contains("--data"), "{refused}");
        drop(first);
        alone(&data, "--data").unwrap();
    }
}
