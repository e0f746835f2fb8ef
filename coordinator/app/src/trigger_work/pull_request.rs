//! Looks at pull requests of followed repositories, and starts the workflows of what happened to them.
//!
//! Anybody can publish one. What is heard of those whom the repository does not know was admitted before it became a row
//! (see `following`); here their heads are fetched few at a time, in lanes of their authors, so that servers of their choice
//! keep nobody else waiting.

use std::time::Duration;

use anyhow::Context as _;
use nostr::Event;
use serde::{Deserialize, Serialize};
use triggers::{
    decision,
    outsider_rates::{RateExceeded, RateLimits},
    pull_request::{Activity, PullRequest, PullRequestState},
    skip,
};
use work::Outcome;
use workflow::{
    dialect::trigger::{EventDetails, PullRequestDetails, PullRequestSide, TriggerDecision, TriggerEvent},
    plan::Dialect,
};

use super::{NOT_SHOWN, TriggerTask, TriggerWork, address_of, later, started_once};
use crate::repository_policy::RepositoryPolicy;
use domain::{
    id::{CommitId, RunId},
    run::{Millis, OriginEvent, Repository, RunRequest, TriggerOrigin, TriggeringPullRequest},
};
use nostr_client::protocol::Secrets;
use planning::{npub, repository_name};
use source::{
    SourceError,
    merge::Merge,
    pull_request::{FetchAllowance, PullRequestRevision},
};
use store::{Change, ClaimedWork, NewWork, PullRequestChange, StoreError, WorkKind};

/// Heads of outsiders that are fetched at the same time: in all, and of one repository or author.
pub(in super::super) const FOREIGN_PLACES: [usize; 2] = [6, 2];
/// How long the servers of one such head may take.
const FOREIGN_TIME: Duration = Duration::from_secs(60);
/// How long such a head waits for its turn (ms), and how often it is looked whether that came where much was fetched lately.
const FOREIGN_WAIT: Millis = 2 * 3_600_000;
const FOREIGN_AGAIN: Millis = 5 * 60_000;
/// MiB that one fetch of such a head may bring, and all of them within an hour.
const FOREIGN_MIB: u32 = 64;
pub(in super::super) const FOREIGN_MIB_RATES: RateLimits = RateLimits { author: 128, repository: 512, all: 2048 };
/// Workflows that one event of an outsider's pull request starts at most.
const FOREIGN_RUNS: usize = 20;
/// Looks in vain for a repository's announcement; the next event looks again.
const TRIES: u32 = 12;
/// The events that pull requests start workflows of.
const EVENTS: [&str; 2] = ["pull_request", "pull_request_target"];

/// A look at a pull request that something was heard of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in super::super) struct PullRequestLook {
    pub(in super::super) repository: String,
    /// Id of its event.
    pub(in super::super) root: String,
    /// What was heard: relays may give it later than they tell of it.
    pub(in super::super) heard: Event,
}

/// Something that happened to a pull request, whose workflows are to be started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PullRequestStart {
    pub(super) repository: Repository,
    pub(super) activity: Activity,
    /// As it was then.
    pub(super) request: PullRequest,
    /// The head's commit before, where it moved.
    before: Option<String>,
    noticed_at: Millis,
}

impl PullRequestLook {
    /// As a row of work; however many events ask for it, it is one. Those of one author follow each other.
    pub(in super::super) fn row(self, now: Millis) -> Result<Change, StoreError> {
        let id = format!("pull request {} {}", self.repository, self.root);
        let lane = format!("{} by {}", self.repository, self.heard.pubkey);
        let row = NewWork::new(id, WorkKind::Trigger, None, now).in_lane(lane);
        Ok(row.with_payload(&TriggerTask::ReadPullRequest(Box::new(self)))?.into())
    }
}

impl PullRequestStart {
    fn row(self) -> Result<Change, StoreError> {
        let (_, cause, _) = self.request.cause(self.activity);
        let id = format!("{} {} of {} {cause}", self.activity.as_str(), self.request.root, self.repository.address);
        let lane = format!("{} requests of {}", self.repository.address, self.request.author);
        let row = NewWork::new(id, WorkKind::Trigger, None, self.noticed_at).in_lane(lane);
        Ok(row.with_payload(&TriggerTask::PullRequest(Box::new(self)))?.into())
    }
}

/// Why the head of an outsider is not fetched now.
enum NotNow {
    /// Others are.
    Busy,
    /// Enough was within this hour.
    Exceeded(RateExceeded),
}

/// Something that happened to a pull request, with all that its runs are made of.
struct Happened<'a> {
    start: &'a PullRequestStart,
    number: u64,
    revision: &'a PullRequestRevision,
    /// Whether its author is one of those whom the repository knows.
    is_known: bool,
}

impl TriggerWork {
    /// Takes over what a pull request is now, with a row for what happened to it.
    pub(super) async fn read_pull_request(&self, row: &ClaimedWork, look: PullRequestLook) -> anyhow::Result<Outcome> {
        let (store, now) = (self.run_service.store(), self.run_service.now());
        let done = || Ok(Outcome::Store(vec![row.complete()]));
        let PullRequestLook { repository: address, root, heard } = look;
        let Some((followed, _)) = store.followed_repository(&address).await? else { return done() };
        let repository = address_of(&followed)?;
        let stored = store.pull_request(&address, &root).await?;
        let known: Option<PullRequest> = match &stored {
            Some(stored) => Some(serde_json::from_str(&stored.state).context("a stored pull request can't be read")?),
            None => None,
        };
        let found = self.sources.published_pull_request(&repository, &root, known.clone(), Some(heard)).await;
        let found = match found {
            Ok(found) => found,
            Err(SourceError::NotYet(why) | SourceError::Refused(why)) if row.tries < TRIES => {
                return Ok(self.look_again(row, &why));
            }
            Err(error) => {
                tracing::info!(repository = address, root, "a pull request is not looked at: {error}");
                return done();
            }
        };
        let Some(request) = found.request else {
            // Its updates may be heard before it is.
            return match row.tries < NOT_SHOWN {
                true => Ok(self.look_again(row, "no relay has the pull request that an event is about")),
                false => done(),
            };
        };
        if known.as_ref() == Some(&request) {
            return done();
        }
        // What was there before the repository was followed starts nothing; what happens to it from now on does.
        let (_, newest) = newest_of(&request);
        let is_old = known.is_none() && newest.saturating_mul(1000) < followed.added_at;
        let activity = request.activity_since(known.as_ref()).filter(|_| !is_old);
        let change = PullRequestChange {
            repository: address.clone(),
            root: root.clone(),
            known: stored.map_or(0, |stored| stored.version),
            state: serde_json::to_string(&request)?,
            events: request.events(),
            at: now,
        };
        let mut batch = vec![change.into(), row.complete()];
        if let Some(activity) = activity {
            tracing::info!(
                repository = address,
                root,
                head = request.head.commit,
                "pull request {}",
                activity.as_str()
            );
            let repository = Repository { relays: found.relays, ..repository };
            let moved = activity == Activity::Synchronize;
            let before = known.filter(|_| moved).map(|known| known.head.commit);
            batch.push(PullRequestStart { repository, activity, request, before, noticed_at: now }.row()?);
        }
        Ok(Outcome::Store(batch))
    }

    /// Starts the workflows of something that happened to a pull request.
    pub(super) async fn start_pull_request(
        &self,
        row: &ClaimedWork,
        start: PullRequestStart,
    ) -> anyhow::Result<Outcome> {
        let done = || Ok(Outcome::Store(vec![row.complete()]));
        let store = self.run_service.store();
        let PullRequestStart { repository, request, activity, .. } = &start;
        let address = &repository.address;
        let Some((followed, _)) = store.followed_repository(address).await? else { return done() };
        let Some(stored) = store.pull_request(address, &request.root).await? else { return done() };
        let number = stored.number;
        self.end_held(&start, number).await?;
        let policy = RepositoryPolicy::new(&self.config, repository);
        let author = &request.author;
        let is_known = repository.owner == *author || followed.maintainers.contains(author) || policy.trusts(author);
        let found = match is_known {
            true => {
                let mut allowance = FetchAllowance { most: u64::MAX, time: None, came: 0 };
                self.sources.pull_request_revision(repository, request, &mut allowance).await
            }
            false => match self.foreign_revision(repository, request).await {
                Ok(found) => found,
                Err(NotNow::Busy) => {
                    return Ok(later(self, row, "heads of other pull requests are being fetched".into()));
                }
                Err(NotNow::Exceeded(why)) => {
                    let (why, now) = (format!("its head is not fetched: {why}"), self.run_service.now());
                    if now.saturating_sub(start.noticed_at) < FOREIGN_WAIT {
                        return Ok(Outcome::Store(vec![row.retry(now.saturating_add(FOREIGN_AGAIN), why)]));
                    }
                    Err(SourceError::Refused(why))
                }
            },
        };
        let revision = match found {
            Ok(revision) => revision,
            Err(SourceError::NotYet(why)) => return self.head_is_missing(row, &start, &stored.state, why),
            Err(SourceError::Refused(why)) => {
                tracing::warn!(repository = address, number, "a pull request starts nothing: {why}");
                return done();
            }
        };
        if let Some(problem) = store.low_space() {
            anyhow::bail!("no runs are begun now: {problem}");
        }
        let happened = Happened { start: &start, number, revision: &revision, is_known };
        let mut started = 0;
        for event in EVENTS {
            let Some(commit) = self.commit_of(&happened, event) else { continue };
            let starts = self.decide_pull_request(&happened, event, &commit).await?;
            let room = if is_known { usize::MAX } else { FOREIGN_RUNS };
            if starts.len() > room {
                let most = FOREIGN_RUNS;
                tracing::info!(
                    repository = address,
                    number,
                    "of an outsider's pull request no more than {most} workflows run"
                );
            }
            for path in starts.into_iter().take(room) {
                self.start_of_pull_request(&happened, event, &commit, &path).await?;
                started += 1;
            }
        }
        tracing::debug!(repository = address, number, started, "pull request {}", activity.as_str());
        if started == 0 {
            self.let_merge_go(&happened).await;
        }
        done()
    }

    /// The head of an outsider, fetched within what outsiders have. The outer error says why it is not fetched now.
    async fn foreign_revision(
        &self,
        repository: &Repository,
        request: &PullRequest,
    ) -> Result<Result<PullRequestRevision, SourceError>, NotNow> {
        let (author, address, now) = (&request.author, &repository.address, self.run_service.now());
        let _place = self.foreign_places.enter([address, author]).ok_or(NotNow::Busy)?;
        self.foreign.lock().take(author, address, FOREIGN_MIB, now).map_err(NotNow::Exceeded)?;
        let most = u64::from(FOREIGN_MIB) << 20;
        let mut allowance = FetchAllowance { most, time: Some(FOREIGN_TIME), came: 0 };
        let found = self.sources.pull_request_revision(repository, request, &mut allowance).await;
        let came = u32::try_from(allowance.came.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        self.foreign.lock().give_back(author, address, FOREIGN_MIB.saturating_sub(came), now);
        Ok(found)
    }

    /// The commit that an event runs; `None`: it runs none, for a reason that is logged.
    fn commit_of(&self, happened: &Happened<'_>, event: &str) -> Option<CommitId> {
        let Happened { start, number, revision, .. } = happened;
        if event == "pull_request_target" {
            return Some(revision.base.clone());
        }
        let (repository, head) = (&start.repository.address, &revision.head);
        if let Some(mark) = skip::mark(&revision.message) {
            tracing::info!(repository, number, %head, "its head says {mark}: nothing is started");
            return None;
        }
        match &revision.merge {
            Merge::Made(commit) => Some(commit.clone()),
            // What is merged runs as its base, which has it.
            Merge::Contained if start.activity == Activity::Closed => Some(revision.base.clone()),
            Merge::Contained => {
                tracing::info!(repository, number, %head, "its base has its head already: pull_request starts nothing");
                None
            }
            Merge::Conflict(paths) => {
                let (base, paths) = (&revision.base_branch, paths.join(", "));
                tracing::info!(repository, number, %head, "it conflicts with {base} in {paths}: pull_request starts nothing");
                None
            }
            Merge::Unrelated => {
                let base = &revision.base_branch;
                tracing::info!(repository, number, %head, "it has no commit of {base}: pull_request starts nothing");
                None
            }
        }
    }

    /// Waits for a head that no server has yet, unless another one took its place.
    fn head_is_missing(
        &self,
        row: &ClaimedWork,
        start: &PullRequestStart,
        stored: &str,
        why: String,
    ) -> anyhow::Result<Outcome> {
        let (repository, root, head) = (&start.repository.address, &start.request.root, &start.request.head.commit);
        let now_known: PullRequest = serde_json::from_str(stored).context("a stored pull request can't be read")?;
        if now_known.head.commit != *head {
            tracing::info!(
                repository,
                root,
                head,
                "a pull request starts nothing: a newer head came before this one did"
            );
            return Ok(Outcome::Store(vec![row.complete()]));
        }
        if !self.may_wait(start.noticed_at) {
            tracing::warn!(repository, root, head, "a pull request starts nothing: {why}");
            return Ok(Outcome::Store(vec![row.complete()]));
        }
        tracing::info!(repository, root, head, why, "a pull request waits for its head");
        Ok(later(self, row, why))
    }

    /// Paths of the workflow files of a commit that are started.
    async fn decide_pull_request(
        &self,
        happened: &Happened<'_>,
        event: &'static str,
        commit: &CommitId,
    ) -> anyhow::Result<Vec<String>> {
        let Happened { start, number, revision, .. } = happened;
        let files = self.files(revision.files(commit)).await?;
        let (reference, base) = (reference(event, *number, &revision.base_branch), revision.base_branch.clone());
        let (changed, action) = (revision.changed_paths.clone(), start.activity.as_str());
        let reading = tokio::task::spawn_blocking(move || {
            let event = TriggerEvent {
                name: event,
                reference: &reference,
                base_ref: Some(&base),
                changed_paths: changed.as_deref(),
                action: Some(action),
            };
            decision::decide(&files, &event)
        });
        let mut starts = Vec::new();
        for verdict in reading.await? {
            match verdict.decision {
                TriggerDecision::Starts => starts.push(verdict.path),
                TriggerDecision::Ignored(why) => {
                    let repository = &start.repository.address;
                    tracing::debug!(repository, number, event, workflow = verdict.path, why, "not started");
                }
            }
        }
        Ok(starts)
    }

    /// Starts one workflow; one that was started before is not again.
    async fn start_of_pull_request(
        &self,
        happened: &Happened<'_>,
        event: &str,
        commit: &CommitId,
        path: &str,
    ) -> anyhow::Result<()> {
        let Happened { start, number, revision, .. } = happened;
        let PullRequestStart { repository, request, activity, .. } = start;
        let now = self.run_service.now();
        let (kind, cause, _) = request.cause(*activity);
        let runs_base = event == "pull_request_target";
        let id = started_once(&[event, &repository.address, &request.root, activity.as_str(), cause, path]);
        let head_event = OriginEvent { kind: request.head.kind, id: request.head.event.clone() };
        let run_request = RunRequest {
            id: id.clone(),
            origin: TriggerOrigin {
                event: Some(OriginEvent { kind, id: cause.to_owned() }),
                relays: revision.relays.clone(),
            }
            .into(),
            repository: repository.clone(),
            workflow: path.to_owned(),
            commit: commit.to_string(),
            reference: Some(reference(event, *number, &revision.base_branch)),
            trigger: Some(event.to_owned()),
            payload: Some(Dialect::of_any_path(path).event_payload(&details(happened))),
            actor: request.author.clone(),
            pull_request: Some(Box::new(TriggeringPullRequest {
                number: *number,
                root: request.root.clone(),
                author: request.author.clone(),
                head: revision.head.to_string(),
                head_event,
                runs_base,
            })),
            received_at: now,
            ..RunRequest::default()
        };
        let settle = vec![Change::Seen { id, at: now }];
        match self.run_service.accept(run_request, None, &Secrets::default(), settle).await {
            Ok(state) => {
                let (run, serial) = (state.id.as_str(), state.serial);
                tracing::info!(run, serial, workflow = path, number, "started by a pull request");
                Ok(())
            }
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::Seen(_))) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A merge that no run is of needs no room.
    async fn let_merge_go(&self, happened: &Happened<'_>) {
        let Merge::Made(commit) = &happened.revision.merge else { return };
        let (repository, store) = (&happened.start.repository.address, self.run_service.store());
        let nobody = RunId::default();
        let is_used = store.commit_is_used(repository, commit.as_str(), &nobody);
        let gone = self.sources.forget(repository, commit.as_str(), is_used).await;
        if let Err(error) = gone {
            tracing::warn!(repository, %commit, "the merge of a pull request stays in its mirror: {error}");
        }
    }
}

/// The ref of a run: of the merge, or of the base whose code it is.
fn reference(event: &str, number: u64, base: &str) -> String {
    match event {
        "pull_request_target" => format!("refs/heads/{base}"),
        _ => format!("refs/pull/{number}/merge"),
    }
}

/// The newest event of a pull request, and when it was made (s).
fn newest_of(request: &PullRequest) -> (&str, u64) {
    let status = request.status.as_ref().map(|status| (status.event.as_str(), status.made_at));
    let head = (request.head.event.as_str(), request.head.made_at);
    status.filter(|(_, at)| *at > head.1).unwrap_or(head)
}

/// What workflows see of it.
fn details(happened: &Happened<'_>) -> EventDetails {
    let Happened { start, number, revision, is_known } = happened;
    let PullRequestStart { repository, request, activity, before, .. } = start;
    let (_, _, sender) = request.cause(*activity);
    let (own, owner, author) = (repository_name(repository), npub(&repository.owner), npub(&request.author));
    // What maintainers publish lies beside the repository's own branches.
    let (head_repository, head_owner) = match is_known {
        true => (own.clone(), owner.clone()),
        false => (format!("{author}/{}", repository.identifier), author.clone()),
    };
    let branch = match request.branch.as_str() {
        "" => format!("pr-{number}"),
        branch => branch.to_owned(),
    };
    let state = request.state();
    EventDetails::PullRequest(Box::new(PullRequestDetails {
        number: *number,
        action: activity.as_str(),
        title: request.title.clone(),
        body: request.body.clone(),
        author,
        sender: npub(sender),
        labels: request.labels.clone(),
        is_draft: state == PullRequestState::Draft,
        is_open: state.is_open(),
        is_merged: state == PullRequestState::Merged,
        head: PullRequestSide {
            branch,
            commit: revision.head.to_string(),
            repository: head_repository,
            owner: head_owner,
            is_fork: !is_known,
        },
        base: PullRequestSide {
            branch: revision.base_branch.clone(),
            commit: revision.base.to_string(),
            repository: own,
            owner,
            is_fork: false,
        },
        before: before.clone(),
        merge_commit: match &revision.merge {
            Merge::Made(commit) => Some(commit.to_string()),
            Merge::Contained => Some(revision.base.to_string()),
            Merge::Conflict(_) | Merge::Unrelated => None,
        },
        changed_files: revision.changed_paths.as_ref().map(Vec::len),
    }))
}
