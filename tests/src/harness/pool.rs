//! The product's processes, started as an operator would.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use nostr::{Keys, PublicKey};

use super::{
    engine::{EngineCleanup, IMAGE},
    process::{Process, binary, free_port},
};

/// How long a process may take to be ready on a busy machine.
const START: Duration = Duration::from_secs(60);

/// `longshore dev`.
#[derive(Debug)]
pub struct Dev {
    /// The process.
    pub process: Process,
    /// Its relay.
    pub relay: String,
    /// Its dashboard and Blossom endpoint.
    pub http: String,
    /// Its key.
    pub pubkey: PublicKey,
    _cleanup: EngineCleanup,
}

impl Dev {
    /// Starts it on a data folder.
    pub fn start(data: &Path, arguments: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(data)?;
        let folder = data.to_string_lossy();
        let image = format!("ubuntu-latest={IMAGE}");
        let mut all = vec!["dev", "--data", &folder, "--image", &image];
        all.extend(arguments);
        let mut process = Process::start("longshore", &all, &data.join("dev.log"))?;
        let line = process.line(START, |line| line.starts_with('{') && line.contains("\"relay\""))?;
        let ready: serde_json::Value = serde_json::from_str(&line)?;
        let text = |key: &str| ready[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {line}"));
        let pubkey = PublicKey::from_hex(&text("pubkey")?)?;
        let cleanup = EngineCleanup::of(&data.join("keys/worker.key"))?;
        Ok(Self { process, relay: text("relay")?, http: text("http")?, pubkey, _cleanup: cleanup })
    }
}

/// Coordinator and workers as processes of their own, over relays, with TLS and the keys that `keygen` made.
#[derive(Debug)]
pub struct Pool {
    /// Keys, configuration, data, logs.
    pub folder: PathBuf,
    /// The coordinator's public key.
    pub pubkey: PublicKey,
    /// `http://127.0.0.1:PORT`.
    pub http: String,
    program: PathBuf,
    environment: Vec<(String, String)>,
    grpc: String,
    lives: AtomicU32,
    _cleanup: EngineCleanup,
}

impl Pool {
    /// Makes keys and configuration for a pool that hears these relays.
    pub fn create(folder: &Path, relays: &[String]) -> Result<Self> {
        Self::create_with(&binary("longshore")?, folder, relays)
    }

    /// The same with another build of the product.
    pub fn create_with(program: &Path, folder: &Path, relays: &[String]) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (http, grpc) = (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
        let out = folder.to_string_lossy();
        let url = format!("http://{http}");
        let arguments = ["keygen", "--host", "127.0.0.1", "--public-url", &url, &out];
        let mut keygen = Process::start_program(program, &arguments, &[], &folder.with_extension("keygen.log"))?;
        let code = keygen.wait(START)?;
        anyhow::ensure!(code == 0, "keygen failed: {}", keygen.text());
        let keys = Keys::parse(std::fs::read_to_string(folder.join("nostr.key"))?.trim())?;
        let relays = relays.join(",");
        let environment = [
            ("LONGSHORE_HTTP", http.as_str()),
            ("LONGSHORE_GRPC", &grpc),
            ("LONGSHORE_RELAYS_READ", &relays),
            ("LONGSHORE_RELAYS_WRITE", &relays),
            ("LONGSHORE_RELAYS_INDEX", &relays),
            ("LONGSHORE_RELAYS_LOOKUP", &relays),
            ("LONGSHORE_RELAYS_ALLOW_PRIVATE", "true"),
            ("LONGSHORE_SOURCE_ALLOW_PRIVATE", "true"),
            // What `keygen` writes lets nobody in but the pool's own key.
            ("LONGSHORE_POLICY_EVERYONE", "true"),
        ];
        Ok(Self {
            folder: folder.to_owned(),
            pubkey: keys.public_key(),
            http: url,
            program: program.to_owned(),
            environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            grpc,
            lives: AtomicU32::new(0),
            _cleanup: EngineCleanup::of(&folder.join("worker.key"))?,
        })
    }

    /// Sets a further variable of the coordinator's environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where workers connect.
    pub fn grpc_url(&self) -> String {
        format!("https://{}", self.grpc)
    }

    /// Starts the coordinator and waits until it is ready.
    pub fn coordinator(&self) -> Result<Process> {
        let mut process = self.start_coordinator()?;
        process.line(START, |line| line == "ready")?;
        Ok(process)
    }

    /// Starts the coordinator.
    pub fn start_coordinator(&self) -> Result<Process> {
        let config = self.folder.join("coordinator.toml");
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let arguments = ["coordinator", "--config", &config.to_string_lossy()];
        Process::start_program(&self.program, &arguments, &environment, &self.log("coordinator"))
    }

    /// Starts the worker, with further environment, and waits until its session is open. One live process at a time:
    /// there is one identity.
    pub fn worker(&self, environment: &[(&str, &str)]) -> Result<Process> {
        let config = self.folder.join("worker.toml");
        let coordinator = self.grpc_url();
        let label = format!("labels.ubuntu-latest={IMAGE}");
        let arguments = ["worker", "--config", &config.to_string_lossy(), "--set", &label, "--set", "name=worker"];
        let mut all = vec![("LONGSHORE_COORDINATOR", coordinator.as_str())];
        all.extend(environment);
        let mut process = Process::start_program(&self.program, &arguments, &all, &self.log("worker"))?;
        process.line(START, |line| line.starts_with("ready: "))?;
        Ok(process)
    }

    /// Each life of a process has a log of its own.
    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}-{}.log", self.lives.fetch_add(1, Ordering::Relaxed)))
    }
}
