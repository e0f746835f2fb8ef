//! A push as it is found: the repository's newest state, the pushed commit with its workflow files, and what it brought.

use nostr::Event;
use triggers::ref_changes::{RefChange, RefsState};
use workflow::dialect::trigger::{CommitDetails, PushDetails};

use super::{
    RepositoryMirrors, SourceError,
    announcement::State,
    commit_files::CommitFiles,
    git::{KnownCommit, Mirror},
    maintenance::remove_stale_locks,
};
use domain::{id::CommitId, run::Repository};

/// Where a repository's refs are, as relays say now.
#[derive(Debug, Clone)]
pub struct PublishedState {
    /// The newest valid state; `None`: no maintainer has published one.
    pub state: Option<RefsState>,
    /// Keys whose word counts, 64 hex, owner included.
    pub maintainers: Vec<String>,
    /// Relays of the repository, hints among them.
    pub relays: Vec<String>,
    /// Ids of the events that all this was read from, of those that count.
    pub events: Vec<String>,
}

/// A pushed commit that is here.
#[derive(Debug, Clone)]
pub struct PushedRevision {
    /// The commit that the ref stands for.
    pub commit: CommitId,
    /// Its message.
    pub message: String,
    /// What came with it.
    pub details: PushDetails,
    /// Paths that the push changed; `None`: not known, or too many.
    pub changed_paths: Option<Vec<String>>,
    /// Relays of the repository.
    pub relays: Vec<String>,
    /// Its files.
    pub files: CommitFiles,
}

impl RepositoryMirrors {
    /// Where a repository's refs are, as relays say now.
    ///
    /// # Errors
    /// No relay has its announcement.
    pub async fn published_state(&self, repository: &Repository) -> Result<PublishedState, SourceError> {
        let facts = self.announcements(repository).await?;
        let state = facts.newest_state.as_ref().zip(facts.state).map(|(event, state)| refs_state(event, &state));
        let announced = facts.announcements.iter().map(|event| event.id);
        let events = announced.chain(facts.states).map(|id| id.to_hex()).collect();
        Ok(PublishedState { state, maintainers: facts.maintainers, relays: facts.relays, events })
    }

    /// Brings the commit that a ref was pushed to, the default branch's, and the one before where a server still has it.
    ///
    /// # Errors
    /// [`SourceError::NotYet`] where the pushed commit is at none of the clone URLs.
    pub async fn pushed(&self, repository: &Repository, push: &RefChange) -> Result<PushedRevision, SourceError> {
        let after = push.after.as_deref().unwrap_or_default();
        let facts = self.announcements(repository).await?;
        let state = facts.state.clone().unwrap_or_default();
        let lock = self.repository_lock(&Mirror::name(&repository.address));
        let _held = lock.lock().await;
        let mirror = self.mirror(&repository.address).await?;
        remove_stale_locks(mirror.path());
        self.fetch_commit(&facts, &mirror, after, &push.reference).await?;
        let not_yet = |error: super::git::GitError| SourceError::NotYet(error.to_string());
        let known = mirror.keep_known(after, None).await.map_err(not_yet)?;
        let KnownCommit { commit, description, .. } =
            known.ok_or_else(|| SourceError::NotYet(format!("commit {after} went away again")))?;

        let default_branch = state.default_branch();
        let default_tip = default_branch.and_then(|name| state.target(name)).map(str::to_owned);
        let wanted: Vec<String> = default_tip.iter().chain(&push.before).cloned().collect();
        self.fetch_tips(&facts, &mirror, &wanted).await;
        let peeled = |object: Option<String>| {
            let mirror = &mirror;
            async move { mirror.peel(&object?).await }
        };
        let (default_tip, before) = tokio::join!(peeled(default_tip), peeled(push.before.clone()));
        let elsewhere = default_tip.as_ref().filter(|_| default_branch != Some(push.reference.as_str()));
        let span = Span { mirror: &mirror, commit: &commit, before: before.as_ref(), elsewhere };
        let forced = push.before.is_some() && !span.holds_before().await;
        let details = PushDetails {
            before: push.before.clone(),
            after: after.to_owned(),
            forced,
            commits: span.commits(push).await,
        };
        let changed_paths = span.changed_paths(push).await;
        let message = description.map(|(message, _)| message).unwrap_or_default();
        let deciding = default_tip.clone();
        let files = CommitFiles { mirror, commit: commit.clone(), deciding, default_tip };
        Ok(PushedRevision { commit, message, details, changed_paths, relays: facts.relays, files })
    }
}

/// From where to where a push goes.
struct Span<'a> {
    mirror: &'a Mirror,
    commit: &'a CommitId,
    before: Option<&'a CommitId>,
    /// The default branch's commit, of a push to another ref.
    elsewhere: Option<&'a CommitId>,
}

impl Span<'_> {
    async fn holds_before(&self) -> bool {
        // The whole history of the pushed commit is here.
        let Some(before) = self.before else { return false };
        // What can't be told in time is not said to be lost.
        self.mirror.holds(&[self.commit.as_str()], before.as_str()).await.unwrap_or(true)
    }

    /// Of a new branch, what the default branch does not have.
    async fn commits(&self, push: &RefChange) -> Vec<CommitDetails> {
        let without = match push.before {
            Some(_) => self.before,
            None => self.elsewhere,
        };
        // Without a commit to begin from it would be the whole history.
        let Some(without) = without else { return Vec::new() };
        self.mirror.commits(self.commit, &[without.as_str()]).await.unwrap_or_default()
    }

    /// Since the commit before, or since a new branch left the default branch (GitHub docs, "Workflow syntax", `paths`).
    async fn changed_paths(&self, push: &RefChange) -> Option<Vec<String>> {
        if push.is_tag() {
            return None;
        }
        let since = match push.before {
            Some(_) => self.before?.to_string(),
            None => self.mirror.merge_base(self.elsewhere?.as_str(), self.commit.as_str()).await?,
        };
        self.mirror.changed_paths(&since, self.commit.as_str()).await.ok()?
    }
}

fn refs_state(event: &Event, state: &State) -> RefsState {
    RefsState {
        event: event.id.to_hex(),
        author: event.pubkey.to_hex(),
        made_at: event.created_at.as_secs(),
        refs: state.targets().map(|(name, target)| (name.to_owned(), target.to_owned())).collect(),
        default_branch: state.default_branch().map(str::to_owned),
    }
}
