//! What a run is of: the tags that every event about it has. Repository, commit, workflow file, and what started it.

use nostr::{EventId, PublicKey, Tag, TagKind};

use crate::tags::tag;

use super::event_tags::{EventTags, Malformed, event_id, is_object_id, is_sha256, key};

/// `a` tags, and `c` tags, of one event at most.
const REPOSITORIES: usize = 64;
const OBJECTS: usize = 8;
/// Bytes of a repository's identifier, of a workflow's path and of a ref.
const IDENTIFIER: usize = 256;
const PATH: usize = 512;
const REF: usize = 512;

/// An announcement (kind 30617) that an event names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepositoryAddress {
    /// Whose announcement.
    pub owner: PublicKey,
    /// `d`.
    pub identifier: String,
    /// Where it can be read; empty: not said.
    pub relay: String,
}

impl RepositoryAddress {
    /// `30617:<owner>:<d>`.
    pub fn address(&self) -> String {
        format!("30617:{}:{}", self.owner, self.identifier)
    }

    /// Reads an address.
    ///
    /// # Errors
    /// It is none of an announcement.
    pub fn parse(address: &str, relay: &str) -> Result<Self, Malformed> {
        let wrong = || Malformed::value("a", "the address of a repository (30617:<key>:<id>)", address);
        let mut parts = address.splitn(3, ':');
        let (Some("30617"), Some(owner), Some(identifier)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        if identifier.is_empty() || identifier.len() > IDENTIFIER {
            return Err(wrong());
        }
        let owner = PublicKey::from_hex(owner).map_err(|_| wrong())?;
        Ok(Self { owner, identifier: identifier.to_owned(), relay: relay.to_owned() })
    }

    /// Reads an `a` tag.
    pub(super) fn read(tag: &[String]) -> Result<Self, Malformed> {
        let text = |place: usize| tag.get(place).map(String::as_str).unwrap_or_default();
        Self::parse(text(1), text(2))
    }

    pub(super) fn tag(&self) -> Tag {
        match self.relay.as_str() {
            "" => tag("a", self.address()),
            relay => Tag::custom(TagKind::custom("a"), [self.address(), relay.to_owned()]),
        }
    }
}

/// A workflow file at the commit of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowFile {
    /// Its path.
    pub path: String,
    /// SHA-256 of its bytes, 64 hex.
    pub sha256: String,
}

/// The pull request that a run is of, in the tags of NIP-22.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequestContext {
    /// The pull request (kind 1618) and its author.
    pub root: (EventId, Option<PublicKey>),
    /// The event that named the commit: the pull request itself (1618), or an update of it (1619).
    pub parent: Option<(EventId, u16, Option<PublicKey>)>,
}

/// What a run's ref is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunContext {
    /// Nothing is said of it.
    Commit,
    /// A branch or a tag: `refs/…`.
    Ref(String),
    /// A pull request.
    PullRequest(PullRequestContext),
}

/// Why a run was started, in the words of these events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum StartedBy {
    /// A push of a branch or tag.
    Push,
    /// A pull request, or an update of one.
    PullRequest,
    /// A moment.
    Schedule,
    /// Somebody.
    Manual,
}

/// What a run is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSubject {
    /// The announcements of its repository: all of one identifier, at least one.
    pub repositories: Vec<RepositoryAddress>,
    /// The commit, and tag objects that stand for it behind it; at least one.
    pub objects: Vec<String>,
    /// The workflow.
    pub workflow: WorkflowFile,
    /// Its ref.
    pub context: RunContext,
}

impl RunSubject {
    /// Reads the tags that a manual trigger has: all but `o`.
    pub(super) fn read(tags: EventTags<'_>) -> Result<Self, Malformed> {
        let repositories: Vec<RepositoryAddress> =
            tags.all("a").take(REPOSITORIES + 1).map(RepositoryAddress::read).collect::<Result<_, _>>()?;
        let Some(first) = repositories.first() else { return Err(Malformed::Missing("a")) };
        if repositories.len() > REPOSITORIES {
            return Err(Malformed::Repeated("a"));
        }
        if repositories.iter().any(|other| other.identifier != first.identifier) {
            return Err(Malformed::SeveralRepositories);
        }
        let objects: Vec<String> = tags.values("c").take(OBJECTS + 1).map(str::to_owned).collect();
        if objects.is_empty() {
            return Err(Malformed::Missing("c"));
        }
        if objects.len() > OBJECTS {
            return Err(Malformed::Repeated("c"));
        }
        if let Some(wrong) = objects.iter().find(|object| !is_object_id(object)) {
            return Err(Malformed::value("c", "the id of a git object (40 or 64 hex)", wrong));
        }
        let workflow = tags.one("w")?;
        let text = |place: usize| workflow.get(place).map(String::as_str).unwrap_or_default();
        if text(1).is_empty() || text(1).len() > PATH {
            return Err(Malformed::value("w", "the path of a workflow file", text(1)));
        }
        if !is_sha256(text(2)) {
            return Err(Malformed::value("w", "a path with the SHA-256 of the file (64 hex)", text(2)));
        }
        let workflow = WorkflowFile { path: text(1).to_owned(), sha256: text(2).to_ascii_lowercase() };
        Ok(Self { repositories, objects, workflow, context: RunContext::read(tags)? })
    }

    /// The tags, in the order of the specification.
    pub(super) fn tags(&self, started_by: StartedBy) -> Vec<Tag> {
        let word: &'static str = started_by.into();
        let mut tags: Vec<Tag> = self.repositories.iter().map(RepositoryAddress::tag).collect();
        tags.extend(self.objects.iter().map(|object| tag("c", object)));
        tags.push(Tag::custom(TagKind::custom("w"), [&self.workflow.path, &self.workflow.sha256]));
        tags.push(tag("o", word));
        match &self.context {
            RunContext::Commit => {}
            RunContext::Ref(reference) => tags.push(tag("r", reference)),
            RunContext::PullRequest(of) => tags.extend(of.tags()),
        }
        tags
    }
}

impl RunContext {
    fn read(tags: EventTags<'_>) -> Result<Self, Malformed> {
        // Some clients copy a result's own `r` with the id of its run: only refs say something here.
        let mut refs = tags.values("r").filter(|value| value.starts_with("refs/"));
        let reference = refs.next();
        let root = tags.optional_value("E")?;
        match (reference, refs.next(), root) {
            (Some(_), Some(_), _) => Err(Malformed::Repeated("r")),
            (Some(_), None, Some(_)) => Err(Malformed::SeveralContexts),
            (Some(reference), None, None) if reference.len() <= REF => Ok(Self::Ref(reference.to_owned())),
            (Some(reference), None, None) => Err(Malformed::value("r", "a ref of a usual length", reference)),
            (None, _, None) => Ok(Self::Commit),
            (None, _, Some(root)) => Ok(Self::PullRequest(PullRequestContext::read(tags, root)?)),
        }
    }
}

impl PullRequestContext {
    fn read(tags: EventTags<'_>, root: &str) -> Result<Self, Malformed> {
        let author = tags.optional_value("P")?.map(|author| key("P", author)).transpose()?;
        if let Some(kind) = tags.optional_value("K")?.filter(|kind| *kind != "1618") {
            return Err(Malformed::value("K", "the kind of a pull request (1618)", kind));
        }
        let parent = tags.optional_value("e")?.map(|parent| event_id("e", parent)).transpose()?;
        let kind = match tags.optional_value("k")? {
            None | Some("1618") => 1618,
            Some("1619") => 1619,
            Some(other) => return Err(Malformed::value("k", "the kind of a pull request or of its update", other)),
        };
        Ok(Self { root: (event_id("E", root)?, author), parent: parent.map(|parent| (parent, kind, None)) })
    }

    fn tags(&self) -> Vec<Tag> {
        let (root, author) = &self.root;
        let mut tags = vec![tag("E", root.to_hex()), tag("K", "1618")];
        tags.extend(author.iter().map(|author| tag("P", author.to_hex())));
        if let Some((parent, kind, author)) = &self.parent {
            tags.extend([tag("e", parent.to_hex()), tag("k", kind.to_string())]);
            tags.extend(author.iter().map(|author| tag("p", author.to_hex())));
        }
        tags
    }
}
