//! Starts workflows without anybody asking, as work of the store: looks where a repository's refs are and what schedules it
//! has, and the runs of what happened.

mod held_runs;
mod pull_request;
mod push;
mod schedule;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use triggers::{
    decision::CommittedWorkflow,
    outsider_rates::OutsiderRates,
    ref_changes::{self, Comparison, RefChange, RefsState},
};
use work::{BackOff, Outcome, WorkHandler};

pub(super) use self::pull_request::{FOREIGN_MIB_RATES, FOREIGN_PLACES, PullRequestLook};
use self::{
    pull_request::PullRequestStart,
    push::Push,
    schedule::{ScheduleLook, ScheduledStart},
};
use super::{places_by_key::PlacesByKey, run_service::RunService};
use config::Config;
use domain::run::{Millis, Repository};
use planning::repository_config::{self, RepositoryConfig};
use source::{RepositoryMirrors, SourceError, address::Address, commit_files::CommitFiles, pushed::PublishedState};
use store::{
    Batch, Change, ClaimedWork, FollowChange, FollowedRepository, LaneOrder, NewWork, RepositoryScan, StoreError,
    WorkKind,
};

/// Rows done at the same time: two of a repository at most, so that a place that hangs delays no other.
const AT_ONCE: u32 = 24;
/// Waits after a failure of our own, or while nothing is found of a repository.
const BACK_OFF: BackOff = BackOff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
/// Longest wait between two looks for a commit (ms).
const LONGEST_WAIT: Millis = 30_000;
/// So often a relay is asked again that told of a state and does not give it.
const NOT_SHOWN: u32 = 5;
/// Workflow files that are read at the same time, of so many repositories.
static READING: Semaphore = Semaphore::const_new(2);

/// What a row of this work is for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TriggerTask {
    /// Look where the refs of a repository are.
    ReadState(StateLook),
    /// Start the workflows of one ref that was pushed.
    Push(Push),
    /// Look which schedules a repository has.
    ReadSchedules(ScheduleLook),
    /// Start a workflow whose time came.
    Scheduled(ScheduledStart),
    /// Look what a pull request is now.
    ReadPullRequest(Box<PullRequestLook>),
    /// Start the workflows of something that happened to one.
    PullRequest(Box<PullRequestStart>),
}

/// A row that starts something of a repository. Those of one repository follow each other; looks don't wait for them.
fn task_row(id: String, repository: &str, due: Millis, task: &TriggerTask) -> Result<Change, StoreError> {
    let row = NewWork::new(id, WorkKind::Trigger, None, due).in_lane(lane_of_runs(repository));
    Ok(row.with_payload(task)?.into())
}

fn lane_of_runs(repository: &str) -> String {
    format!("{repository} runs")
}

/// Id of a run that is made once, whatever is repeated: of all that makes it what it is.
fn started_once(parts: &[&str]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, parts.join("\n").as_bytes()))
}

/// The row is due again in a while.
fn later(work: &TriggerWork, row: &ClaimedWork, why: String) -> Outcome {
    let wait = (1000_u64 << row.tries.saturating_sub(1).min(10)).min(LONGEST_WAIT);
    Outcome::Store(vec![row.retry(work.run_service.now().saturating_add(wait), why)])
}

/// A look that is due.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StateLook {
    pub(super) repository: String,
    /// The event that it is for, and when that was made (s); `None`: the first look.
    pub(super) event: Option<(String, u64)>,
}

impl StateLook {
    /// As a row of work; however many events ask for it, it is one.
    pub(super) fn row(self, now: Millis) -> Result<Change, StoreError> {
        let (id, lane) = (format!("state of {}", self.repository), self.repository.clone());
        let task = TriggerTask::ReadState(self);
        let row = NewWork::new(id, WorkKind::Trigger, None, now).in_lane(lane);
        Ok(row.with_payload(&task)?.into())
    }
}

/// What it is done with.
#[derive(Clone)]
pub(super) struct TriggerWork {
    pub(super) run_service: RunService,
    pub(super) sources: Arc<RepositoryMirrors>,
    pub(super) config: Arc<Config>,
    /// MiB that were fetched of outsiders' heads.
    pub(super) foreign: Arc<Mutex<OutsiderRates>>,
    /// Outsiders' heads that are being fetched.
    pub(super) foreign_places: Arc<PlacesByKey>,
}

impl TriggerWork {
    /// Takes over where the refs of a repository are, with a row for each that moved.
    async fn read_state(&self, row: &ClaimedWork, look: StateLook) -> anyhow::Result<Outcome> {
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
        let repository = &Repository { relays: relays.clone(), ..repository.clone() };
        let mut batch: Batch = Vec::new();
        let (state_event, stored) = match (state, compared) {
            (Some(state), Some(Comparison::Changed(changes))) => {
                for (change, author) in self.that_count(repository, &state, changes) {
                    let (repository, event) = (repository.clone(), state.event.clone());
                    batch.push(Push { repository, change, event, author, noticed_at: now }.row()?);
                }
                if let Some(look) = ScheduleLook::of(repository, known_state.as_ref(), &state, now) {
                    batch.push(look.row()?);
                }
                (state.event.clone(), serde_json::to_string(&state)?)
            }
            _ => (followed.state_event.clone(), known.to_owned()),
        };
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

    /// Whether a commit that is not there may still come.
    fn may_wait(&self, since: Millis) -> bool {
        self.run_service.now().saturating_sub(since) < self.config.source.wait.saturating_mul(1000)
    }

    /// The workflow files of a commit that start by themselves.
    async fn files(&self, commit: CommitFiles) -> anyhow::Result<Vec<CommittedWorkflow>> {
        let _turn = READING.acquire().await?;
        let (folders, limit) = (self.config.triggers.folders.clone(), self.config.limits.workflow_bytes);
        let reading = tokio::task::spawn_blocking(move || {
            let own = commit.default_branch_file(repository_config::PATH, limit);
            let own = own.and_then(|text| RepositoryConfig::read(&text).ok()).and_then(|own| own.workflows);
            commit.workflows(&own.unwrap_or(folders), limit)
        });
        Ok(reading.await?)
    }
}

/// A followed repository as it is looked for: with the relays that were known last.
pub(super) fn address_of(followed: &FollowedRepository) -> anyhow::Result<Repository> {
    match Address::parse(&followed.address) {
        Ok(Address::Known(repository)) => Ok(Repository { relays: followed.relays.clone(), ..repository }),
        _ => anyhow::bail!("{} is followed and is no address", followed.address),
    }
}

impl WorkHandler for TriggerWork {
    fn kind(&self) -> WorkKind {
        WorkKind::Trigger
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
            match row.read_payload()? {
                TriggerTask::ReadState(look) => self.read_state(row, look).await,
                TriggerTask::Push(push) => self.start_pushed(row, push).await,
                TriggerTask::ReadSchedules(look) => self.read_schedules(row, look).await,
                TriggerTask::Scheduled(start) => self.start_scheduled(row, start).await,
                TriggerTask::ReadPullRequest(look) => self.read_pull_request(row, *look).await,
                TriggerTask::PullRequest(start) => self.start_pull_request(row, *start).await,
            }
        }
        .boxed()
    }
}
