//! Starts workflows without anybody asking, as work of the store: a look where a repository's refs are, and the runs of
//! one change of a ref.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::future::{BoxFuture, FutureExt as _};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use triggers::{
    push::{self, Verdict},
    ref_changes::{self, Comparison, RefChange, RefsState},
    skip,
};
use work::{BackOff, Outcome, WorkHandler};
use workflow::{
    dialect::trigger::{EventDetails, TriggerDecision, TriggerEvent},
    git_ref,
    plan::Dialect,
};

use super::run_service::RunService;
use config::Config;
use domain::run::{Millis, OriginEvent, Repository, RunRequest, TriggerOrigin};
use nostr_client::protocol::Secrets;
use planning::repository_config::{self, RepositoryConfig};
use source::{
    RepositoryMirrors, SourceError,
    address::Address,
    pushed::{PublishedState, PushedRevision},
};
use store::{
    Batch, Change, ClaimedWork, FollowChange, FollowedRepository, LaneOrder, NewWork, RepositoryScan, StoreError,
    WorkKind,
};

/// Repositories looked at at the same time, and repositories whose changes are: a place that hangs delays no other.
const AT_ONCE: u32 = 16;
/// Waits after a failure of our own, or while nothing is found of a repository.
const BACK_OFF: BackOff = BackOff { first: Duration::from_secs(1), longest: Duration::from_secs(600) };
/// Longest wait between two looks for a commit (ms).
const LONGEST_WAIT: Millis = 30_000;
/// So often a relay is asked again that told of a state and does not give it.
const NOT_SHOWN: u32 = 5;
/// Workflow files of pushes that are read at the same time.
static READING: Semaphore = Semaphore::const_new(2);

/// Kind of the events that say where refs are.
const STATE: u16 = 30618;

/// A look that is due.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StateLook {
    pub(super) repository: String,
    /// The event that it is for, and when that was made (s); `None`: the first look.
    pub(super) event: Option<(String, u64)>,
}

impl StateLook {
    /// As a row of work; however many events ask for it, it is one.
    pub(super) fn row(&self, now: Millis) -> Result<Change, StoreError> {
        let id = format!("state of {}", self.repository);
        let row = NewWork::new(id, WorkKind::ReadState, None, now).in_lane(&self.repository);
        Ok(row.with_payload(self)?.into())
    }
}

/// A change of a ref whose workflows are to be started.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Push {
    repository: Repository,
    change: RefChange,
    /// The state event that told of it, and its author.
    event: String,
    author: String,
    noticed_at: Millis,
}

impl Push {
    fn row(&self) -> Result<Change, StoreError> {
        let id = format!("push {} {} {}", self.repository.address, self.change.reference, self.event);
        let row = NewWork::new(id, WorkKind::StartWorkflows, None, self.noticed_at).in_lane(&self.repository.address);
        Ok(row.with_payload(self)?.into())
    }

    /// Id of the run of one workflow that it starts: the same whenever it is computed.
    fn request_id(&self, path: &str) -> String {
        let RefChange { reference, before, after } = &self.change;
        let [before, after] = [before, after].map(|object| object.as_deref().unwrap_or_default());
        let parts = ["push", &self.repository.address, reference, before, after, path, &self.event];
        hex::encode(ring::digest::digest(&ring::digest::SHA256, parts.join("\n").as_bytes()))
    }
}

/// What it is done with.
#[derive(Clone)]
pub(super) struct TriggerWork {
    pub(super) run_service: RunService,
    pub(super) sources: Arc<RepositoryMirrors>,
    pub(super) config: Arc<Config>,
}

/// Does one of the two kinds of work.
struct TriggerHandler {
    kind: WorkKind,
    work: TriggerWork,
}

impl TriggerWork {
    /// A handler for each kind.
    pub(super) fn handlers(self) -> Vec<Arc<dyn WorkHandler>> {
        let handler = |kind| Arc::new(TriggerHandler { kind, work: self.clone() }) as Arc<dyn WorkHandler>;
        [WorkKind::ReadState, WorkKind::StartWorkflows].map(handler).into()
    }

    /// Takes over where the refs of a repository are, with a row for each that moved.
    async fn read_state(&self, row: &ClaimedWork) -> anyhow::Result<Outcome> {
        let look: StateLook = row.read_payload()?;
        let (store, now) = (self.run_service.store(), self.run_service.now());
        let Some((followed, known)) = store.followed_repository(&look.repository).await? else {
            return Ok(Outcome::Store(vec![row.complete()]));
        };
        let repository = address_of(&followed)?;
        let found = match self.sources.published_state(&repository).await {
            Ok(found) => found,
            Err(SourceError::NotYet(why) | SourceError::Refused(why)) => return Ok(self.look_again(row, &why)),
        };
        if let Some((event, made_at)) = look.event.filter(|_| row.tries < NOT_SHOWN) {
            let shown = found.events.contains(&event);
            let newer = found.state.as_ref().is_none_or(|state| state.made_at < made_at);
            if !shown && newer {
                return Ok(self.look_again(row, "a relay tells of a newer event than it gives"));
            }
        }
        if known.is_empty() && found.state.is_some() {
            let repository = &repository.address;
            tracing::info!(repository, "a repository is followed: its refs are known, what moves from now on runs");
        }
        let mut batch = self.taken_over(&repository, &followed, &known, found, now)?;
        batch.push(row.complete());
        Ok(Outcome::Store(batch))
    }

    fn look_again(&self, row: &ClaimedWork, why: &str) -> Outcome {
        tracing::debug!(id = row.id, why, "a repository's state is looked for again");
        let wait = Millis::try_from(BACK_OFF.delay(row.tries).as_millis()).unwrap_or(LONGEST_WAIT);
        Outcome::Store(vec![row.retry(self.run_service.now().saturating_add(wait), why)])
    }

    /// The rows of what a look found.
    fn taken_over(
        &self,
        repository: &Repository,
        followed: &FollowedRepository,
        known: &str,
        found: PublishedState,
        now: Millis,
    ) -> anyhow::Result<Batch> {
        let known_state = match known {
            "" => None,
            text => Some(serde_json::from_str::<RefsState>(text).context("a stored state can't be read")?),
        };
        let PublishedState { state, maintainers, relays, events } = found;
        let compared = state.as_ref().map(|state| state.compare(known_state.as_ref(), &maintainers));
        let (state_event, stored, changes) = match (state, compared) {
            (Some(state), Some(Comparison::Changed(changes))) => {
                let changes = self.that_count(repository, &state, changes);
                (state.event.clone(), serde_json::to_string(&state)?, changes)
            }
            _ => (followed.state_event.clone(), known.to_owned(), Vec::new()),
        };
        let mut batch: Batch = Vec::new();
        for (change, author) in changes {
            let event = state_event.clone();
            let repository = Repository { relays: relays.clone(), ..repository.clone() };
            batch.push(Push { repository, change, event, author, noticed_at: now }.row()?);
        }
        let moved = maintainers != followed.maintainers || relays != followed.relays;
        batch.push(
            FollowChange::Looked(RepositoryScan {
                address: repository.address.clone(),
                known: followed.state_event.clone(),
                state_event,
                state: stored,
                maintainers,
                relays,
                events,
                moved,
            })
            .into(),
        );
        Ok(batch)
    }

    fn that_count(
        &self,
        repository: &Repository,
        state: &RefsState,
        changes: Vec<RefChange>,
    ) -> Vec<(RefChange, String)> {
        let (changes, tags) = ref_changes::that_count(changes);
        let repository = &repository.address;
        if tags > 0 {
            tracing::info!(repository, tags, "more than three tags came at a time: they start no workflows");
        }
        for change in &changes {
            tracing::info!(repository, reference = change.reference, after = change.after, "pushed");
        }
        changes.into_iter().map(|change| (change, state.author.clone())).collect()
    }

    /// Starts the workflows of one change.
    async fn start_workflows(&self, row: &ClaimedWork) -> anyhow::Result<Outcome> {
        let push: Push = row.read_payload()?;
        let done = || Ok(Outcome::Store(vec![row.complete()]));
        if self.run_service.store().followed_repository(&push.repository.address).await?.is_none() {
            return done();
        }
        let revision = match self.sources.pushed(&push.repository, &push.change).await {
            Ok(revision) => revision,
            Err(SourceError::NotYet(why)) => return self.commit_is_missing(row, &push, &why).await,
            Err(SourceError::Refused(why)) => {
                tracing::warn!(repository = push.repository.address, "a push starts nothing: {why}");
                return done();
            }
        };
        let (repository, reference) = (&push.repository.address, &push.change.reference);
        if let Some(mark) = skip::mark(&revision.message) {
            tracing::info!(repository, reference, commit = %revision.commit, "its commit says {mark}: nothing is started");
            return done();
        }
        if let Some(problem) = self.run_service.store().low_space() {
            anyhow::bail!("no runs are begun now: {problem}");
        }
        let revision = Arc::new(revision);
        for verdict in self.decide(&push, &revision).await? {
            match verdict.decision {
                TriggerDecision::Starts => self.start(&push, &revision, &verdict.path).await?,
                TriggerDecision::Ignored(why) => {
                    tracing::debug!(repository, reference, workflow = verdict.path, why, "not started");
                }
            }
        }
        done()
    }

    /// Waits for a commit that servers don't have yet, unless another one took its place.
    async fn commit_is_missing(&self, row: &ClaimedWork, push: &Push, why: &str) -> anyhow::Result<Outcome> {
        let Push { repository, change, noticed_at, .. } = push;
        let (repository, reference, now) = (&repository.address, &change.reference, self.run_service.now());
        let known = self.run_service.store().followed_repository(repository).await?;
        let state = known.and_then(|(_, state)| serde_json::from_str::<RefsState>(&state).ok());
        if state.is_some_and(|state| state.refs.get(reference) != change.after.as_ref()) {
            tracing::info!(repository, reference, "a push starts nothing: a newer one came before its commit did");
            return Ok(Outcome::Store(vec![row.complete()]));
        }
        let waited = now.saturating_sub(*noticed_at);
        if waited >= self.config.source.wait.saturating_mul(1000) {
            let seconds = waited / 1000;
            tracing::warn!(repository, reference, "a push starts nothing: for {seconds} s {why}");
            return Ok(Outcome::Store(vec![row.complete()]));
        }
        tracing::info!(repository, reference, why, "a push waits for its commit");
        let wait = (1000_u64 << row.tries.saturating_sub(1).min(10)).min(LONGEST_WAIT);
        Ok(Outcome::Store(vec![row.retry(now.saturating_add(wait), why)]))
    }

    /// Which workflow files of the commit are started.
    async fn decide(&self, push: &Push, revision: &Arc<PushedRevision>) -> anyhow::Result<Vec<Verdict>> {
        let _turn = READING.acquire().await?;
        let (folders, limit) = (self.config.triggers.folders.clone(), self.config.limits.workflow_bytes);
        let (reference, revision) = (push.change.reference.clone(), revision.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let own = revision.default_branch_file(repository_config::PATH, limit);
            let own = own.and_then(|text| RepositoryConfig::read(&text).ok()).and_then(|own| own.workflows);
            let files = revision.files(&own.unwrap_or(folders), limit);
            let changed_paths = revision.changed_paths.as_deref();
            let event = TriggerEvent { name: "push", reference: &reference, changed_paths, ..TriggerEvent::default() };
            push::decide(&files, &event)
        });
        Ok(reading.await?)
    }

    /// Starts one workflow; one that was started before is not again.
    async fn start(&self, push: &Push, revision: &PushedRevision, path: &str) -> anyhow::Result<()> {
        let dialect = Dialect::of_any_path(path);
        let id = push.request_id(path);
        let event = Some(OriginEvent { kind: STATE, id: push.event.clone() });
        let now = self.run_service.now();
        let request = RunRequest {
            id: id.clone(),
            origin: TriggerOrigin { event, relays: revision.relays.clone() }.into(),
            repository: push.repository.clone(),
            workflow: path.to_owned(),
            commit: revision.commit.to_string(),
            branch: git_ref::short_name(&push.change.reference).to_owned(),
            reference: Some(push.change.reference.clone()),
            trigger: Some("push".into()),
            payload: Some(dialect.event_payload(&EventDetails::Push(revision.details.clone()))),
            actor: push.author.clone(),
            received_at: now,
            ..RunRequest::default()
        };
        let settle = vec![Change::Seen { id, at: now }];
        match self.run_service.accept(request, None, &Secrets::default(), settle).await {
            Ok(state) => {
                tracing::info!(run = state.id.as_str(), serial = state.serial, workflow = path, "started by a push");
                Ok(())
            }
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::Seen(_))) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A followed repository as it is looked for: with the relays that were known last.
pub(super) fn address_of(followed: &FollowedRepository) -> anyhow::Result<Repository> {
    match Address::parse(&followed.address) {
        Ok(Address::Known(repository)) => Ok(Repository { relays: followed.relays.clone(), ..repository }),
        _ => anyhow::bail!("{} is followed and is no address", followed.address),
    }
}

impl WorkHandler for TriggerHandler {
    fn kind(&self) -> WorkKind {
        self.kind
    }

    fn parallelism(&self) -> u32 {
        AT_ONCE
    }

    fn lanes(&self) -> LaneOrder {
        LaneOrder::OneAtATime
    }

    fn acts_outside(&self) -> bool {
        // What is read is asked for again, and runs are rows.
        false
    }

    fn back_off(&self) -> BackOff {
        BACK_OFF
    }

    fn handle(&self, rows: Vec<ClaimedWork>) -> BoxFuture<'_, anyhow::Result<Outcome>> {
        async move {
            let row = rows.first().context("a claim has a row")?;
            match self.kind {
                WorkKind::ReadState => self.work.read_state(row).await,
                _ => self.work.start_workflows(row).await,
            }
        }
        .boxed()
    }
}
