//! Who may be a worker: those that the store or the configuration knows.

use dispatch::{Enrolment, worker_id};
use domain::run::Millis;
use futures::{FutureExt, future::BoxFuture};
use store::{Change, Store, StoreError, WorkerRow};

/// Workers that the store or the configuration knows.
pub(crate) struct Enrolled {
    pub(crate) store: Store,
    /// Configured identities, hex.
    pub(crate) configured: Vec<String>,
    pub(crate) clock: fn() -> Millis,
}

impl Enrolment for Enrolled {
    fn known<'a>(&'a self, identity: &'a str) -> BoxFuture<'a, anyhow::Result<Option<WorkerRow>>> {
        async move {
            let stored = self.store.workers().await?.into_iter().find(|row| row.identity == identity);
            let configured = || {
                let key =
                    hex::decode(identity).ok().filter(|_| self.configured.iter().any(|known| known == identity))?;
                Some(WorkerRow {
                    id: worker_id(&key),
                    identity: identity.to_owned(),
                    name: String::new(),
                    labels: Vec::new(),
                    slots: 0,
                    seen_at: 0,
                    draining: false,
                })
            };
            Ok(stored.or_else(configured))
        }
        .boxed()
    }

    fn enrol<'a>(&'a self, worker: &'a WorkerRow, token: &'a str) -> BoxFuture<'a, anyhow::Result<bool>> {
        async move {
            let seen = Change::Seen { id: format!("enrolment {token}"), at: (self.clock)() };
            match self.store.commit(vec![seen, Change::Worker(worker.clone())]).await {
                Ok(()) => Ok(true),
                Err(StoreError::Seen(_)) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn seen<'a>(&'a self, worker: &'a WorkerRow) -> BoxFuture<'a, anyhow::Result<()>> {
        async move { Ok(self.store.commit(vec![Change::Worker(worker.clone())]).await?) }.boxed()
    }
}
