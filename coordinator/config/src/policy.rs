//! Who may run, as it is written, and what an operator is told of it.

use anyhow::{Context as _, ensure};
use nostr::{
    FromBech32, Kind, PublicKey,
    nips::{nip01::Coordinate, nip19::Nip19Coordinate},
};
use serde::{Deserialize, Serialize};

use super::{Config, RepositoryConfig};

/// Who may run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Everybody (`dev`): whoever reaches a relay that the pool reads runs programs on its workers.
    pub everyone: bool,
    /// Keys: npub or hex.
    pub pubkeys: Vec<String>,
    /// Owner and maintainers of the repositories that `repositories` and `owners` name, each for those alone. Where none
    /// is named it lets nobody in: everybody can announce a repository.
    pub maintainers: bool,
    /// Repositories whose maintainers may run: `30617:<owner>:<id>`, `<npub>/<id>`, or naddr.
    pub repositories: Vec<String>,
    /// Keys (npub or hex): maintainers of each repository that one of them announced may run.
    pub owners: Vec<String>,
    /// Address (`30000:<hex>:<d>` or naddr) of an NIP-51 list of keys; advertised as `freelist_event`.
    pub list: Option<String>,
    /// Seconds a run may take.
    pub max_duration: u64,
    /// Label of the workers that run plain Loom commands: jobs (kind 5100) that name a program and no workflow run. Only
    /// keys that `everyone`, `pubkeys` or `list` lets in may send them. Empty: they are refused.
    pub command_label: String,
}

/// The address `30617:<owner hex>:<id>` of a repository as operators write it: that, with an npub in it, `<npub>/<id>`, or
/// naddr1….
pub fn repository_address(text: &str) -> Option<String> {
    let text = text.trim().trim_start_matches("nostr:");
    let (owner, identifier) = if text.starts_with("naddr1") {
        let Coordinate { kind, public_key, identifier } = Nip19Coordinate::from_bech32(text).ok()?.coordinate;
        (kind == Kind::GitRepoAnnouncement).then_some((public_key, identifier))?
    } else {
        let (owner, identifier) = match text.strip_prefix("30617:") {
            Some(rest) => rest.split_once(':')?,
            None => text.split_once('/')?,
        };
        (PublicKey::parse(owner).ok()?, identifier.to_owned())
    };
    (!identifier.is_empty()).then(|| format!("30617:{owner}:{identifier}"))
}

impl Policy {
    /// Whether strangers may run.
    pub fn is_open(&self) -> bool {
        self.everyone
    }

    /// What everybody is told of a pool that strangers may run on: cause and remedy. `None`: they may not.
    pub fn openness(&self) -> Option<String> {
        self.is_open().then(|| {
            "This pool is open: anyone can run programs on its workers. To close it, its operator sets policy.everyone to \
             false, and names keys in policy.pubkeys, or repositories in policy.repositories with policy.maintainers."
                .to_owned()
        })
    }

    /// Addresses of `repositories`.
    ///
    /// # Errors
    /// One is no address.
    pub fn addresses(&self) -> anyhow::Result<Vec<String>> {
        let read = |text: &String| {
            repository_address(text).with_context(|| {
                format!(
                    "policy.repositories: `{text}` is no repository: write 30617:<owner>:<id>, <npub>/<id> or naddr1…"
                )
            })
        };
        self.repositories.iter().map(read).collect()
    }

    /// What is wrong with it, as warnings.
    ///
    /// # Errors
    /// Something in it can't be read.
    pub(super) fn check(&self) -> anyhow::Result<Vec<String>> {
        self.addresses()?;
        for (name, keys) in [("pubkeys", &self.pubkeys), ("owners", &self.owners)] {
            for key in keys {
                ensure!(PublicKey::parse(key).is_ok(), "policy.{name}: `{key}` is no key: give npub1… or 64 hex");
            }
        }
        let names_repositories = !self.repositories.is_empty() || !self.owners.is_empty();
        let mut warnings: Vec<String> = self.openness().into_iter().collect();
        if self.maintainers && !names_repositories && !self.everyone {
            warnings.push(
                "policy.maintainers lets nobody in, for no repository is named: name those whose maintainers may run in \
                 policy.repositories, or their owners in policy.owners"
                    .to_owned(),
            );
        }
        if names_repositories && !self.maintainers {
            warnings.push(
                "policy.repositories and policy.owners let nobody in without policy.maintainers: set it to true"
                    .to_owned(),
            );
        }
        let lets_maintainers_in = self.maintainers && names_repositories;
        if !self.everyone && !lets_maintainers_in && self.pubkeys.is_empty() && self.list.is_none() {
            warnings.push(
                "policy: nobody may run anything; name keys in policy.pubkeys, or repositories in policy.repositories \
                 with policy.maintainers"
                    .to_owned(),
            );
        }
        Ok(warnings)
    }
}

impl Config {
    /// Keys (64 hex) that may run for repositories of which the operator trusts them, by repository address or `*`.
    pub fn trusted(&self) -> Vec<(String, Vec<String>)> {
        let keys = |one: &RepositoryConfig| {
            let keys = one.trusted.iter().filter_map(|key| PublicKey::parse(key).ok());
            keys.map(|key| key.to_hex()).collect()
        };
        let address = |name: &String| repository_address(name).unwrap_or_else(|| name.clone());
        self.repositories.iter().map(|(name, one)| (address(name), keys(one))).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{Keys, ToBech32};

    use super::*;

    #[test]
    fn a_repository_is_named_by_address_npub_and_naddr() {
        let owner = Keys::generate().public_key();
        let npub = owner.to_bech32().unwrap();
        let coordinate = Coordinate::new(Kind::GitRepoAnnouncement, owner).identifier("a:b");
        let naddr = Nip19Coordinate::new(coordinate, std::iter::empty()).to_bech32().unwrap();
        let address = format!("30617:{owner}:a:b");
        for text in [&address, &format!("30617:{npub}:a:b"), &format!("{npub}/a:b"), &naddr, &format!("nostr:{naddr}")]
        {
            assert_eq!(repository_address(text).as_ref(), Some(&address), "{text}");
        }
        for text in ["", "*", "30617:abc:x", "30618:aa:x", &format!("30617:{owner}:"), &format!("{npub}/")] {
            assert_eq!(repository_address(text), None, "{text}");
        }
    }

    #[test]
    fn an_operator_is_told_of_a_pool_that_is_open_to_all_or_to_nobody() {
        let key = Keys::generate().public_key().to_hex();
        let (none, one) = (Policy::default, || vec![key.clone()]);
        let cases = [
            (Policy { pubkeys: one(), ..none() }, ""),
            (Policy { maintainers: true, owners: one(), ..none() }, ""),
            (Policy { everyone: true, ..none() }, "anyone can run programs"),
            (none(), "nobody may run anything"),
            (Policy { maintainers: true, pubkeys: one(), ..none() }, "no repository is named"),
            (Policy { maintainers: true, ..none() }, "nobody may run anything"),
            (Policy { owners: one(), pubkeys: one(), ..none() }, "without policy.maintainers"),
        ];
        for (policy, warning) in cases {
            let told = policy.check().unwrap().join("\n");
            assert!(told.contains(warning) && told.is_empty() == warning.is_empty(), "{policy:?}: {told}");
            assert_eq!(policy.openness().is_some(), policy.everyone);
        }
    }
}
