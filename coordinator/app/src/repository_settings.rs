//! Secrets, variables and caches of repositories, as their maintainers manage them.

use std::sync::Arc;

use nostr::{Keys, PublicKey, nips::nip44};
use secrecy::SecretString;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::run_service::RunService;
use actions_api::ActionsApi;
use nostr_client::policy::Policy;
use source::{RepositoryMirrors, address::Address};
use store::{Cache, MAX_VALUE, OrderOutcome, RepositoryValue, ValueContent, ValueKind};
use web::{SettingsRefusal, ValueAnswer, ValueOrder};

/// Repositories whose maintainers are looked up at the same time.
const LOOKS: usize = 8;

/// Carries out what maintainers order.
#[derive(Clone)]
pub(super) struct RepositorySettings {
    run_service: RunService,
    sources: Arc<RepositoryMirrors>,
    policy: Policy,
    /// What secrets are encrypted for.
    keys: Keys,
    actions_api: ActionsApi,
    looks: Arc<Semaphore>,
}

impl RepositorySettings {
    pub(super) fn new(
        run_service: RunService,
        sources: Arc<RepositoryMirrors>,
        policy: Policy,
        keys: Keys,
        actions_api: ActionsApi,
    ) -> Self {
        Self { run_service, sources, policy, keys, actions_api, looks: Arc::new(Semaphore::new(LOOKS)) }
    }

    /// Whether a key manages a repository: it is its owner's or a maintainer's, by the announcement as it is now, and may
    /// run for it here.
    pub(super) async fn may_manage(&self, address: &str, key: &str) -> Result<(), SettingsRefusal> {
        let repository = match Address::parse(address) {
            Ok(Address::Known(repository)) if repository.address == address => repository,
            _ => return Err(SettingsRefusal::Others),
        };
        // Before anything is looked up or dialled.
        if self.policy.decide(key, &[address]).await.is_err() {
            return Err(SettingsRefusal::Others);
        }
        if repository.owner == key {
            return Ok(());
        }
        let Ok(_turn) = self.looks.try_acquire() else { return Err(SettingsRefusal::Busy) };
        match self.sources.standing(&repository).await {
            Ok(standing) if standing.maintainers.iter().any(|maintainer| maintainer == key) => Ok(()),
            Ok(_) => Err(SettingsRefusal::Others),
            Err(error) => {
                tracing::debug!(repository = address, "its maintainers are not known now: {error}");
                Err(SettingsRefusal::Others)
            }
        }
    }

    /// Carries out an order of somebody who manages the repository.
    ///
    /// # Errors
    /// The store can't be written, or the value not be sealed.
    pub(super) async fn order(&self, order: ValueOrder) -> anyhow::Result<ValueAnswer> {
        let ValueOrder { repository, environment, kind, name, value, by, event, at } = order;
        let content = match value {
            None => None,
            Some(value) => match self.content(&repository, &environment, kind, &name, value, &by)? {
                Ok(content) => Some(content),
                Err(why) => return Ok(ValueAnswer::Unusable(why)),
            },
        };
        let what = if content.is_some() { "set" } else { "removed" };
        let row = RepositoryValue {
            repository: repository.clone(),
            environment: environment.clone(),
            kind,
            name: name.clone(),
            ordered_at: at,
            event,
            author: by.clone(),
            content,
        };
        Ok(match self.run_service.store().order_value(row).await? {
            OrderOutcome::Taken { replaces } => {
                let kind = kind.as_str();
                tracing::info!(repository, environment, kind, name, by, "a stored value is {what}");
                ValueAnswer::Taken { replaces }
            }
            OrderOutcome::Older => ValueAnswer::Older,
            OrderOutcome::Full(why) => ValueAnswer::Unusable(why),
        })
    }

    /// A value as it is stored. The inner error is for who sent it.
    fn content(
        &self,
        repository: &str,
        environment: &str,
        kind: ValueKind,
        name: &str,
        value: String,
        by: &str,
    ) -> anyhow::Result<Result<ValueContent, String>> {
        let plain = match kind {
            ValueKind::Variable => Zeroizing::new(value),
            ValueKind::Secret => match nip44::decrypt(self.keys.secret_key(), &PublicKey::from_hex(by)?, value) {
                Ok(plain) => Zeroizing::new(plain),
                Err(error) => {
                    return Ok(Err(format!(
                        "the secret {name} can't be decrypted ({error}): encrypt it with NIP-44 for this pool"
                    )));
                }
            },
        };
        if plain.is_empty() || plain.len() > MAX_VALUE {
            return Ok(Err(format!(
                "a value has 1 byte to {} KiB, this one has {} bytes",
                MAX_VALUE >> 10,
                plain.len()
            )));
        }
        if plain.contains('\0') {
            return Ok(Err(format!("the value of {name} holds the character U+0000, which no environment can hold")));
        }
        Ok(Ok(match kind {
            ValueKind::Variable => ValueContent::Plain(plain.to_string()),
            ValueKind::Secret => {
                let value = SecretString::from(plain.as_str());
                self.run_service.seal_stored(repository, environment, name, value)?
            }
        }))
    }

    /// Deletes an entry of the caches.
    ///
    /// # Errors
    /// The store or the bytes can't be written.
    pub(super) async fn delete_cache(&self, entry: &Cache) -> anyhow::Result<()> {
        Ok(self.actions_api.delete_cache(entry).await?)
    }
}
