//! The real `ngit-grasp`: relay and git server of repositories in one.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use nostr::Keys;

use super::programs::Programs;
use crate::harness::process::{Process, free_port};

/// How long it may take to be ready.
const START: Duration = Duration::from_secs(30);

/// One that serves public repositories; ends when dropped.
#[derive(Debug)]
pub(super) struct GraspServer {
    /// The process.
    pub(super) process: Process,
    /// `http://127.0.0.1:PORT`: what announcements name, by which `ngit` reaches both halves.
    pub(super) http: String,
    /// `ws://127.0.0.1:PORT`.
    pub(super) relay: String,
}

impl GraspServer {
    /// Starts one whose data lies in a folder.
    pub(super) async fn start(programs: &Programs, folder: &Path) -> Result<Self> {
        let data = folder.join("grasp");
        std::fs::create_dir_all(&data)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let owner = Keys::generate().secret_key().to_secret_hex();
        let at = |name: &str| data.join(name).to_string_lossy().into_owned();
        let (git, events) = (at("git"), at("relay"));
        let environment = [
            ("NGIT_BIND_ADDRESS", address.as_str()),
            ("NGIT_DOMAIN", &address),
            ("NGIT_GIT_DATA_PATH", &git),
            ("NGIT_RELAY_DATA_PATH", &events),
            ("NGIT_RELAY_OWNER_NSEC", &owner),
            // It would look around among public relays.
            ("NGIT_USER_INDEX_RELAYS", ""),
            ("NGIT_SYNC_PLUS_FALLBACK_RELAYS", ""),
            ("NGIT_SYNC_PLUS_ENABLED", "false"),
            ("NGIT_METRICS_ENABLED", "false"),
            ("RUST_LOG", "info"),
        ];
        let program = programs.path("ngit-grasp");
        let process = Process::start_program(&program, &[], &environment, &folder.join("grasp.log"))?;
        let (http, relay) = (format!("http://{address}"), format!("ws://{address}"));
        let mut server = Self { process, http, relay };
        server.until_ready().await?;
        Ok(server)
    }

    /// It says nothing that a program could wait for, so it is asked.
    async fn until_ready(&mut self) -> Result<()> {
        let client = reqwest::Client::new();
        let begin = tokio::time::Instant::now();
        while begin.elapsed() < START {
            let answer = client.get(&self.http).header("accept", "application/nostr+json").send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if !self.process.runs().context("ngit-grasp")? {
                bail!("ngit-grasp ended before it was ready: {}", self.process.text());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("ngit-grasp was not ready within {START:?}: {}", self.process.text())
    }
}
