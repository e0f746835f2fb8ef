//! Other programs that run the same workflow files from a checkout, where they are on PATH.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::harness::engine::IMAGE;

/// Longer than any of them takes here.
const LIMIT: Duration = Duration::from_secs(120);

/// A program to stand beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name and version.
    pub name: String,
    program: PathBuf,
    before: Vec<String>,
    after: Vec<String>,
}

/// Those that are installed.
pub async fn installed() -> Vec<Peer> {
    let platform = format!("ubuntu-latest={IMAGE}");
    let known: [(&str, &[&str], &[&str]); 2] = [
        ("act", &["push", "-W"], &["-P", &platform, "--pull=false"]),
        // It takes the image `ubuntu:latest` for this label.
        ("wrkflw", &["run", "--runtime", "docker"], &[]),
    ];
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let mut found = Vec::new();
    for (name, before, after) in known {
        if let Some(program) = on_path(name) {
            let name = version(&program).await.unwrap_or_else(|| name.to_owned());
            found.push(Peer { name, program, before: words(before), after: words(after) });
        }
    }
    found
}

impl Peer {
    /// Runs a workflow file of the checkout in the current state of the machine.
    pub async fn run(&self, checkout: &Path, workflow: &str) -> Result<Duration> {
        let from = Instant::now();
        let running = Command::new(&self.program)
            .args(&self.before)
            .arg(workflow)
            .args(&self.after)
            .current_dir(checkout)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(LIMIT, running).await.with_context(|| format!("{} hangs", self.name))??;
        let took = from.elapsed();
        let said = last_line(&[output.stdout, output.stderr].concat());
        ensure!(output.status.success(), "{} ended with {}: {said}", self.name, output.status);
        Ok(took)
    }
}

/// A program by its name.
pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// The first line of `--version`, which all of them know.
async fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().await.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).replace(" version ", " ");
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}
