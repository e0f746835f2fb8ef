//! A pull request as it is found: its events on relays, and its head with what it would be merged into.
//!
//! Anybody can publish one, and name any commit and any server. It is asked for by its id, and for what its author and the
//! maintainers said of it: what others publish beside that is not even received. Its head is fetched into the mirror under
//! limits and without the mirror's lock, and leaves no refs there.

use std::time::Duration;

use nostr::{Alphabet, Event, EventId, Filter, Kind, PublicKey, SingleLetterTag};
use tokio::time::Instant;
use triggers::pull_request::{Head, PullRequest, PullRequestState, Status};

use super::{
    RepositoryMirrors, SourceError,
    address::{check_commit, check_ref},
    announcement::State,
    commit_files::CommitFiles,
    fetching::WantedObject,
    git::{GitError, Mirror},
    maintenance::remove_stale_locks,
    merge::Merge,
};
use domain::{id::CommitId, run::Repository};
use network::Reach;

/// Kind of a pull request, and of its updates.
pub const PULL_REQUEST: u16 = 1618;
const UPDATE: u16 = 1619;
/// Kinds of what says whether one is open.
const STATUSES: [u16; 4] = [1630, 1631, 1632, 1633];

/// Events about one pull request that a relay is asked for.
const EVENTS: usize = 200;
/// Bytes of a title, of a label, of a body, of a URL.
const TITLE: usize = 256;
const LABEL: usize = 64;
const BODY: usize = 16 << 10;
const URL: usize = 512;
/// Labels, and clone URLs, of one pull request.
const LABELS: usize = 20;
const CLONES: usize = 4;

/// What relays have of a pull request.
#[derive(Debug, Clone)]
pub struct PublishedPullRequest {
    /// As its events say; `None`: there is no such pull request of this repository.
    pub request: Option<PullRequest>,
    /// Keys whose word counts for the repository, 64 hex, owner included.
    pub maintainers: Vec<String>,
    /// Relays of the repository, hints among them.
    pub relays: Vec<String>,
}

/// The head of a pull request, and its base as the maintainers' state has it.
#[derive(Debug, Clone)]
pub struct PullRequestRevision {
    /// Short name of the base branch.
    pub base_branch: String,
    /// Its commit.
    pub base: CommitId,
    /// The head's commit.
    pub head: CommitId,
    /// Both together.
    pub merge: Merge,
    /// Message of the head's commit.
    pub message: String,
    /// Paths that it changes since it left its base; `None`: not known, or too many.
    pub changed_paths: Option<Vec<String>>,
    /// Relays of the repository.
    pub relays: Vec<String>,
    default_tip: Option<CommitId>,
    mirror: Mirror,
}

/// What one fetch may bring, and what it brought.
#[derive(Debug, Clone, Copy)]
pub struct FetchAllowance {
    /// Bytes that it may bring.
    pub most: u64,
    /// How long all servers together may take; `None`: as long as those of a push.
    pub time: Option<Duration>,
    /// Bytes that came.
    pub came: u64,
}

impl RepositoryMirrors {
    /// What relays have of a pull request now, beside what was known of it and what was heard.
    ///
    /// # Errors
    /// No relay has the repository's announcement.
    pub async fn published_pull_request(
        &self,
        repository: &Repository,
        root: &str,
        known: Option<PullRequest>,
        heard: Option<Event>,
    ) -> Result<PublishedPullRequest, SourceError> {
        let facts = self.announcements(repository).await?;
        let (maintainers, relays) = (facts.maintainers, facts.relays);
        let none = |maintainers, relays| Ok(PublishedPullRequest { request: None, maintainers, relays });
        let Ok(id) = EventId::from_hex(root) else { return none(maintainers, relays) };
        let request = match (known, &heard) {
            (Some(known), _) => Some(known),
            (None, Some(heard)) if heard.id == id => read_root(heard, repository, &maintainers),
            (None, _) => {
                let found = self.lookup.find(&relays, Filter::new().id(id).kind(Kind::from(PULL_REQUEST))).await;
                found.iter().filter(|event| event.id == id).find_map(|event| read_root(event, repository, &maintainers))
            }
        };
        let Some(mut request) = request else { return none(maintainers, relays) };
        let key = |key: &String| PublicKey::from_hex(key).ok();
        let author = key(&request.author);
        let updates = Filter::new()
            .kind(Kind::from(UPDATE))
            .authors(author)
            .custom_tag(SingleLetterTag::uppercase(Alphabet::E), id.to_hex())
            .limit(EVENTS);
        let statuses = Filter::new()
            .kinds(STATUSES.map(Kind::from))
            .authors(author.into_iter().chain(maintainers.iter().filter_map(key)))
            .event(id)
            .limit(EVENTS);
        let (updates, statuses) = tokio::join!(self.lookup.find(&relays, updates), self.lookup.find(&relays, statuses));
        for event in updates.iter().chain(&statuses).chain(&heard) {
            if let Some(head) = read_update(event, root) {
                request = request.updated(&event.pubkey.to_hex(), head);
            } else if let Some(status) = read_status(event, root) {
                request = request.with_status(status, &maintainers);
            }
        }
        Ok(PublishedPullRequest { request: Some(request), maintainers, relays })
    }

    /// Brings the head of a pull request and its base, and merges them. The head is fetched within an allowance, which knows
    /// afterwards what came, also where it was in vain.
    ///
    /// # Errors
    /// [`SourceError::NotYet`] where the head is at none of the clone URLs, [`SourceError::Refused`] where the repository has no
    /// such base.
    pub async fn pull_request_revision(
        &self,
        repository: &Repository,
        request: &PullRequest,
        allowance: &mut FetchAllowance,
    ) -> Result<PullRequestRevision, SourceError> {
        let facts = self.announcements(repository).await?;
        let state = facts.state.clone().unwrap_or_default();
        let (base_branch, base) = base_of(&state, request.base.as_deref())?;
        let default_tip = state.default_branch().and_then(|name| state.target(name)).map(str::to_owned);
        let mirror = self.mirror(&repository.address).await?;
        let tips: Vec<String> = std::iter::once(base.clone()).chain(default_tip.clone()).collect();
        {
            let lock = self.repository_lock(&Mirror::name(&repository.address));
            let _held = lock.lock().await;
            remove_stale_locks(mirror.path());
            self.fetch_tips(&facts, &mirror, &tips).await;
        }
        let base = mirror
            .peel(&base)
            .await
            .ok_or_else(|| SourceError::NotYet(format!("the base {base_branch} is at none of the clone URLs")))?;
        let default_tip = match &default_tip {
            Some(tip) => mirror.peel(tip).await,
            None => None,
        };

        // From here on the author chooses how long it takes: pushes and plans of the repository must not wait for that. git
        // bears several fetches into one repository, and packing leaves alone what came within an hour.
        let head = &request.head;
        let own = facts.clone_urls().into_iter().map(|url| (url, self.reach()));
        // What a stranger names never leads into our own files.
        let named = Reach { private: self.settings.allow_private, file: false };
        let urls: Vec<(String, Reach)> = own.chain(head.clones.iter().map(|url| (url.clone(), named))).collect();
        let branch = Some(format!("refs/heads/{}", request.branch)).filter(|name| check_ref(name).is_ok());
        let at_grasp = [&head.event, &request.root].map(|event| format!("refs/nostr/{event}"));
        let references: Vec<String> = at_grasp.into_iter().chain(branch).collect();
        let scratch = format!("refs/fetched/pull/{}", request.root);
        let limited = mirror.clone().fetching_at_most(allowance.most);
        let before = mirror.pack_bytes().await;
        let until = allowance.time.map_or_else(|| self.deadline(), |time| self.deadline().min(Instant::now() + time));
        let wanted = WantedObject { object: &head.commit, references: &references, into: Some(&scratch), until };
        let found = self.fetch_object(&urls, &limited, &wanted).await;
        // What others fetched meanwhile counts too: rather so than not at all.
        allowance.came = mirror.pack_bytes().await.saturating_sub(before);
        let made = match found {
            Ok(head_commit) => merged(&mirror, &base, head_commit, head.made_at).await,
            Err(error) => Err(error),
        };
        // The merge keeps its head; what else came goes with the next packing.
        if let Err(error) = mirror.remove_ref(&scratch).await {
            tracing::warn!(repository = repository.address, "{scratch} stays in the mirror: {error}");
        }
        let Merged { head, merge, message, changed_paths } = made?;
        let relays = facts.relays;
        Ok(PullRequestRevision { base_branch, base, head, merge, message, changed_paths, relays, default_tip, mirror })
    }
}

async fn merged(mirror: &Mirror, base: &CommitId, head: CommitId, at: u64) -> Result<Merged, SourceError> {
    let not_yet = |error: GitError| SourceError::NotYet(error.to_string());
    let merge = mirror.merge(base, &head, at).await.map_err(not_yet)?;
    let since = mirror.merge_base(base.as_str(), head.as_str()).await;
    let changed_paths = match since {
        Some(since) => mirror.changed_paths(&since, head.as_str()).await.ok().flatten(),
        None => None,
    };
    let message = mirror.message(head.as_str()).await.map_err(not_yet)?;
    Ok(Merged { head, merge, message, changed_paths })
}

struct Merged {
    head: CommitId,
    merge: Merge,
    message: String,
    changed_paths: Option<Vec<String>>,
}

impl PullRequestRevision {
    /// The workflow files of one of its commits, beside those of its base.
    pub fn files(&self, commit: &CommitId) -> CommitFiles {
        CommitFiles {
            mirror: self.mirror.clone(),
            commit: commit.clone(),
            deciding: Some(self.base.clone()),
            default_tip: self.default_tip.clone(),
        }
    }
}

/// Short name of the branch that a pull request is to go into, and what the maintainers' state has there.
fn base_of(state: &State, named: Option<&str>) -> Result<(String, String), SourceError> {
    let full = match named {
        Some(short) => Some(format!("refs/heads/{short}")),
        None => state.default_branch().map(str::to_owned),
    };
    let found =
        full.as_deref().and_then(|full| Some((full.strip_prefix("refs/heads/")?.to_owned(), state.target(full)?)));
    let (short, target) = found.ok_or_else(|| {
        let name = named.unwrap_or("by default");
        SourceError::Refused(format!("the maintainers' state (30618) has no branch {name} that it could go into"))
    })?;
    Ok((short, target.to_owned()))
}

/// The pull request that an event is about; `None`: about none.
pub fn root_of(event: &Event) -> Option<String> {
    let kind = event.kind.as_u16();
    let root = match kind {
        PULL_REQUEST => return Some(event.id.to_hex()),
        UPDATE => value(event, "E")?,
        _ if STATUSES.contains(&kind) => {
            let named: Vec<&[String]> = tags(event, "e").collect();
            let root = named.iter().find(|tag| tag.get(3).is_some_and(|marker| marker == "root"));
            root.or(named.first())?.get(1)?
        }
        _ => return None,
    };
    EventId::from_hex(root).ok().map(|id| id.to_hex())
}

/// A pull request (kind 1618) of this repository; `None`: it is none, or not well-formed.
fn read_root(event: &Event, repository: &Repository, maintainers: &[String]) -> Option<PullRequest> {
    let is_ours = |address: &str| {
        let mut parts = address.splitn(3, ':');
        parts.next() == Some("30617")
            && parts.next().is_some_and(|key| key == repository.owner || maintainers.iter().any(|known| known == key))
            && parts.next() == Some(repository.identifier.as_str())
    };
    if event.kind.as_u16() != PULL_REQUEST || !values(event, "a").any(is_ours) {
        return None;
    }
    let base = value(event, "b").map(|name| name.strip_prefix("refs/heads/").unwrap_or(name));
    let base = match base {
        Some(name) if check_ref(&format!("refs/heads/{name}")).is_ok() => Some(name.to_owned()),
        Some(_) => return None,
        None => None,
    };
    let title = value(event, "subject").or_else(|| event.content.lines().next()).unwrap_or_default();
    Some(PullRequest {
        root: event.id.to_hex(),
        author: event.pubkey.to_hex(),
        made_at: event.created_at.as_secs(),
        title: cut(title.lines().next().unwrap_or_default(), TITLE).trim().to_owned(),
        body: cut(&event.content, BODY).to_owned(),
        labels: values(event, "t").take(LABELS).map(|label| cut(label, LABEL).to_owned()).collect(),
        base,
        branch: cut(value(event, "branch-name").unwrap_or_default(), TITLE).to_owned(),
        head: read_head(event)?,
        status: None,
    })
}

/// An update (kind 1619) of a pull request.
fn read_update(event: &Event, root: &str) -> Option<Head> {
    let is_it = event.kind.as_u16() == UPDATE && value(event, "E") == Some(root);
    if is_it { read_head(event) } else { None }
}

fn read_head(event: &Event) -> Option<Head> {
    let clones = tags(event, "clone").flat_map(|tag| tag.iter().skip(1));
    let clones = clones.filter(|url| !url.is_empty() && url.len() <= URL).take(CLONES).cloned().collect();
    Some(Head {
        commit: check_commit(value(event, "c")?).ok()?,
        event: event.id.to_hex(),
        kind: event.kind.as_u16(),
        made_at: event.created_at.as_secs(),
        clones,
    })
}

fn read_status(event: &Event, root: &str) -> Option<Status> {
    let state = PullRequestState::of_kind(event.kind.as_u16())?;
    (root_of(event).as_deref() == Some(root)).then(|| Status {
        state,
        event: event.id.to_hex(),
        author: event.pubkey.to_hex(),
        made_at: event.created_at.as_secs(),
    })
}

fn tags<'a>(event: &'a Event, name: &'a str) -> impl Iterator<Item = &'a [String]> {
    event.tags.iter().map(|tag| tag.as_slice()).filter(move |tag| tag.first().is_some_and(|first| first == name))
}

fn values<'a>(event: &'a Event, name: &'a str) -> impl Iterator<Item = &'a str> {
    tags(event, name).filter_map(|tag| tag.get(1)).map(String::as_str)
}

fn value<'a>(event: &'a Event, name: &'a str) -> Option<&'a str> {
    values(event, name).next()
}

fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
