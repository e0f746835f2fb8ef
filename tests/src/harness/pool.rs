//! The product's processes, started as an operator would.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use nostr::{Keys, PublicKey};

use super::{
    engine::IMAGE,
    process::{Process, free_port},
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
        Ok(Self { process, relay: text("relay")?, http: text("http")?, pubkey: PublicKey::from_hex(&text("pubkey")?)? })
    }
}

/// Coordinator and workers as processes of their own, over one relay, with TLS.
#[derive(Debug)]
pub struct Pool {
    /// Keys, configuration, data, logs.
    pub folder: PathBuf,
    /// The coordinator's public key.
    pub pubkey: PublicKey,
    /// The coordinator's key.
    pub keys: Keys,
    /// `http://127.0.0.1:PORT`.
    pub http: String,
    grpc: u16,
}

impl Pool {
    /// Writes keys and configuration for a pool that hears these relays. `extra` is appended to the coordinator's
    /// TOML (tables only).
    pub fn create(folder: &Path, relays: &[String], extra: &str) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let log = folder.join("keygen.log");
        let out = folder.to_string_lossy();
        let code = Process::start("longshore", &["keygen", "--out", &out, "--host", "127.0.0.1"], &log)?.wait(START)?;
        anyhow::ensure!(code == 0, "keygen failed: {}", std::fs::read_to_string(&log)?);
        let (http, grpc) = (free_port()?, free_port()?);
        let keys = Keys::parse(std::fs::read_to_string(folder.join("nostr.key"))?.trim())?;
        let relays = serde_json::to_string(relays)?;
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let text = format!(
            "data = {data:?}\nkey_file = {key:?}\nstore_key_file = {store:?}\nname = \"pool\"\n\
             http = \"127.0.0.1:{http}\"\npublic_url = \"http://127.0.0.1:{http}\"\ngrpc = \"127.0.0.1:{grpc}\"\n\
             workers = [{worker:?}]\n\
             [tls]\ncertificate = {certificate:?}\nkey = {tls_key:?}\n\
             [relays]\nread = {relays}\nwrite = {relays}\nlookup = {relays}\nallow_private = true\n\
             [source]\nallow_private = true\n{extra}",
            data = path("coordinator"),
            key = path("nostr.key"),
            store = path("store.key"),
            certificate = path("coordinator.pem"),
            tls_key = path("coordinator.key"),
            worker = std::fs::read_to_string(folder.join("worker.pub"))?.trim(),
        );
        std::fs::write(folder.join("coordinator.toml"), text)?;
        let pubkey = keys.public_key();
        Ok(Self { folder: folder.to_owned(), pubkey, keys, http: format!("http://127.0.0.1:{http}"), grpc })
    }

    /// Starts the coordinator and waits until it is ready.
    pub fn coordinator(&self) -> Result<Process> {
        let config = self.folder.join("coordinator.toml");
        let log = self.folder.join(format!("coordinator-{}.log", uuid_like()));
        let mut process = Process::start("longshore", &["coordinator", "--config", &config.to_string_lossy()], &log)?;
        process.line(START, |line| line.contains("ready"))?;
        Ok(process)
    }

    /// Starts a worker and waits until its session is open.
    pub fn worker(&self, name: &str, slots: u32, extra: &str) -> Result<Process> {
        let path = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        let text = format!(
            "coordinator = \"https://127.0.0.1:{}\"\nname = {name:?}\nslots = {slots}\ndata = {:?}\n\
             identity_file = {:?}\nca_file = {:?}\n{extra}\n[labels]\nubuntu-latest = {IMAGE:?}\n",
            self.grpc,
            path(&format!("worker-{name}")),
            path("worker.key"),
            path("ca.pem"),
        );
        let config = self.folder.join(format!("{name}.toml"));
        std::fs::write(&config, text)?;
        let log = self.folder.join(format!("{name}-{}.log", uuid_like()));
        let mut process = Process::start("longshore", &["worker", "--config", &config.to_string_lossy()], &log)?;
        process.line(START, |line| line.contains("ready"))?;
        Ok(process)
    }
}

/// Tells logs of one process's several lives apart.
fn uuid_like() -> u128 {
    std::time::UNIX_EPOCH.elapsed().map(|since| since.as_nanos()).unwrap_or_default()
}
