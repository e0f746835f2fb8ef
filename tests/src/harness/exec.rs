//! `longshore exec --json` on a checkout, and what it says of the run.

use std::{fmt, ops::Deref, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{engine::IMAGE, process::binary};

/// Seconds after which a run that hangs is ended.
const LIMIT: &str = "300";

/// One run to be made.
#[derive(Debug)]
pub struct Exec(tokio::process::Command);

/// What was said of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome(Value);

impl Exec {
    /// Of a checkout, with a folder for what outlasts a run.
    pub fn of(checkout: &Path, cache: &Path) -> Result<Self> {
        let mut command = tokio::process::Command::new("timeout");
        command.arg(LIMIT).arg(binary("longshore")?).arg("exec").arg(checkout).arg("--json");
        command.args(["--image", &format!("ubuntu-latest={IMAGE}")]).arg("--cache").arg(cache);
        Ok(Self(command))
    }

    /// Further arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.0.args(arguments);
        self
    }

    /// Secrets, whose values come from the environment.
    #[must_use]
    pub fn secrets(mut self, secrets: &[(&str, &str)]) -> Self {
        for (name, value) in secrets {
            self.0.args(["--secret", name]).env(name, value);
        }
        self
    }

    /// Runs it to its end, however that is.
    pub async fn run(mut self) -> Result<Outcome> {
        let output = self.0.output().await?;
        let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(Outcome(serde_json::from_str(&said).with_context(|| format!("{said}\n{told}"))?))
    }
}

impl Outcome {
    /// A job by its key; null: there is none.
    pub fn job(&self, key: &str) -> &Value {
        let jobs = self.0["jobs"].as_array().into_iter().flatten();
        jobs.into_iter().find(|job| job["key"] == key).unwrap_or(&Value::Null)
    }

    /// The log of a job.
    pub fn log(&self, key: &str) -> &str {
        self.job(key)["log"].as_str().unwrap_or_default()
    }

    /// Lines of a job's log that begin with a mark, `> `, which the steps of a test print.
    pub fn marked(&self, key: &str) -> Vec<String> {
        marked(self.log(key)).collect()
    }

    /// Such lines of all jobs, sorted: jobs run in any order.
    pub fn all_marked(&self) -> Vec<String> {
        let jobs = self.0["jobs"].as_array().into_iter().flatten();
        let mut lines: Vec<_> = jobs.filter_map(|job| job["log"].as_str()).flat_map(marked).collect();
        lines.sort();
        lines
    }
}

fn marked(log: &str) -> impl Iterator<Item = String> + '_ {
    log.lines().filter_map(|line| line.strip_prefix("> ")).map(str::to_owned)
}

impl Deref for Outcome {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#}", self.0)
    }
}
