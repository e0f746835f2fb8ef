//! Keeps followed repositories listened for, and makes of what is heard the work of looking at them.
//!
//! An event says only that something may have changed: what counts is looked up by that work. So nothing is lost that a
//! relay still has, and the same event from many relays is one look.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use nostr::PublicKey;
use tokio::sync::broadcast::error::RecvError;

use super::trigger_work::{StateLook, address_of};
use config::Config;
use domain::run::{Millis, Repository};
use nostr_client::{
    relays::Relays,
    repository_events::{RepositoryEvent, RepositoryEvents, WatchedRepository},
};
use store::{Batch, CONFIGURATION, ChangeNotification, FollowChange, FollowedRepository, Store, StoreError};

/// Changes of what is followed within this time are one.
const GATHER: Duration = Duration::from_millis(250);
/// Ids of one repository's events that are remembered as known.
const KNOWN: usize = 256;

/// What is needed for it.
pub(super) struct Following {
    pub(super) store: Store,
    pub(super) relays: Relays,
    pub(super) config: config::Relays,
    pub(super) clock: fn() -> Millis,
}

/// Ids of events by repository that tell nothing new.
#[derive(Default)]
struct KnownEvents(HashMap<String, HashSet<String>>);

impl KnownEvents {
    /// Keeps what is known of those that are followed.
    fn follow(&mut self, followed: &[FollowedRepository]) {
        let mut before = std::mem::take(&mut self.0);
        for repository in followed {
            let mut ids = before.remove(&repository.address).unwrap_or_default();
            ids.extend(repository.events.iter().cloned());
            self.0.insert(repository.address.clone(), ids);
        }
    }

    fn is_new(&self, event: &RepositoryEvent) -> bool {
        self.0.get(&event.repository).is_some_and(|known| !known.contains(&event.event.id.to_hex()))
    }

    fn add(&mut self, event: &RepositoryEvent) {
        let Some(known) = self.0.get_mut(&event.repository) else { return };
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(event.event.id.to_hex());
    }
}

/// What the configuration adds to what is followed, and takes away.
pub(super) async fn follow_configured(store: &Store, config: &Config, now: Millis) -> anyhow::Result<()> {
    let wanted = config.triggers.addresses()?;
    let followed = store.followed_repositories().await?;
    let known: HashSet<&str> = followed.iter().map(|one| one.address.as_str()).collect();
    let missing = wanted.iter().filter(|address| !known.contains(address.as_str()));
    let mut batch: Batch = missing
        .map(|address| FollowChange::Add { address: address.clone(), by: CONFIGURATION.into(), at: now }.into())
        .collect();
    let gone = followed.iter().filter(|one| one.added_by == CONFIGURATION && !wanted.contains(&one.address));
    batch.extend(gone.map(|one| FollowChange::Remove { address: one.address.clone() }.into()));
    if !batch.is_empty() {
        store.commit(batch).await?;
    }
    Ok(())
}

impl Following {
    /// Listens until it is dropped.
    ///
    /// # Errors
    /// The store has stopped.
    pub(super) async fn keep(self) -> anyhow::Result<()> {
        let mut notices = self.store.subscribe();
        let mut events = RepositoryEvents::new(self.relays.clone(), &self.config);
        let mut known = KnownEvents::default();
        loop {
            match self.store.followed_repositories().await {
                Ok(followed) => {
                    known.follow(&followed);
                    self.look_at_new(&followed).await?;
                    events.listen_for(&followed.iter().filter_map(watched).collect::<Vec<_>>());
                }
                Err(StoreError::Stopped) => return Err(StoreError::Stopped.into()),
                Err(error) => tracing::error!("what is followed can't be read: {error}"),
            }
            loop {
                tokio::select! {
                    heard = events.next() => self.take(heard, &mut known).await?,
                    notice = notices.recv() => match notice {
                        Ok(ChangeNotification::Followed) | Err(RecvError::Lagged(_)) => break,
                        Ok(_) => {}
                        Err(RecvError::Closed) => anyhow::bail!("the store has stopped"),
                    },
                }
            }
            tokio::time::sleep(GATHER).await;
            notices = self.store.subscribe();
        }
    }

    /// Looks at those that were never looked at.
    async fn look_at_new(&self, followed: &[FollowedRepository]) -> anyhow::Result<()> {
        let new = followed.iter().filter(|one| one.maintainers.is_empty());
        let look = |one: &FollowedRepository| StateLook { repository: one.address.clone(), event: None };
        let rows: Batch = new.map(|one| look(one).row((self.clock)())).collect::<Result<_, _>>()?;
        self.commit(rows).await.map(drop)
    }

    /// Makes work of what was heard. What can't be stored now comes again when a relay is looked behind.
    async fn take(&self, heard: Vec<RepositoryEvent>, known: &mut KnownEvents) -> anyhow::Result<()> {
        let new: Vec<RepositoryEvent> = heard.into_iter().filter(|event| known.is_new(event)).collect();
        let row = |event: &RepositoryEvent| {
            let made_at = event.event.created_at.as_secs();
            let told = (event.event.kind == nostr::Kind::RepoState).then(|| (event.event.id.to_hex(), made_at));
            StateLook { repository: event.repository.clone(), event: told }.row((self.clock)())
        };
        let rows: Batch = new.iter().map(row).collect::<Result<_, _>>()?;
        if self.commit(rows).await? {
            new.iter().for_each(|event| known.add(event));
        }
        Ok(())
    }

    async fn commit(&self, batch: Batch) -> anyhow::Result<bool> {
        if batch.is_empty() {
            return Ok(true);
        }
        match self.store.commit(batch).await {
            Ok(()) => Ok(true),
            Err(StoreError::Stopped) => Err(StoreError::Stopped.into()),
            Err(error) => {
                tracing::error!("what was heard of repositories can't be stored: {error}");
                Ok(false)
            }
        }
    }
}

/// What is listened for; `None` before it is known whose word counts.
fn watched(followed: &FollowedRepository) -> Option<WatchedRepository> {
    let repository = address_of(followed).ok()?;
    let authors: Vec<PublicKey> = followed.maintainers.iter().filter_map(|key| PublicKey::from_hex(key).ok()).collect();
    if authors.is_empty() {
        return None;
    }
    let Repository { address, identifier, relays, .. } = repository;
    Some(WatchedRepository { address, identifier, authors, relays })
}
