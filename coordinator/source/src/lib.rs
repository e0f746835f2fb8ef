//! From a repository address to proven files at a commit.
//!
//! [`address`] reads what the request names, [`announcement`] decides whose word counts, [`network`] decides where a
//! clone URL may lead, [`git`] brings the objects. [`other_repositories`] does the same for repositories that workflows name, under
//! the [`lock`]. [`definition`] reads workflow files that are events, [`pushed`] finds what a push brought, [`pull_request`] what
//! somebody wants merged. `maintenance` keeps mirrors small. Relays are asked through [`EventQuery`]: this stage knows none.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use nostr::{Alphabet, Event, EventId, Filter, Kind, PublicKey, SingleLetterTag};
use parking_lot::Mutex;

use self::{
    announcement::{Announcement, State},
    definition::{Claim, Definition},
    git::{KnownCommit, Mirror},
    look_ahead::LookAhead,
    maintenance::remove_stale_locks,
};
use domain::id::CommitId;
use domain::run::Repository;
use network::{self, Reach};

pub mod address;
pub mod announcement;
pub mod commit_files;
pub mod definition;
mod fetching;
pub mod git;
mod history;
pub mod lock;
mod look_ahead;
mod maintenance;
pub mod merge;
mod objects;
pub mod other_repositories;
pub mod pull_request;
pub mod pushed;
mod tree_size;
pub mod upload_pack;

pub use self::maintenance::StoredMirror;

/// Tips of the state fetched to prove that a commit is an ancestor of one.
const TIPS: usize = 50;
/// Refs that a complaint names.
const NAMED: usize = 10;
/// Clone URLs tried for one commit.
const CLONES: usize = 12;
/// Definitions of one repository that are looked at.
const DEFINITIONS: usize = 200;

/// Asks relays for stored events.
pub trait EventQuery: Send + Sync {
    /// Events that match, from these relays and those the operator configured; empty where none answers.
    fn find<'a>(&'a self, relays: &'a [String], filter: Filter) -> BoxFuture<'a, Vec<Event>>;
    /// Relays an author writes to (NIP-65).
    fn write_relays<'a>(&'a self, author: &'a str) -> BoxFuture<'a, Vec<String>>;
}

/// What a request wants built.
#[derive(Debug, Clone, Default)]
pub struct Revision {
    /// Full or unique short commit id; empty: what the ref names.
    pub commit: String,
    /// Short branch or tag name; empty: the default branch.
    pub branch: String,
    /// Full ref.
    pub reference: Option<String>,
    /// Id of the request that it is for, if any: see [`RepositoryMirrors::look_ahead`].
    pub request: String,
}

/// A commit that is here, and what is known of it.
#[derive(Debug, Clone)]
pub struct ResolvedRevision {
    /// The repository.
    pub repository: Repository,
    /// The commit.
    pub commit: CommitId,
    /// Full ref: one that holds the commit where it is proven.
    pub reference: String,
    /// Why the ref is not the one that was asked for, for people.
    pub other_ref: Option<String>,
    /// The default branch's full ref, where known.
    pub default_branch: Option<String>,
    /// What the maintainers' state says of the default branch, by id.
    pub default_tip: Option<String>,
    /// Whether the ref holds the commit: the maintainers' state names the commit there, or a descendant of it.
    pub proven: bool,
    /// Keys whose word counts, 64 hex, owner included.
    pub maintainers: Vec<String>,
    /// The repository's relays.
    pub relays: Vec<String>,
    /// Message and author name of the commit.
    pub description: Option<(String, String)>,
    /// The commit's first parent, where it has one.
    pub parent: Option<String>,
    mirror: Mirror,
}

/// Why there is no commit to build.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It may be there in a moment: asked again until `source.wait` is over.
    #[error("{0}")]
    NotYet(String),
    /// It will not get better.
    #[error("{0}")]
    Refused(String),
}

/// Bytes of the workflow files of a commit that are shown.
const STORED_FILES: usize = 2 << 20;

/// Says whether the operator keeps a repository private.
pub type Privacy = Arc<dyn Fn(&Repository) -> bool + Send + Sync>;

/// Finds repositories and keeps their mirrors.
pub struct RepositoryMirrors {
    folder: PathBuf,
    settings: config::Source,
    actions: config::Actions,
    is_private: Privacy,
    lookup: Arc<dyn EventQuery>,
    /// By the name of a mirror: one fetch at a time, so that a second request finds the objects there, and no packing or
    /// removal meanwhile.
    busy: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    looks_ahead: LookAhead,
}

/// Whose word counts for a repository, and where it is published.
#[derive(Debug, Clone, Default)]
pub struct MaintainerSet {
    /// 64 hex, owner included.
    pub maintainers: Vec<String>,
    /// Relays, hints among them.
    pub relays: Vec<String>,
}

#[derive(Debug)]
struct RepositoryMetadata {
    announcements: Vec<Event>,
    maintainers: Vec<String>,
    relays: Vec<String>,
    /// State events of those whose word counts.
    states: Vec<EventId>,
    /// The newest of them, and what it says.
    newest_state: Option<Event>,
    state: Option<State>,
}

impl RepositoryMirrors {
    /// Mirrors live below `folder`.
    pub fn new(folder: PathBuf, settings: config::Source, lookup: Arc<dyn EventQuery>) -> Self {
        let actions = config::Actions::default();
        let is_private: Privacy = Arc::new(|_| false);
        let looks_ahead = LookAhead::default();
        Self { folder, settings, actions, is_private, lookup, busy: Mutex::new(HashMap::new()), looks_ahead }
    }

    /// Which repositories the operator keeps private. Without this, none.
    #[must_use]
    pub fn with_privacy(self, is_private: Privacy) -> Self {
        Self { is_private, ..self }
    }

    /// Where repositories that workflows name by `owner/repo` are looked for.
    #[must_use]
    pub fn with_actions(self, actions: config::Actions) -> Self {
        Self { actions, ..self }
    }

    /// Who maintains a repository (owner, listed keys and, where configured, the keys those list) and where it is published,
    /// as relays say now.
    ///
    /// # Errors
    /// No relay has its announcement.
    pub async fn standing(&self, repository: &Repository) -> Result<MaintainerSet, SourceError> {
        let facts = self.announcements(repository).await?;
        Ok(MaintainerSet { maintainers: facts.maintainers, relays: facts.relays })
    }

    /// Workflow definitions of a repository, or of one path of it, by those whose word counts, as relays have them now.
    /// What is not well-formed is left out.
    pub async fn definitions(
        &self,
        repository: &str,
        path: Option<&str>,
        standing: &MaintainerSet,
    ) -> Vec<(Definition, Event)> {
        let authors = standing.maintainers.iter().filter_map(|key| PublicKey::from_hex(key).ok());
        let filter = Filter::new()
            .kind(Kind::from(definition::KIND))
            .authors(authors)
            .custom_tag(SingleLetterTag::lowercase(Alphabet::A), repository)
            .limit(DEFINITIONS);
        let filter = match path {
            Some(path) => filter.identifier(definition::identifier(repository, path)),
            None => filter,
        };
        let found = self.lookup.find(&standing.relays, filter).await.into_iter().filter_map(|event| {
            let read = Definition::read(&event).inspect_err(|why| tracing::debug!(event = %event.id, "{why}")).ok()?;
            Some((read, event))
        });
        let mut found: Vec<_> = found
            .filter(|(read, _)| {
                let wanted = read.repository == repository && path.is_none_or(|path| path == read.path);
                wanted && standing.maintainers.contains(&read.author)
            })
            .collect();
        found.sort_by_key(|(read, _)| read.precedence());
        // Of each author the newest, as a relay has it: what else relays give is not for us to keep.
        let mut known = HashSet::new();
        found.retain(|(read, _)| known.insert((read.author.clone(), read.path.clone())));
        found.truncate(DEFINITIONS);
        found
    }

    /// Begins to ask relays who maintains a repository and where its refs are, for a request that was let in and is not
    /// stored yet. [`Self::resolve`] for that request waits for this answer instead of asking anew.
    pub fn look_ahead(self: &Arc<Self>, request: &str, repository: &Repository) {
        let (this, repository) = (self.clone(), repository.clone());
        self.looks_ahead.begin(request, async move { this.announcements(&repository).await });
    }

    /// Finds the commit, proves it, and brings its objects.
    pub async fn resolve(&self, repository: &Repository, wanted: &Revision) -> Result<ResolvedRevision, SourceError> {
        let facts = match self.looks_ahead.take(&wanted.request).await {
            Some(facts) => facts?,
            None => self.announcements(repository).await?,
        };
        let state = facts.state.clone().unwrap_or_default();
        let lock = self.repository_lock(&Mirror::name(&repository.address));
        let _held = lock.lock().await;
        let mirror = self.mirror(&repository.address).await?;
        remove_stale_locks(mirror.path());
        let (object, reference) = self.target(&state, wanted, &mirror).await?;
        let (names, tips): (Vec<String>, Vec<String>) =
            state.tips(&reference, TIPS).into_iter().map(|(name, tip)| (name.to_owned(), tip.to_owned())).unzip();
        let not_yet = |error: git::GitError| SourceError::NotYet(error.to_string());
        let known = match mirror.keep_known(&object, tips.first()).await.map_err(not_yet)? {
            Some(known) => known,
            None => {
                let commit = self.fetch_commit(&facts, &mirror, &object, &reference).await?;
                let fetched = mirror.keep_known(commit.as_str(), tips.first()).await.map_err(not_yet)?;
                fetched.ok_or_else(|| SourceError::NotYet(format!("commit {commit} went away again")))?
            }
        };
        let KnownCommit { commit, is_first_tip, description, parent } = known;
        let holder = if is_first_tip {
            Some(0)
        } else {
            self.fetch_tips(&facts, &mirror, &tips).await;
            mirror.first_holder(&tips, &commit).await
        };
        let holder = holder.and_then(|holder| names.get(holder));
        let named = wanted.reference.is_some() || !wanted.branch.is_empty();
        let other_ref = holder.filter(|holder| named && **holder != reference).map(|holder| {
            format!("The request names {reference}, where the maintainers' state does not have this commit: it is run as {holder}.")
        });
        Ok(ResolvedRevision {
            repository: repository.clone(),
            description,
            parent,
            commit,
            proven: holder.is_some(),
            reference: holder.cloned().unwrap_or(reference),
            other_ref,
            default_tip: state.default_branch().and_then(|name| state.target(name)).map(str::to_owned),
            default_branch: state.default_branch().map(str::to_owned),
            maintainers: facts.maintainers,
            relays: facts.relays,
            mirror,
        })
    }

    /// Workflow files directly in some folders at a commit that is here already, by path; none where it is not. What goes
    /// beyond 2 MiB in sum is left out.
    pub async fn stored_files(
        &self,
        repository: &str,
        commit: &str,
        folders: &[&str],
        limit: usize,
    ) -> Result<Vec<(String, String)>, SourceError> {
        let mirror = self.mirror(repository).await?;
        let commit = commit.to_owned();
        let folders: Vec<String> = folders.iter().map(|folder| (*folder).to_owned()).collect();
        let read = tokio::task::spawn_blocking(move || {
            let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
            let paths = mirror.names(&commit, &folders).into_iter();
            // One that is too long is refused where it is run; here the others still count.
            let files = paths.filter_map(|path| Some((mirror.file(&commit, &path, limit).ok()??, path)));
            let mut room = STORED_FILES;
            let fit = files.take_while(|(bytes, _)| {
                let left = room.checked_sub(bytes.len());
                room = left.unwrap_or_default();
                left.is_some()
            });
            fit.map(|(bytes, path)| (path, String::from_utf8_lossy(&bytes).into_owned())).collect()
        });
        read.await.map_err(|error| SourceError::NotYet(format!("reading the repository was ended: {error}")))
    }

    /// A git bundle of objects that were resolved before, less what `have` reaches.
    pub async fn bundle(
        &self,
        repository: &str,
        wanted: &[String],
        have: &[String],
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, SourceError> {
        let mirror = self.mirror(repository).await?;
        mirror.bundle(wanted, have).await.map_err(|error| SourceError::Refused(error.to_string()))
    }

    async fn mirror(&self, repository: &str) -> Result<Mirror, SourceError> {
        Mirror::open(&self.folder, repository, self.reach(), (&self.settings).into())
            .await
            .map_err(|error| SourceError::NotYet(error.to_string()))
    }

    fn reach(&self) -> Reach {
        Reach { private: self.settings.allow_private, file: self.settings.allow_file }
    }

    /// The lock of a mirror, by its name.
    fn repository_lock(&self, mirror: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock();
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        busy.entry(mirror.to_owned()).or_default().clone()
    }

    /// Announcements, maintainers and state, as the repository's relays have them now.
    async fn announcements(&self, repository: &Repository) -> Result<RepositoryMetadata, SourceError> {
        let owner = PublicKey::from_hex(&repository.owner)
            .map_err(|_| SourceError::Refused(format!("the owner {} is no public key", repository.owner)))?;
        let mut relays = Vec::new();
        add_relays(&mut relays, &repository.relays);
        let mut maintainers = BTreeSet::from([repository.owner.clone()]);
        let mut announcements: Vec<Event> = Vec::new();
        let mut more = self.lookup.write_relays(&repository.owner);
        let mut rounds = 0;
        // All that is known is asked at once, and again only where the answers name relays or maintainers besides.
        let states = loop {
            rounds += 1;
            let authors: Vec<PublicKey> = maintainers.iter().filter_map(|key| PublicKey::from_hex(key).ok()).collect();
            let by = |kind: Kind| Filter::new().kind(kind).authors(authors.clone()).identifier(&repository.identifier);
            let of = |event: &Event, kind: Kind| {
                is_of(event, kind, &repository.identifier) && authors.contains(&event.pubkey)
            };
            let (written, found, mut states) = tokio::join!(
                more,
                self.lookup.find(&relays, by(Kind::GitRepoAnnouncement)),
                self.lookup.find(&relays, by(Kind::RepoState)),
            );
            more = std::future::ready(Vec::new()).boxed();
            for event in found.into_iter().filter(|event| of(event, Kind::GitRepoAnnouncement)) {
                if announcements.iter().all(|known| known.id != event.id) {
                    announcements.push(event);
                }
            }
            let (asked, asked_relays) = (maintainers, relays.len());
            maintainers = announcement::maintainers(
                &repository.owner,
                &repository.identifier,
                &announcements,
                self.settings.recursive_maintainers,
            );
            add_relays(&mut relays, &written);
            for author in &maintainers {
                let own = announcements.iter().filter(|event| event.pubkey.to_hex() == *author);
                add_relays(&mut relays, &announcement::newest(own).map(Announcement::read).unwrap_or_default().relays);
            }
            if relays.len() == asked_relays && maintainers.is_subset(&asked) || rounds == announcement::MAINTAINERS {
                states.retain(|event| of(event, Kind::RepoState) && maintainers.contains(&event.pubkey.to_hex()));
                break states;
            }
        };
        announcements.retain(|event| maintainers.contains(&event.pubkey.to_hex()));
        if announcements.iter().all(|event| event.pubkey != owner) {
            return Err(SourceError::NotYet(format!(
                "no relay has the announcement (30617) of {}: publish it, or name one of its relays in the request",
                repository.address
            )));
        }
        let maintainers: Vec<String> = maintainers.into_iter().collect();
        let newest_state = announcement::newest(&states).cloned();
        let state = newest_state.as_ref().map(State::read);
        let states = states.into_iter().map(|event| event.id).collect();
        Ok(RepositoryMetadata { announcements, maintainers, relays, states, newest_state, state })
    }

    /// The commit (or object) and ref that a request means.
    async fn target(&self, state: &State, wanted: &Revision, mirror: &Mirror) -> Result<(String, String), SourceError> {
        let refused = |error: address::BadName| SourceError::Refused(error.to_string());
        let named = match (&wanted.reference, wanted.branch.as_str()) {
            (Some(full), _) => Some(address::check_ref(full).map_err(refused)?.to_owned()),
            (None, "") => None,
            (None, short) => {
                let branch = format!("refs/heads/{short}");
                address::check_ref(&branch).map_err(refused)?;
                Some(state.full_name(short).map_or(branch, str::to_owned))
            }
        };
        let default = || state.default_branch().map(str::to_owned);
        if wanted.commit.is_empty() {
            // Clients say `main` of a repository whose branches they do not know. Any other name means just that one.
            let named = named.filter(|name| state.target(name).is_some() || name != "refs/heads/main");
            let reference = named.or_else(default).ok_or_else(|| {
                SourceError::NotYet(
                    "no maintainer's state (30618) names a branch to build: push, or name a commit".into(),
                )
            })?;
            if state.target(&reference).is_none() {
                let known: Vec<&str> = state.targets().map(|(name, _)| name).take(NAMED).collect();
                let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
                return Err(SourceError::NotYet(format!(
                    "the maintainers' state (30618) does not name {reference}; it has {known}: push it, or name another"
                )));
            }
            let target = state.target(&reference).unwrap_or_default().to_owned();
            return Ok((target, reference));
        }
        let commit = match address::check_commit(&wanted.commit) {
            Ok(commit) => commit,
            Err(error) => mirror.complete(&wanted.commit).await.ok_or_else(|| refused(error))?.to_string(),
        };
        let reference = named
            .or_else(|| state.ref_of(&commit).map(str::to_owned))
            .or_else(default)
            .unwrap_or_else(|| "refs/heads/main".to_owned());
        Ok((commit, reference))
    }
}

impl ResolvedRevision {
    /// A file at the commit; `None` where there is none.
    pub fn file(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, SourceError> {
        self.mirror.file(self.commit.as_str(), path, limit).map_err(|error| SourceError::Refused(error.to_string()))
    }

    /// A file at the commit that the default branch stands for; `None` where there is none, or the commit is not here.
    pub async fn default_branch_file(&self, path: &str, limit: usize) -> Option<Vec<u8>> {
        let tip = self.mirror.peel(self.default_tip.as_deref()?).await?;
        let (mirror, path) = (self.mirror.clone(), path.to_owned());
        let read = tokio::task::spawn_blocking(move || mirror.file(tip.as_str(), &path, limit));
        read.await.ok()?.ok()?
    }
}

impl RepositoryMetadata {
    /// Clone URLs of all maintainers, the owner's first, each once.
    fn clone_urls(&self) -> Vec<String> {
        let mut urls: Vec<String> = Vec::new();
        for author in self.authors_owner_first() {
            let own = self.announcements.iter().filter(|event| event.pubkey.to_hex() == author);
            for url in announcement::newest(own).map(Announcement::read).unwrap_or_default().clone {
                if !urls.contains(&url) {
                    urls.push(url);
                }
            }
        }
        urls.truncate(CLONES);
        urls
    }

    fn authors_owner_first(&self) -> Vec<String> {
        let mut authors: Vec<String> = Vec::new();
        for author in self.announcements.iter().map(|event| event.pubkey.to_hex()) {
            if !authors.contains(&author) {
                authors.push(author);
            }
        }
        authors
    }
}

fn is_of(event: &Event, kind: Kind, identifier: &str) -> bool {
    event.kind == kind && event.tags.identifier() == Some(identifier)
}

fn add_relays(relays: &mut Vec<String>, more: &[String]) {
    for relay in more.iter().map(|relay| relay.trim_end_matches('/')) {
        if relays.len() < announcement::MAINTAINERS && relays.iter().all(|known| known != relay) {
            relays.push(relay.to_owned());
        }
    }
}
