//! Which repositories are served (NIP-C1): a maintainer asks for it, or the operator. That it is so is said on the repository's
//! relays, again each half a day, and taken back with its end. Work of the store.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::future::{BoxFuture, FutureExt as _};
use nostr::{EventId, PublicKey};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast::error::RecvError, watch};
use work::{BackOff, Outcome, WorkHandler};

use super::{
    keyed_locks::KeyedLocks,
    repository_policy::RepositoryPolicy,
    run_service::RunService,
    served_repositories::{ServedRepositories, Service},
};
use config::Config;
use dispatch::Dispatch;
use domain::run::{Millis, Repository};
use nostr_client::{
    policy::Policy,
    protocol::nip_c1::{
        AdmissionPolicy, Offer, RepositoryAddress, RepositoryService, ServiceControl, ServiceOffer, standing_request,
        withdrawal,
    },
};
use source::RepositoryMirrors;
use store::{
    Batch, Change, ChangeNotification, ClaimedWork, FollowChange, NewWork, ServedRepository, ServiceChange,
    ServiceWish, WorkKind,
};

/// Repositories looked at at the same time.
const PARALLEL: u32 = 4;
/// A status is said again after this (ms): half of what it lives.
const AGAIN: Millis = 12 * 3_600_000;
/// A repository that another hand is at is looked at again after this (ms).
const BUSY: Millis = 250;
/// Looks in vain for the announcement of a repository that is not served: then it is given up.
const TRIES: u32 = 12;
const BACK_OFF: BackOff = BackOff { first: Duration::from_secs(5), longest: Duration::from_secs(600) };
/// Where workflow files are, as patterns.
const WORKFLOWS: [&str; 6] = [
    ".ngit/act/workflows/*.yml",
    ".ngit/act/workflows/*.yaml",
    ".github/workflows/*.yml",
    ".github/workflows/*.yaml",
    ".ngit/workflows/*.yml",
    ".ngit/workflows/*.yaml",
];

/// The handler of [`WorkKind::Serve`]. Clones share what is known.
#[derive(Clone)]
pub(super) struct RepositoryServices {
    pub(super) run_service: RunService,
    pub(super) sources: Arc<RepositoryMirrors>,
    pub(super) served: ServedRepositories,
    pub(super) policy: Policy,
    pub(super) dispatch: Dispatch,
    pub(super) config: Arc<Config>,
    pub(super) us: PublicKey,
    /// Repositories that are being looked at: a row may be claimed anew while somebody asks.
    pub(super) locks: Arc<KeyedLocks<String>>,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    repository: String,
}

/// The row that has a repository looked at now.
pub(super) fn look_at(repository: &str, now: Millis) -> anyhow::Result<Change> {
    let row = NewWork::new(format!("serve {repository}"), WorkKind::Serve, None, now);
    Ok(row.with_payload(&Payload { repository: repository.to_owned() })?.into())
}

/// A repository by its address.
pub(super) fn repository(address: &RepositoryAddress) -> Repository {
    Repository {
        address: address.address(),
        owner: address.owner.to_hex(),
        identifier: address.identifier.clone(),
        relays: Some(address.relay.clone()).filter(|relay| !relay.is_empty()).into_iter().collect(),
    }
}

impl RepositoryServices {
    /// Has everything looked at that is served, or was when this process ended.
    ///
    /// # Errors
    /// The store can't be read or written.
    pub(super) async fn begin(&self) -> anyhow::Result<()> {
        let store = self.run_service.store();
        let now = self.run_service.now();
        let served = store.served_repositories().await?;
        let mut addresses: BTreeSet<String> = self.config.nip_c1.addresses()?.into_iter().collect();
        for ServedRepository { repository, request, .. } in served {
            // Who maintains it is found out with the look.
            self.served.set(&repository, Some(Service { request: None, maintainers: BTreeSet::new() }));
            tracing::debug!(repository, request, "was served");
            addresses.insert(repository);
        }
        let rows = addresses.iter().map(|address| look_at(address, now)).collect::<anyhow::Result<Batch>>()?;
        if !rows.is_empty() {
            store.commit(rows).await?;
        }
        Ok(())
    }

    async fn look(&self, row: &ClaimedWork) -> anyhow::Result<Outcome> {
        let Payload { repository: address } = row.read_payload()?;
        let Some(_lock) = self.locks.try_lock(&address) else {
            let again = self.run_service.now().saturating_add(BUSY);
            return Ok(Outcome::Store(vec![row.retry(again, "it is being looked at")]));
        };
        let store = self.run_service.store();
        let Ok(selected) = RepositoryAddress::parse(&address, "") else {
            return Ok(Outcome::Store(vec![row.complete()]));
        };
        let before = store.served_repository(&address).await?;
        let wishes = store.service_wishes(&address).await?;
        let configured = self.served.is_configured(&address);
        let mut looked_for = repository(&selected);
        looked_for.relays.extend(wishes.iter().map(|wish| wish.relay.clone()).take(4));
        let found = match self.sources.standing(&looked_for).await {
            Ok(found) => found,
            Err(error) if before.is_none() && !configured && row.tries >= TRIES => {
                tracing::info!(repository = address, "not served: {error}");
                return Ok(Outcome::Store(vec![row.complete()]));
            }
            Err(error) => return Err(error).with_context(|| format!("who maintains {address} is not known now")),
        };
        let maintainers: BTreeSet<PublicKey> =
            found.maintainers.iter().filter_map(|key| PublicKey::from_hex(key).ok()).collect();
        let controls: Vec<ServiceControl> =
            wishes.iter().filter_map(|wish| control(wish, &selected, self.us)).collect();
        let mut request =
            standing_request(&controls, |key| maintainers.contains(key)).filter(|_| self.config.nip_c1.requests);
        if let Some(by) = request
            && let Err(reason) = self.policy.decide(&by.author.to_hex(), &[&address]).await
        {
            tracing::info!(repository = address, reason, "not served by this request");
            request = None;
        }
        let is_private = RepositoryPolicy::new(&self.config, &looked_for).is_private();
        if is_private || (request.is_none() && !configured) {
            let by = wishes.iter().filter(|wish| wish.starts).map(|wish| wish.author.as_str()).collect();
            return self.end(row, &selected, before, &found.relays, by).await;
        }
        let now = self.run_service.now();
        // A deletion takes all with it that was said in its second.
        let stopped = u64::from(wishes.iter().any(|wish| !wish.starts));
        let stamp = (now / 1000 + stopped).max(before.map_or(0, |before| before.stamp + 1));
        let hint = found.relays.first().cloned().unwrap_or_default();
        let status = RepositoryService {
            selected: RepositoryAddress { relay: hint, ..selected },
            maintainers: maintainers.clone(),
            labels: self.labels(),
            workflow_paths: WORKFLOWS.map(str::to_owned).to_vec(),
        };
        let status = status.status(&self.us, stamp);
        let mut batch = self.run_service.outbox().announce(&status, &found.relays, now)?;
        let relay = |by: &&ServiceControl| {
            wishes.iter().find(|wish| wish.event == by.id.to_hex()).map(|wish| wish.relay.clone())
        };
        let by = request.as_ref().map(|by| (by.id, by.author, relay(by).unwrap_or_default()));
        let served = ServedRepository {
            repository: address.clone(),
            status: status.event.id.map(|id| id.to_hex()).unwrap_or_default(),
            stamp,
            request: request.map(|by| by.id.to_hex()).unwrap_or_default(),
        };
        batch.extend([ServiceChange::Serve(served).into(), row.retry(now.saturating_add(AGAIN), "said again then")]);
        if let Some(by) = request {
            // Its pushes start workflows from now on.
            let (address, by) = (address.clone(), by.author.to_hex());
            batch.push(FollowChange::Add { address, by, at: now }.into());
        }
        store.commit(batch).await?;
        if !self.served.is_served(&address) {
            tracing::info!(repository = address, request = ?by.as_ref().map(|(id, ..)| id), "is served");
        }
        self.served.set(&address, Some(Service { request: by, maintainers }));
        Ok(Outcome::Stored)
    }

    /// It is not served: where it was said to be, that is taken back.
    async fn end(
        &self,
        row: &ClaimedWork,
        selected: &RepositoryAddress,
        before: Option<ServedRepository>,
        relays: &[String],
        requesters: BTreeSet<&str>,
    ) -> anyhow::Result<Outcome> {
        let (store, address) = (self.run_service.store(), selected.address());
        let now = self.run_service.now();
        let mut batch = vec![row.complete()];
        let followed = store.followed_repository(&address).await?;
        if followed.is_some_and(|(followed, _)| requesters.contains(followed.added_by.as_str())) {
            batch.push(FollowChange::Remove { address: address.clone() }.into());
        }
        if let Some(before) = before {
            let stamp = (now / 1000).max(before.stamp + 1);
            let gone = withdrawal(&self.us, selected, EventId::from_hex(&before.status).ok(), stamp);
            batch.extend(self.run_service.outbox().announce(&gone, relays, now)?);
            batch.push(ServiceChange::End { repository: before.repository }.into());
            tracing::info!(repository = selected.address(), "is served no more");
        }
        store.commit(batch).await?;
        self.served.set(&address, None);
        Ok(Outcome::Stored)
    }

    /// Labels of the workers that are here.
    fn labels(&self) -> BTreeSet<String> {
        self.dispatch.workers().into_iter().flat_map(|worker| worker.labels).collect()
    }

    /// Keeps what is offered true: nothing as long as no repository is served.
    pub(super) async fn keep_offer(self, offer: watch::Sender<Option<ServiceOffer>>) -> anyhow::Result<()> {
        let mut notices = self.run_service.store().subscribe();
        let mut served = self.served.subscribe();
        loop {
            let now = self.offer();
            offer.send_if_modified(|known| std::mem::replace(known, now.clone()) != now);
            loop {
                tokio::select! {
                    changed = served.changed() => {
                        changed?;
                        break;
                    }
                    // Workers come and go.
                    notice = notices.recv() => match notice {
                        Ok(ChangeNotification::Workers | ChangeNotification::Queue) | Err(RecvError::Lagged(_)) => break,
                        Ok(_) => {}
                        Err(RecvError::Closed) => anyhow::bail!("the store has stopped"),
                    },
                }
            }
            // It is for people: what changes within a moment is one change.
            tokio::time::sleep(Duration::from_secs(1)).await;
            notices = self.run_service.store().subscribe();
        }
    }

    fn offer(&self) -> Option<ServiceOffer> {
        if !self.served.any() {
            return None;
        }
        let (repositories, owners) = self.policy.repositories();
        let repositories =
            repositories.iter().filter_map(|address| RepositoryAddress::parse(address, "").ok()).collect();
        let open = self.policy.is_open() && self.config.nip_c1.requests;
        Some(ServiceOffer {
            offer: Offer {
                software: ("longshore".into(), env!("CARGO_PKG_VERSION").into()),
                labels: self.labels(),
                admission: if open { AdmissionPolicy::MaintainerRequest } else { AdmissionPolicy::OperatorSelected },
                automatic: !self.config.nip_c1.repositories.is_empty(),
                secrets_key: None,
            },
            repositories,
            owners,
        })
    }
}

/// A wish as the event said it.
fn control(wish: &ServiceWish, selected: &RepositoryAddress, us: PublicKey) -> Option<ServiceControl> {
    Some(ServiceControl {
        id: EventId::from_hex(&wish.event).ok()?,
        author: PublicKey::from_hex(&wish.author).ok()?,
        created_at: wish.made_at,
        starts: wish.starts,
        coordinator: us,
        repository: selected.clone(),
    })
}

impl WorkHandler for RepositoryServices {
    fn kind(&self) -> WorkKind {
        WorkKind::Serve
    }

    fn parallelism(&self) -> u32 {
        PARALLEL
    }

    fn acts_outside(&self) -> bool {
        // It ends in the store: events are sent by rows of their own.
        false
    }

    fn back_off(&self) -> BackOff {
        BACK_OFF
    }

    fn handle(&self, rows: Vec<ClaimedWork>) -> BoxFuture<'_, anyhow::Result<Outcome>> {
        async move {
            let row = rows.first().context("a claim has a row")?;
            self.look(row).await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cmp::Reverse;

    use nostr::Keys;

    use super::*;

    #[test]
    fn a_wish_is_ordered_as_its_event_was() {
        let key = Keys::generate().public_key();
        let selected = RepositoryAddress::parse(&format!("30617:{key}:repo"), "").unwrap();
        let wish = ServiceWish {
            repository: selected.address(),
            author: key.to_hex(),
            starts: true,
            event: "ab".repeat(32),
            made_at: 7,
            relay: String::new(),
        };
        let read = control(&wish, &selected, key).unwrap();
        assert_eq!(read.order(), (7, Reverse(EventId::from_hex(&"ab".repeat(32)).unwrap())));
        assert!(control(&ServiceWish { event: "x".into(), ..wish }, &selected, key).is_none());
    }
}
