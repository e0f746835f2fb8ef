//! Secrets that maintainers give or remove by events (NIP-C1, 29846): encrypted for a key that this process advertises and
//! stores nowhere, they are stored as those are that come over HTTP.

use std::sync::Arc;

use nostr::{Event, PublicKey};
use parking_lot::Mutex;

use super::{repository_services, run_service::RunService};
use nostr_client::{
    policy::Policy,
    protocol::nip_c1::{RepositoryAddress, SecretUpdate, SecretsKeys},
};
use source::RepositoryMirrors;
use store::{OrderOutcome, RepositoryValue, ValueKind};

/// Takes them in. Clones share the keys.
#[derive(Clone)]
pub(super) struct SecretUpdates {
    pub(super) run_service: RunService,
    pub(super) sources: Arc<RepositoryMirrors>,
    pub(super) policy: Policy,
    pub(super) keys: Arc<Mutex<SecretsKeys>>,
    pub(super) us: PublicKey,
}

impl SecretUpdates {
    /// Does what an event asks, where its author may. Repeating it changes nothing.
    ///
    /// # Errors
    /// The store can't be written: it is to be tried again.
    pub(super) async fn take(&self, event: &Event) -> anyhow::Result<()> {
        let by = event.pubkey.to_hex();
        let (repository, update) = match self.read(event, &by).await {
            Ok(read) => read,
            Err(why) => {
                tracing::info!(event = %event.id, by, "secrets are not taken: {why}");
                return Ok(());
            }
        };
        let orders = self.orders(&repository, &by, update)?;
        let names: Vec<String> = orders.iter().map(|order| order.name.clone()).collect();
        for (name, outcome) in names.iter().zip(self.run_service.store().order_values(orders).await?) {
            match outcome {
                OrderOutcome::Taken { replaces } => {
                    tracing::info!(repository, name, by, replaces, "a secret is ordered")
                }
                OrderOutcome::Older => tracing::info!(repository, name, by, "a newer order of a secret counts already"),
                OrderOutcome::Full(why) => tracing::warn!(repository, name, by, "a secret is not kept: {why}"),
            }
        }
        Ok(())
    }

    /// What an update asks for, and of the repository that is served. The error says why it is not taken.
    async fn read(&self, event: &Event, by: &str) -> Result<(String, SecretUpdate), String> {
        let update = self.keys.lock().read(event, &self.us).map_err(|why| why.to_string())?;
        // Each maintainer names the repository by an announcement of their own: it is the one that is served.
        let served = self.run_service.served().address_of(&update.repository);
        let repository = served.ok_or("the repository is not served")?;
        // Before anything is looked up.
        self.policy.decide(by, &[&repository]).await?;
        let address = RepositoryAddress::parse(&repository, &update.repository.relay).map_err(|why| why.to_string())?;
        let found = self.sources.standing(&repository_services::repository(&address)).await;
        match found.map_err(|why| why.to_string())?.maintainers.iter().any(|key| key == by) {
            true => Ok((repository, update)),
            false => Err("they are no maintainer's".into()),
        }
    }

    fn orders(&self, repository: &str, by: &str, update: SecretUpdate) -> anyhow::Result<Vec<RepositoryValue>> {
        let (ordered_at, id) = update.order;
        let order = |name: String, content| RepositoryValue {
            repository: repository.to_owned(),
            environment: String::new(),
            kind: ValueKind::Secret,
            name,
            ordered_at,
            event: id.0.to_hex(),
            author: by.to_owned(),
            content,
        };
        let mut orders = Vec::new();
        for (name, value) in update.set {
            let sealed = self.run_service.seal_stored(repository, "", &name, value)?;
            orders.push(order(name, Some(sealed)));
        }
        orders.extend(update.remove.into_iter().map(|name| order(name, None)));
        Ok(orders)
    }
}
