//! Values that came with a run's request: sealed in the store, opened here, erased when the run ends.

use nostr::Keys;
use secrecy::{ExposeSecret, SecretString};

use domain::run::{RequestOrigin, RunState};
use nostr_client::hive_ci::{PUBLISHER_SECRET, Secrets};
use store::{
    Change, Store,
    seal::{self, StoreKey},
};

/// Opens and seals them with the store key.
pub(super) struct RunSecrets {
    pub(super) store: Store,
    pub(super) store_key: StoreKey,
}

impl RunSecrets {
    /// Seals what came with a request, the publisher key among it; `None` where nothing did.
    ///
    /// # Errors
    /// The values can't be sealed.
    pub(super) fn seal(&self, run: &str, secrets: &Secrets) -> anyhow::Result<Option<Change>> {
        if secrets.values.is_empty() && secrets.publisher.is_none() {
            return Ok(None);
        }
        let mut values = secrets.values.clone();
        if let Some(keys) = &secrets.publisher {
            values.push((PUBLISHER_SECRET.to_owned(), keys.secret_key().to_secret_hex().into()));
        }
        let (sealed, wrapped_key) = seal::seal(&self.store_key, run, &values)?;
        Ok(Some(Change::Secrets { run: run.to_owned(), sealed, wrapped_key }))
    }

    /// The values, the publisher key among them; empty once erased.
    ///
    /// # Errors
    /// They can't be read, or not be opened with this store key.
    pub(super) async fn open(&self, run: &str) -> anyhow::Result<Vec<(String, SecretString)>> {
        let Some(found) = self.store.secrets(run).await? else { return Ok(Vec::new()) };
        Ok(seal::open(&self.store_key, run, &found.sealed, &found.wrapped_key)?)
    }

    /// The publisher key of a run; `None` once erased.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) async fn publisher_key(&self, run: &str) -> anyhow::Result<Option<Keys>> {
        let secrets = self.open(run).await?;
        let found = secrets.iter().find(|(name, _)| name == PUBLISHER_SECRET);
        Ok(found.and_then(|(_, value)| Keys::parse(value.expose_secret()).ok()))
    }

    /// The key that signs a run's result, where the run came with one and it is kept.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) async fn publisher_of(&self, state: &RunState) -> anyhow::Result<Option<Keys>> {
        match &state.request.origin {
            RequestOrigin::HiveCi { publisher: Some(_), .. } => self.publisher_key(&state.id).await,
            _ => Ok(None),
        }
    }
}
