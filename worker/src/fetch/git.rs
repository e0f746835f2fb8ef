//! The program `git` for what this worker keeps of repositories.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// Runs git in a repository, free of the machine's own configuration. Returns what it printed.
pub(super) async fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("the program `git` is needed on a worker: install it")?;
    if !output.status.success() {
        let command = arguments.iter().find(|word| !word.starts_with('-') && !word.contains('=')).unwrap_or(&"");
        bail!("git {command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
