//! What the operator's configuration says about a repository, as its runs keep it.

use nostr::PublicKey;

use config::{Config, Definitions, RepositoryConfig, VisibilityConfig};
use domain::run::{Approvers, EnvironmentProtection, Repository, RunRules, Visibility};

/// The configuration, seen from one repository.
#[derive(Clone, Copy)]
pub(super) struct RepositoryPolicy<'a> {
    config: &'a Config,
    repository: &'a Repository,
}

impl<'a> RepositoryPolicy<'a> {
    /// The policy for a repository.
    pub(super) fn new(config: &'a Config, repository: &'a Repository) -> Self {
        Self { config, repository }
    }

    /// What definitions (kind 35417) may do.
    pub(super) fn definitions(self) -> Definitions {
        let own = self.configured().and_then(|found| found.definitions);
        own.unwrap_or(self.config.definitions.policy)
    }

    /// Rules that a run keeps for its whole life.
    pub(super) fn rules(self) -> RunRules {
        RunRules {
            max_duration_ms: self.config.policy.max_duration.saturating_mul(1000),
            retry_started: self.config.retry.started,
            maintainers_read: self.configured().is_some_and(|found| found.maintainers),
            one_worker: false,
            reports_jobs: false,
        }
    }

    /// What protects its environments, in the operator's order: the first that fits a job counts.
    pub(super) fn environments(self) -> Vec<EnvironmentProtection> {
        let named = planning::repository_name(self.repository);
        let is_meant = |one: &&config::Environment| {
            one.repository == "*" || one.repository == self.repository.address || one.repository == named
        };
        let protection = |one: &config::Environment| EnvironmentProtection {
            name: one.name.clone(),
            approvers: match &one.approvers {
                None => Approvers::Maintainers,
                Some(keys) if keys.is_empty() => Approvers::Nobody,
                Some(keys) => Approvers::Keys(hex_keys(keys)),
            },
            wait_ms: one.wait_minutes.saturating_mul(60_000),
            branches: one.branches.clone(),
        };
        self.config.environments.iter().filter(is_meant).map(protection).collect()
    }

    /// Whether the operator named a key (64 hex) whose requests count like a maintainer's.
    pub(super) fn trusts(self, key: &str) -> bool {
        self.configured().is_some_and(|found| hex_keys(&found.trusted).iter().any(|trusted| trusted == key))
    }

    /// Who may read its runs.
    pub(super) fn visibility(self) -> Visibility {
        match self.configured() {
            Some(found) if found.visibility == VisibilityConfig::Readers => {
                Visibility::Readers(hex_keys(&found.readers))
            }
            _ => Visibility::Public,
        }
    }

    /// Whether not everybody may read them.
    pub(super) fn is_private(self) -> bool {
        self.visibility() != Visibility::Public
    }

    /// What the operator set for the repository, by address, by `<npub>/<d>`, or for all.
    fn configured(self) -> Option<&'a RepositoryConfig> {
        let named = planning::repository_name(self.repository);
        let all = &self.config.repositories;
        all.get(&self.repository.address).or_else(|| all.get(&named)).or_else(|| all.get("*"))
    }
}

/// Keys as configured, in hex.
fn hex_keys(written: &[String]) -> Vec<String> {
    written.iter().filter_map(|key| PublicKey::parse(key).ok()).map(|key| key.to_hex()).collect()
}
