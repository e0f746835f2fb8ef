//! Events of repositories that are followed, and of pull requests to them, from the relays where each is published.
//!
//! What is followed is gathered into few filters. Where a relay has so many repositories that naming them would take more
//! subscriptions than a relay grants, all events of these kinds are asked for, and those of others are dropped at once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use nostr::{Event, Filter, Kind, PublicKey, Timestamp};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

use self::gather::{RelaySlot, gather};
use super::{
    intake::reading::{AGAIN, Next, Reading, waits},
    relays::{QueueRoom, Relays},
    tags,
};

mod gather;

/// Deliveries of one subscription that wait, and their bytes.
const QUEUE: usize = 1024;
const QUEUE_BYTES: usize = 8 << 20;
/// Bytes of one event: a state may name thousands of refs.
const LARGEST: usize = 1 << 20;
/// A stored answer of fewer events was not cut off by the relay's limit.
const PAGE: usize = 100;
/// Stored events that a relay is asked for at a time, and how often at most for one filter.
const PAGE_LIMIT: usize = 500;
const PAGES: usize = 100;
/// How long a relay may take to give a page.
const WAIT: Duration = Duration::from_secs(20);
/// Events that wait to be taken.
const EVENTS: usize = 256;
/// Repositories that a pull request may name: one for each maintainer.
const NAMED: usize = 64;

/// A repository whose events are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedRepository {
    /// `30617:<owner>:<d>`.
    pub address: String,
    /// `d`.
    pub identifier: String,
    /// Whose announcements and states count.
    pub authors: Vec<PublicKey>,
    /// Where it is published.
    pub relays: Vec<String>,
    /// Since when pull requests are wanted, and what is said of them.
    pub requests_since: Timestamp,
}

/// Something that was published of a repository.
#[derive(Debug, Clone)]
pub struct RepositoryEvent {
    /// Address of the repository.
    pub repository: String,
    /// The event, verified.
    pub event: Event,
}

/// Repositories by what events say of them.
#[derive(Debug, Default)]
struct Index {
    /// By the author and the identifier of their own events.
    own: HashMap<(PublicKey, String), Vec<String>>,
    /// By the address that pull requests name: that of the owner, or of a maintainer.
    named: HashMap<String, Vec<String>>,
}

impl Index {
    fn of(repositories: &[WatchedRepository]) -> Self {
        let mut index = Self::default();
        for repository in repositories {
            for author in &repository.authors {
                let own = index.own.entry((*author, repository.identifier.clone())).or_default();
                own.push(repository.address.clone());
            }
            for address in repository.addresses() {
                index.named.entry(address).or_default().push(repository.address.clone());
            }
        }
        index
    }

    /// Repositories that an event is about.
    fn find(&self, event: &Event) -> Vec<String> {
        if !REQUEST_KINDS.contains(&event.kind) {
            let identifier = event.tags.identifier().unwrap_or_default();
            // Most of what a wide filter gives is of others.
            return self.own.get(&(event.pubkey, identifier.to_owned())).cloned().unwrap_or_default();
        }
        let named = tags::all(event, "a").take(NAMED).filter_map(|tag| self.named.get(tag.get(1)?));
        let found: BTreeSet<String> = named.flatten().cloned().collect();
        found.into_iter().collect()
    }
}

impl WatchedRepository {
    /// Addresses that pull requests to it name: that of each maintainer's announcement.
    fn addresses(&self) -> BTreeSet<String> {
        let of = |author: &PublicKey| format!("30617:{author}:{}", self.identifier);
        self.authors.iter().map(of).chain([self.address.clone()]).collect()
    }
}

/// Listens for the events of repositories. Dropped, it ends.
#[derive(Debug)]
pub struct RepositoryEvents {
    relays: Relays,
    /// Relays where every repository may be published.
    everywhere: Vec<String>,
    index: watch::Sender<Arc<Index>>,
    open: BTreeMap<RelaySlot, Open>,
    to: mpsc::Sender<RepositoryEvent>,
    events: mpsc::Receiver<RepositoryEvent>,
}

/// A subscription of this module.
#[derive(Debug)]
struct Open {
    filters: watch::Sender<Vec<Filter>>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RepositoryEvents {
    /// Listens for nothing yet. Each repository is listened for on its own relays and on those of the operator.
    pub fn new(relays: Relays, config: &config::Relays) -> Self {
        let everywhere =
            config.read.iter().chain(&config.lookup).filter_map(|url| super::relays::normal(url)).collect();
        let (to, events) = mpsc::channel(EVENTS);
        let index = watch::Sender::new(Arc::new(Index::default()));
        Self { relays, everywhere, index, open: BTreeMap::new(), to, events }
    }

    /// Listens for these from now on, and gives what relays have stored of those that are new.
    pub fn listen_for(&mut self, repositories: &[WatchedRepository]) {
        self.index.send_replace(Arc::new(Index::of(repositories)));
        let mut wanted =
            gather(repositories, &self.everywhere, |url| self.relays.usable(url), |url| self.relays.is_named(url));
        self.open.retain(|slot, open| match wanted.remove(slot) {
            Some(filters) => {
                open.filters.send_if_modified(|known| {
                    let changed = *known != filters;
                    *known = filters;
                    changed
                });
                true
            }
            None => false,
        });
        for (slot, filters) in wanted {
            let (filters, followed) = watch::channel(filters);
            let reader = Reader {
                relays: self.relays.clone(),
                slot: slot.clone(),
                filters: followed,
                index: self.index.subscribe(),
                to: self.to.clone(),
            };
            let task = tokio::spawn(reader.keep_reading()).abort_handle();
            self.open.insert(slot, Open { filters, task });
        }
    }

    /// The next events, at least one, in the order in which they came. May be cancelled.
    pub async fn next(&mut self) -> Vec<RepositoryEvent> {
        let mut events = Vec::new();
        self.events.recv_many(&mut events, EVENTS).await;
        events
    }

    /// Subscriptions that are wanted now, at all relays.
    pub fn subscriptions(&self) -> usize {
        self.open.len()
    }
}

/// Reads one subscription.
struct Reader {
    relays: Relays,
    slot: RelaySlot,
    filters: watch::Receiver<Vec<Filter>>,
    index: watch::Receiver<Arc<Index>>,
    to: mpsc::Sender<RepositoryEvent>,
}

impl Reader {
    async fn keep_reading(mut self) {
        let mut waits = waits(AGAIN[1]);
        while let Err(error) = self.read().await {
            let wait = waits.next().unwrap_or(AGAIN[1]);
            tracing::debug!(relay = self.slot.relay, ?wait, "repositories are listened for again: {error:#}");
            tokio::time::sleep(wait).await;
        }
    }

    /// Reads until nobody listens.
    async fn read(&mut self) -> anyhow::Result<()> {
        let url = self.slot.relay.clone();
        // Requests are heard over a connection of their own; that of the others would be a second one to each relay.
        let relay = if self.relays.is_named(&url) { self.relays.listen(&url)? } else { self.relays.lease(&url)? };
        let room = QueueRoom { events: QUEUE, bytes: QUEUE_BYTES, largest: LARGEST };
        let id = format!("repositories {}", self.slot.number);
        let filters = self.filters.borrow_and_update().clone();
        let mut reading = Reading::new(relay.subscribe(&id, filters.clone(), room).await, &filters);
        loop {
            tokio::select! {
                next = reading.next(&url) => match next? {
                    Next::Event(event) => {
                        if !self.give(event.into_event()).await {
                            return Ok(());
                        }
                    }
                    Next::Stored(Some(until)) => self.read_older(until).await?,
                    Next::Stored(None) => {}
                    Next::Again => {
                        let filters = self.filters.borrow_and_update().clone();
                        reading.replace(filters).await;
                    }
                },
                changed = self.filters.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let filters = self.filters.borrow_and_update().clone();
                    reading.replace(filters).await;
                }
            }
        }
    }

    /// What a relay has stored before the page that it gave.
    async fn read_older(&self, until: Timestamp) -> anyhow::Result<()> {
        let relay = self.relays.lease(&self.slot.relay)?;
        let filters = self.filters.borrow().clone();
        for filter in filters {
            let mut until = until;
            for _ in 0..PAGES {
                let page = relay.fetch(filter.clone().until(until).limit(PAGE_LIMIT), WAIT).await?;
                let (count, oldest) = (page.len(), page.iter().map(|event| event.created_at).min());
                for event in page {
                    self.give(event).await;
                }
                match oldest {
                    // Of one second there may be more than a page: those are heard of when they change.
                    Some(oldest) if count >= PAGE && oldest < until => until = oldest,
                    Some(oldest) if count >= PAGE => until = oldest - 1,
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Hands an event on for each repository that it is about; false: nobody takes it.
    async fn give(&self, event: Event) -> bool {
        let addresses = self.index.borrow().find(&event);
        if addresses.is_empty() || event.verify().is_err() {
            return true;
        }
        for repository in addresses {
            if self.to.send(RepositoryEvent { repository, event: event.clone() }).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// Kinds that tell of a repository itself.
const KINDS: [Kind; 2] = [Kind::GitRepoAnnouncement, Kind::RepoState];
/// Kinds of pull requests, of their updates, and of what says whether they are open (NIP-34).
pub const REQUEST_KINDS: [Kind; 6] = [
    Kind::Custom(1618),
    Kind::Custom(1619),
    Kind::GitStatusOpen,
    Kind::GitStatusApplied,
    Kind::GitStatusClosed,
    Kind::GitStatusDraft,
];
