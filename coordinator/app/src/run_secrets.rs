//! Values that jobs are given: those that came with a run's request, which are erased when the run ends, and those that
//! maintainers stored for its repository. Sealed in the store, opened here.

use nostr::Keys;
use secrecy::{ExposeSecret, SecretString};

use domain::id::{JobKey, RunId};
use domain::run::{RunRequest, RunState, overlaid};
use nostr_client::protocol::{Protocols, Secrets};
use store::{
    Change, RepositoryValue, Store, ValueContent, ValueKind,
    seal::{self, SealError, SealOwner, StoreKey},
};

/// Opens and seals them with the store key.
pub(super) struct RunSecrets {
    pub(super) store: Store,
    /// They know under which name a publisher key is sealed.
    pub(super) protocols: Protocols,
    pub(super) store_key: StoreKey,
}

/// What is stored for a job.
#[derive(Debug, Default)]
pub(super) struct StoredForJob {
    pub(super) secrets: Vec<(String, SecretString)>,
    /// Of its environment.
    pub(super) variables: Vec<(String, String)>,
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

    /// What is stored for the repository of a run and for the environment of a job, as far as the job may have it. Nothing
    /// is read where the plan says that there is nothing.
    ///
    /// # Errors
    /// It can't be read, or not be opened with this store key.
    pub(super) async fn stored_for(&self, state: &RunState, job: &JobKey) -> anyhow::Result<StoredForJob> {
        let wanted = state.wanted_values(job);
        let mut found = StoredForJob::default();
        if !wanted.secrets && wanted.environment.is_none() {
            return Ok(found);
        }
        let kinds = [ValueKind::Secret, ValueKind::Variable];
        let kinds = if wanted.environment.is_some() { &kinds[..] } else { &kinds[..1] };
        let repository = &state.request.repository.address;
        let (mut own, mut of_environment) = (Vec::new(), Vec::new());
        for one in self.store.repository_values(repository, wanted.environment.as_deref(), kinds).await? {
            match (&one.content, one.environment.is_empty()) {
                (Some(ValueContent::Sealed { .. }), true) => own.push(self.open_stored(one)?),
                (Some(ValueContent::Sealed { .. }), false) => of_environment.push(self.open_stored(one)?),
                (Some(ValueContent::Plain(text)), false) => found.variables.push((one.name, text.clone())),
                // The plan has the repository's own variables.
                (Some(ValueContent::Plain(_)), true) | (None, _) => {}
            }
        }
        found.secrets = overlaid(own, of_environment).into_iter().collect();
        Ok(found)
    }

    /// Seals a secret for a repository, or for an environment of it.
    ///
    /// # Errors
    /// It can't be sealed.
    pub(super) fn seal_stored(
        &self,
        repository: &str,
        environment: &str,
        name: &str,
        value: SecretString,
    ) -> Result<ValueContent, SealError> {
        let owner = SealOwner::repository(repository, environment);
        let (sealed, wrapped_key) = seal::seal(&self.store_key, &owner, &[(name.to_owned(), value)])?;
        let value = sealed.into_iter().map(|(_, value)| value).next().unwrap_or_default();
        Ok(ValueContent::Sealed { value, wrapped_key })
    }

    fn open_stored(&self, one: RepositoryValue) -> Result<(String, SecretString), SealError> {
        let owner = SealOwner::repository(&one.repository, &one.environment);
        let broken = || SealError::Broken(owner.to_string());
        let Some(ValueContent::Sealed { value, wrapped_key }) = one.content else { return Err(broken()) };
        let opened = seal::open(&self.store_key, &owner, &[(one.name, value)], &wrapped_key)?;
        opened.into_iter().next().ok_or_else(broken)
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
