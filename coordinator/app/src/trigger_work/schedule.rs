//! Scheduled runs. Each line of `on: schedule` that the default branch has is a row of work, due at its next time.

use serde::{Deserialize, Serialize};
use triggers::{
    cron::Schedule,
    decision::{ScheduleLine, schedule_lines},
    ref_changes::{RefChange, RefsState},
};
use work::Outcome;
use workflow::{dialect::trigger::EventDetails, git_ref, plan::Dialect};

use super::{TriggerTask, TriggerWork, address_of, lane_of_runs, later, started_once, task_row};
use domain::run::{Millis, Repository, RunRequest, TriggerOrigin};
use nostr_client::protocol::Secrets;
use source::{Revision, SourceError};
use store::{Batch, Change, ClaimedWork, StoreError, WorkChange, WorkKind};

/// Lines of one repository that start workflows; others are left out.
const LINES: usize = 100;
/// A start is given up where its commit is not found so often, about ten minutes: the next one has its own time.
const TRIES: u32 = 22;

/// A look at the schedules of a repository's default branch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ScheduleLook {
    pub(super) repository: Repository,
    /// The default branch and its commit.
    pub(super) branch: String,
    pub(super) commit: String,
    pub(super) noticed_at: Millis,
}

/// A start that is due.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ScheduledStart {
    pub(super) repository: String,
    pub(super) line: ScheduleLine,
    pub(super) due: Millis,
}

/// What the ids of the rows of a repository's schedules begin with. Neither part holds a line's end.
fn prefix(repository: &str) -> String {
    format!("schedule {repository}\n")
}

impl ScheduleLook {
    /// The look that a new state asks for, where it moves the default branch.
    pub(super) fn of(
        repository: &Repository,
        known: Option<&RefsState>,
        state: &RefsState,
        noticed_at: Millis,
    ) -> Option<Self> {
        let tip = |state: &RefsState| {
            let branch = state.default_branch.clone()?;
            let commit = state.refs.get(&branch)?.clone();
            Some((branch, commit))
        };
        let now = tip(state)?;
        if known.and_then(tip).as_ref() == Some(&now) {
            return None;
        }
        let (branch, commit) = now;
        Some(Self { repository: repository.clone(), branch, commit, noticed_at })
    }

    /// As a row of work: of several looks at one repository the newest is enough.
    pub(super) fn row(self) -> Result<Change, StoreError> {
        let (address, at) = (self.repository.address.clone(), self.noticed_at);
        task_row(format!("schedules of {address}"), &address, at, &TriggerTask::ReadSchedules(self))
    }
}

impl ScheduledStart {
    fn id(&self) -> String {
        format!("{}{}\n{}", prefix(&self.repository), self.line.path, self.line.cron)
    }

    fn row(&self) -> Result<Change, StoreError> {
        let task = TriggerTask::Scheduled(self.clone());
        task_row(self.id(), &self.repository, self.due, &task)
    }
}

impl TriggerWork {
    /// Makes rows of the lines that are new, and removes those of lines that are gone. Those that stay keep their time.
    pub(super) async fn read_schedules(&self, row: &ClaimedWork, look: ScheduleLook) -> anyhow::Result<Outcome> {
        let store = self.run_service.store();
        let address = &look.repository.address;
        if store.followed_repository(address).await?.is_none() {
            return Ok(Outcome::Store(vec![row.complete()]));
        }
        let tip = Some(look.commit.clone());
        let there = RefChange { reference: look.branch.clone(), before: tip.clone(), after: tip };
        let revision = match self.sources.pushed(&look.repository, &there).await {
            Ok(revision) => revision,
            Err(SourceError::NotYet(why)) if self.may_wait(look.noticed_at) => return Ok(later(self, row, why)),
            Err(SourceError::NotYet(why) | SourceError::Refused(why)) => {
                tracing::warn!(repository = address, "its schedules stay as they were: {why}");
                return Ok(Outcome::Store(vec![row.complete()]));
            }
        };
        let files = self.files(revision.files).await?;
        let now = self.run_service.now();
        // What lines say, and when a time that there may never be comes, is their author's to choose.
        let reading = tokio::task::spawn_blocking(move || {
            let lines = schedule_lines(&files).into_iter().take(LINES);
            let due = |line: &ScheduleLine| Schedule::read(&line.cron)?.first_after(now);
            lines.map(|line| (due(&line), line)).collect::<Vec<_>>()
        });
        let lines = reading.await?;
        let in_lane = store.work_in_lane(WorkKind::Trigger, &lane_of_runs(address)).await?;
        let prefix = prefix(address);
        let known: Vec<String> = in_lane.into_iter().filter(|id| id.starts_with(&prefix)).collect();
        let mut batch: Batch = vec![row.complete()];
        let mut wanted = Vec::new();
        for (due, line) in lines {
            let Some(due) = due else {
                tracing::warn!(repository = address, workflow = line.path, cron = line.cron, "it never comes");
                continue;
            };
            let start = ScheduledStart { repository: address.clone(), line, due };
            wanted.push(start.id());
            if !known.contains(&start.id()) {
                batch.push(start.row()?);
            }
        }
        let gone = known.into_iter().filter(|id| !wanted.contains(id));
        batch.extend(gone.map(|id| Change::Work(WorkChange::Remove { id })));
        Ok(Outcome::Store(batch))
    }

    /// Starts a workflow whose time came; its row is due again at the next one. What passed while nobody looked is one
    /// start.
    pub(super) async fn start_scheduled(&self, row: &ClaimedWork, start: ScheduledStart) -> anyhow::Result<Outcome> {
        let (store, now) = (self.run_service.store(), self.run_service.now());
        let followed = store.followed_repository(&start.repository).await?;
        let (Some((followed, _)), Some(schedule)) = (followed, Schedule::read(&start.line.cron)) else {
            return Ok(Outcome::Store(vec![row.complete()]));
        };
        let next = schedule.next_after(start.due, now);
        let next = match next {
            Some(due) => ScheduledStart { due, ..start.clone() }.row()?,
            None => row.complete(),
        };
        let repository = address_of(&followed)?;
        let found = match self.sources.resolve(&repository, &Revision::default()).await {
            Ok(found) => found,
            Err(SourceError::NotYet(why)) if row.tries < TRIES => return Ok(later(self, row, why)),
            Err(SourceError::NotYet(why) | SourceError::Refused(why)) => {
                let (repository, workflow) = (&start.repository, &start.line.path);
                tracing::warn!(repository, workflow, "a scheduled start is given up: {why}");
                return Ok(Outcome::Store(vec![next]));
            }
        };
        if let Some(problem) = store.low_space() {
            anyhow::bail!("no runs are begun now: {problem}");
        }
        let ScheduledStart { repository: address, line, due } = &start;
        let id = started_once(&["schedule", address, &line.path, &line.cron, &due.to_string()]);
        let payload = Dialect::of_any_path(&line.path).event_payload(&EventDetails::Schedule(line.cron.clone()));
        let request = RunRequest {
            id: id.clone(),
            origin: TriggerOrigin { event: None, relays: found.relays.clone() }.into(),
            actor: repository.owner.clone(),
            repository: Repository { relays: found.relays.clone(), ..repository },
            workflow: line.path.clone(),
            commit: found.commit.to_string(),
            branch: git_ref::short_name(&found.reference).to_owned(),
            reference: Some(found.reference.clone()),
            trigger: Some("schedule".into()),
            payload: Some(payload),
            received_at: now,
            ..RunRequest::default()
        };
        // The next time is stored with this start, or with nothing.
        let settle = vec![Change::Seen { id, at: now }, next.clone()];
        match self.run_service.accept(request, None, &Secrets::default(), settle).await {
            Ok(state) => {
                tracing::info!(run = state.id.as_str(), serial = state.serial, workflow = line.path, "its time came");
                Ok(Outcome::Stored)
            }
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::Seen(_))) => Ok(Outcome::Store(vec![next])),
            Err(error) => Err(error),
        }
    }
}
