//! Values that came with a run's request: sealed in the store, opened here, erased when the run ends.

use nostr::Keys;
use secrecy::ExposeSecret;

use domain::id::RunId;
use domain::run::{RunRequest, RunState};
use nostr_client::protocol::{Protocols, Secrets};
use store::{
    Change, Store,
    seal::{self, StoreKey},
};

/// Opens and seals them with the store key.
pub(super) struct RunSecrets {
    pub(super) store: Store,
    /// They know under which name a publisher key is sealed.
    pub(super) protocols: Protocols,
    pub(super) store_key: StoreKey,
}

impl RunSecrets {
    /// Seals what came with a run's request, the publisher key among it; `None` where nothing did.
    ///
    /// # Errors
    /// The values can't be sealed.
    pub(super) fn seal(&self, run: &RunId, request: &RunRequest, secrets: &Secrets) -> anyhow::Result<Option<Change>> {
        let protocol = request.origin.nostr().and_then(|origin| self.protocols.of(origin));
        let mut values = secrets.values.clone();
        if let (Some(keys), Some(protocol)) = (&secrets.publisher, protocol)
            && let Some(name) = protocol.publisher_secret()
        {
            values.push((name.to_owned(), keys.secret_key().to_secret_hex().into()));
        }
        if values.is_empty() {
            return Ok(None);
        }
        let (sealed, wrapped_key) = seal::seal(&self.store_key, &run.into(), &values)?;
        Ok(Some(Change::Secrets { run: run.clone(), sealed, wrapped_key }))
    }

    /// What came with a run's request; empty once erased.
    ///
    /// # Errors
    /// It can't be read, or not be opened with this store key.
    pub(super) async fn open(&self, run: &RunId) -> anyhow::Result<Secrets> {
        let Some(found) = self.store.secrets(run).await? else { return Ok(Secrets::default()) };
        let mut secrets = Secrets::default();
        for (name, value) in seal::open(&self.store_key, &run.into(), &found.sealed, &found.wrapped_key)? {
            match self.protocols.iter().any(|protocol| protocol.publisher_secret() == Some(name.as_str())) {
                true => secrets.publisher = Keys::parse(value.expose_secret()).ok(),
                false => secrets.values.push((name, value)),
            }
        }
        Ok(secrets)
    }

    /// The key that signs a run's result, where the run came with one and it is kept.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) async fn publisher_of(&self, state: &RunState) -> anyhow::Result<Option<Keys>> {
        match state.request.origin.nostr().is_some_and(|origin| origin.publisher.is_some()) {
            true => Ok(self.open(&state.id).await?.publisher),
            false => Ok(None),
        }
    }
}
