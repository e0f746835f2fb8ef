//! Keeps followed repositories listened for, and makes of what is heard the work of looking at them.
//!
//! An event says only that something may have changed: what counts is looked up by that work. So nothing is lost that a
//! relay still has, and the same event from many relays is one look. Anybody can publish events of pull requests: of those
//! whom a repository does not know as many become work as [`OutsiderRates`] admits.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use nostr::{PublicKey, Timestamp};
use tokio::sync::broadcast::error::RecvError;
use triggers::outsider_rates::{OutsiderRates, RateExceeded, RateLimits};

use super::trigger_work::{PullRequestLook, StateLook, address_of};
use config::Config;
use domain::run::{Millis, Repository};
use nostr_client::{
    relays::Relays,
    repository_events::{REQUEST_KINDS, RepositoryEvent, RepositoryEvents, WatchedRepository},
};
use source::pull_request;
use store::{Batch, CONFIGURATION, ChangeNotification, FollowChange, FollowedRepository, Store, StoreError};

/// Changes of what is followed within this time are one.
const GATHER: Duration = Duration::from_millis(250);
/// Ids of one repository's events that are remembered as known.
const KNOWN: usize = 256;
/// How long before the start events of pull requests are asked for (ms): so long no coordinator may have run.
const OUTAGE: Millis = 14 * 24 * 3_600_000;
/// Pull requests whose events are known from the start.
const KNOWN_REQUESTS: u32 = 10_000;
/// Bytes of an event of a pull request, and its tags.
const REQUEST_BYTES: usize = 64 << 10;
const REQUEST_TAGS: usize = 256;

/// Events of pull requests by outsiders that are looked at within an hour.
const RATES: RateLimits = RateLimits { author: 20, repository: 120, all: 600 };

/// What is needed for it.
pub(super) struct Following {
    pub(super) store: Store,
    pub(super) relays: Relays,
    pub(super) config: config::Relays,
    pub(super) clock: fn() -> Millis,
}

/// Ids of events by repository that tell nothing new.
struct KnownEvents {
    repositories: HashMap<String, KnownRepository>,
    /// What those have published lately whom a repository does not know.
    rates: OutsiderRates,
}

impl Default for KnownEvents {
    fn default() -> Self {
        Self { repositories: HashMap::new(), rates: OutsiderRates::new(RATES) }
    }
}

#[derive(Default)]
struct KnownRepository {
    ids: HashSet<String>,
    maintainers: Vec<String>,
    /// Followed since (s).
    since: u64,
}

impl KnownEvents {
    /// Keeps what is known of those that are followed.
    fn follow(&mut self, followed: &[FollowedRepository]) {
        let mut before = std::mem::take(&mut self.repositories);
        for repository in followed {
            let mut known = before.remove(&repository.address).unwrap_or_default();
            known.ids.extend(repository.events.iter().cloned());
            known.maintainers.clone_from(&repository.maintainers);
            known.since = repository.added_at / 1000;
            self.repositories.insert(repository.address.clone(), known);
        }
    }

    fn is_new(&self, event: &RepositoryEvent) -> bool {
        let known = self.repositories.get(&event.repository);
        known.is_some_and(|known| !known.ids.contains(&event.event.id.to_hex()))
    }

    fn add(&mut self, repository: &str, event: String) {
        let Some(known) = self.repositories.get_mut(repository) else { return };
        if known.ids.len() >= KNOWN {
            known.ids.clear();
        }
        known.ids.insert(event);
    }

    /// The look that an event of a pull request asks for; `None`: it asks for none.
    ///
    /// # Errors
    /// It is not looked at now.
    fn look(&mut self, heard: &RepositoryEvent, now: Millis) -> Result<Option<PullRequestLook>, RateExceeded> {
        let RepositoryEvent { repository, event } = heard;
        let known = self.repositories.get(repository);
        let Some((known, root)) = known.zip(pull_request::root_of(event)) else { return Ok(None) };
        let is_small = event.content.len() <= REQUEST_BYTES && event.tags.len() <= REQUEST_TAGS;
        if !is_small || event.created_at.as_secs() < known.since {
            return Ok(None);
        }
        let author = event.pubkey.to_hex();
        if !known.maintainers.contains(&author)
            && let Err(why) = self.rates.take(&author, repository, 1, now)
        {
            if self.rates.is_first(why) {
                tracing::warn!(repository, author, root, "an event of a pull request is not looked at: {why}");
            }
            return Err(why);
        }
        Ok(Some(PullRequestLook { repository: repository.clone(), root, heard: event.clone() }))
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
        let since = (self.clock)().saturating_sub(OUTAGE);
        let mut requests = match self.store.pull_request_events(since, KNOWN_REQUESTS).await {
            Err(StoreError::Stopped) => return Err(StoreError::Stopped.into()),
            found => found.unwrap_or_default(),
        };
        loop {
            match self.store.followed_repositories().await {
                Ok(followed) => {
                    known.follow(&followed);
                    requests.drain(..).for_each(|(repository, event)| known.add(&repository, event));
                    self.look_at_new(&followed).await?;
                    events.listen_for(&followed.iter().filter_map(|one| watched(one, since)).collect::<Vec<_>>());
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
        let now = (self.clock)();
        let (mut rows, mut taken) = (Batch::new(), Vec::new());
        let mut seen = HashSet::new();
        for event in heard {
            // Several relays give the same at a time: it counts once.
            if !known.is_new(&event) || !seen.insert((event.repository.clone(), event.event.id)) {
                continue;
            }
            if REQUEST_KINDS.contains(&event.event.kind) {
                match known.look(&event, now) {
                    Ok(look) => rows.extend(look.map(|look| look.row(now)).transpose()?),
                    // It may come again.
                    Err(_) => continue,
                }
                taken.push(event);
                continue;
            }
            let made_at = event.event.created_at.as_secs();
            let told = (event.event.kind == nostr::Kind::RepoState).then(|| (event.event.id.to_hex(), made_at));
            rows.push(StateLook { repository: event.repository.clone(), event: told }.row(now)?);
            taken.push(event);
        }
        if self.commit(rows).await? {
            taken.iter().for_each(|event| known.add(&event.repository, event.event.id.to_hex()));
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
fn watched(followed: &FollowedRepository, requests_since: Millis) -> Option<WatchedRepository> {
    let repository = address_of(followed).ok()?;
    let authors: Vec<PublicKey> = followed.maintainers.iter().filter_map(|key| PublicKey::from_hex(key).ok()).collect();
    if authors.is_empty() {
        return None;
    }
    let Repository { address, identifier, relays, .. } = repository;
    let requests_since = Timestamp::from(requests_since.max(followed.added_at) / 1000);
    Some(WatchedRepository { address, identifier, authors, relays, requests_since })
}
