//! What an operator may set for the events of NIP-C1: manual triggers, services of repositories, and results of jobs.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::policy::repository_address;

/// The events of NIP-C1. Nothing is published of them before a maintainer asks for it, or a repository stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NipC1 {
    /// Whether maintainers of repositories for which they may run (`[policy]`) may ask for a run (kind 9840), and have their
    /// repository served (9843): then all its runs are reported job by job, until they stop it (9844).
    pub requests: bool,
    /// Repositories whose runs are reported job by job without a request: `30617:<owner>:<id>`, `<npub>/<id>`, or naddr.
    pub repositories: Vec<String>,
    /// In a pool where everybody may run: repositories of one owner that those may have served whom the policy does not know.
    pub requests_of_owner: u32,
    /// The same of all owners together, those that the policy knows included.
    pub requests_in_all: u32,
}

impl Default for NipC1 {
    fn default() -> Self {
        Self { requests: true, repositories: Vec::new(), requests_of_owner: 20, requests_in_all: 1000 }
    }
}

impl NipC1 {
    /// Addresses of `repositories`.
    ///
    /// # Errors
    /// One is no address.
    pub fn addresses(&self) -> anyhow::Result<Vec<String>> {
        let read = |text: &String| {
            repository_address(text).with_context(|| {
                format!(
                    "nip_c1.repositories: `{text}` is no repository: write 30617:<owner>:<id>, <npub>/<id> or naddr1…"
                )
            })
        };
        self.repositories.iter().map(read).collect()
    }
}
