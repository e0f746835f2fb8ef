//! Keeps known who maintains the repositories that the policy names: their requests come first, and nothing that a stranger
//! names is asked for it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use nostr::{Filter, Kind, PublicKey};

use domain::run::Repository;
use nostr_client::policy::Policy;
use source::{EventQuery, RepositoryMirrors, address::Address};

use super::adapters::relay_lookup::RelayLookup;

/// They are looked up again after this, without anybody who is missed.
const EVERY: Duration = Duration::from_secs(600);
/// Repositories looked up at the same time.
const AT_ONCE: usize = 4;
/// Repositories of named owners that are looked at.
const OF_OWNERS: usize = 1000;

/// What is needed for it.
pub(super) struct KnownMaintainers {
    pub(super) policy: Policy,
    pub(super) sources: Arc<RepositoryMirrors>,
    pub(super) lookup: RelayLookup,
}

impl KnownMaintainers {
    /// Looks them up now, from time to time, and when somebody is missed.
    pub(super) async fn keep(self) -> anyhow::Result<()> {
        let (repositories, owners) = self.policy.repositories();
        if repositories.is_empty() && owners.is_empty() {
            return std::future::pending().await;
        }
        loop {
            self.policy.set_maintainers(self.look_up(&repositories, &owners).await);
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.policy.maintainers_wanted() => {}
            }
        }
    }

    async fn look_up(&self, repositories: &[String], owners: &[PublicKey]) -> HashMap<String, HashSet<PublicKey>> {
        let mut addresses: HashSet<String> = repositories.iter().cloned().collect();
        addresses.extend(self.announced_by(owners).await);
        let known = addresses.into_iter().filter_map(|address| match Address::parse(&address) {
            Ok(Address::Known(repository)) => Some(repository),
            _ => None,
        });
        let looks = known.map(|repository| self.maintainers(repository));
        stream::iter(looks).buffer_unordered(AT_ONCE).collect().await
    }

    /// Of one repository; what was known before, where no relay has its announcement now.
    async fn maintainers(&self, repository: Repository) -> (String, HashSet<PublicKey>) {
        let found = match self.sources.standing(&repository).await {
            Ok(standing) => standing.maintainers.iter().filter_map(|key| PublicKey::from_hex(key).ok()).collect(),
            Err(error) => {
                tracing::debug!(repository = repository.address, "its maintainers are not known now: {error}");
                self.policy.maintainers(&repository.address).unwrap_or_default()
            }
        };
        (repository.address, found)
    }

    /// Addresses of the repositories that keys announced, where they publish.
    async fn announced_by(&self, owners: &[PublicKey]) -> Vec<String> {
        let mut addresses = Vec::new();
        for owner in owners {
            let relays = self.lookup.write_relays(&owner.to_hex()).await;
            let filter = Filter::new().kind(Kind::GitRepoAnnouncement).author(*owner);
            let found = self.lookup.find(&relays, filter).await;
            let identifiers = found.iter().filter(|event| event.pubkey == *owner).filter_map(|e| e.tags.identifier());
            addresses.extend(identifiers.map(|identifier| format!("30617:{owner}:{identifier}")).take(OF_OWNERS));
        }
        addresses
    }
}
