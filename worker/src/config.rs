//! What an operator may set for a worker.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::sandbox::SandboxKind;

/// A worker's configuration (TOML). Unknown keys are errors.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// URL of the coordinator's gRPC port, e.g. `https://ci.example.org:7443`.
    pub coordinator: String,
    /// Shown to operators.
    pub name: String,
    /// Jobs at a time.
    pub slots: u32,
    /// Folder of mirrors, spools and the journal.
    pub data: PathBuf,
    /// Runner labels and the image each stands for.
    pub labels: BTreeMap<String, String>,
    /// `docker`, or `host` for trusted use without isolation.
    pub sandbox: SandboxKind,
    /// Warm containers.
    pub pool: WarmPoolConfig,
    /// Limits of one job.
    pub limits: JobLimits,
    /// Node.js (one program that runs by itself) for images that have none: JavaScript actions run on it.
    pub node: Option<PathBuf>,
    /// File of the enrolment key (Ed25519 seed, hex).
    pub identity_file: PathBuf,
    /// One-time enrolment token; needed until the coordinator knows the identity.
    pub token: Option<String>,
    /// File of the coordinator's certificate authority (PEM). Empty: plain text, which only `dev` uses.
    pub ca_file: Option<PathBuf>,
}

/// The warm pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarmPoolConfig {
    /// Containers kept ready for each image. 0: none.
    pub size: usize,
}

/// Limits of one job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobLimits {
    /// Bytes.
    pub memory: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Bytes of log for a job; the job ends with the reason `log limit` beyond them.
    pub log: u64,
    /// Minutes a job may take where its workflow names none.
    pub timeout_minutes: u64,
    /// Bytes of disk a job may use. 0: no watcher.
    pub disk: u64,
}

impl Config {
    /// A configuration with a value for every optional key; tells the loader which keys there are.
    pub fn complete() -> Self {
        let path = || Some(PathBuf::new());
        Self { token: Some(String::new()), ca_file: path(), node: path(), ..Self::default() }
    }

    /// Checks what can be checked without a network or an engine. Returns warnings.
    pub fn check(&self) -> anyhow::Result<Vec<String>> {
        ensure!(self.slots > 0, "slots = 0: a worker needs at least one");
        ensure!(!self.labels.is_empty(), "labels is empty: name at least one, e.g. ubuntu-latest = \"IMAGE\"");
        if let Some(node) = &self.node {
            let there = node.is_file();
            ensure!(there, "node = \"{}\": there is no such file; name the program of Node.js itself", node.display());
        }
        let mode = std::fs::metadata(&self.identity_file)
            .with_context(|| format!("identity_file {}: `longshore keygen` makes it", self.identity_file.display()))?
            .permissions()
            .mode();
        let mut warnings = Vec::new();
        if mode & 0o077 != 0 {
            let path = self.identity_file.display();
            warnings.push(format!("{path} can be read by others (mode {:03o}): run `chmod 600 {path}`", mode & 0o777));
        }
        if !self.sandbox.is_isolated() {
            warnings.push("sandbox = \"host\": jobs run on this machine without any isolation".to_owned());
        }
        Ok(warnings)
    }
}

impl Default for Config {
    fn default() -> Self {
        let image = "catthehacker/ubuntu:act-latest".to_owned();
        Self {
            coordinator: "https://127.0.0.1:7443".into(),
            name: String::new(),
            slots: 2,
            data: "/var/lib/longshore/worker".into(),
            labels: ["ubuntu-latest", "ubuntu-24.04", "ubuntu-22.04"].map(|l| (l.to_owned(), image.clone())).into(),
            sandbox: SandboxKind::default(),
            pool: WarmPoolConfig::default(),
            limits: JobLimits::default(),
            node: None,
            identity_file: "worker.key".into(),
            token: None,
            ca_file: None,
        }
    }
}

impl Default for WarmPoolConfig {
    fn default() -> Self {
        Self { size: 1 }
    }
}

impl Default for JobLimits {
    fn default() -> Self {
        Self { memory: 4 << 30, processes: 4096, log: 256 << 20, timeout_minutes: 360, disk: 16 << 30 }
    }
}
