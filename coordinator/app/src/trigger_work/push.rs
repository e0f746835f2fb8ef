//! Starts the workflows of a ref that was pushed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use triggers::{
    decision::{self, Verdict},
    ref_changes::{RefChange, RefsState},
    skip,
};
use work::Outcome;
use workflow::{
    dialect::trigger::{EventDetails, TriggerDecision, TriggerEvent},
    git_ref,
    plan::Dialect,
};

use super::{TriggerTask, TriggerWork, later, started_once, task_row};
use domain::run::{Millis, OriginEvent, Repository, RunRequest, TriggerOrigin};
use nostr_client::protocol::Secrets;
use source::{SourceError, pushed::PushedRevision};
use store::{Change, ClaimedWork, StoreError};

/// Kind of the events that say where refs are.
const STATE: u16 = 30618;

/// A change of a ref whose workflows are to be started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Push {
    pub(super) repository: Repository,
    pub(super) change: RefChange,
    /// The state event that told of it, and its author.
    pub(super) event: String,
    pub(super) author: String,
    pub(super) noticed_at: Millis,
}

impl Push {
    /// As a row of work.
    pub(super) fn row(self) -> Result<Change, StoreError> {
        let (address, at) = (self.repository.address.clone(), self.noticed_at);
        let id = format!("push {address} {} {}", self.change.reference, self.event);
        task_row(id, &address, at, &TriggerTask::Push(self))
    }

    /// Id of the run of one workflow that it starts: the same whenever it is computed.
    fn request_id(&self, path: &str) -> String {
        let RefChange { reference, before, after } = &self.change;
        let [before, after] = [before, after].map(|object| object.as_deref().unwrap_or_default());
        started_once(&["push", &self.repository.address, reference, before, after, path, &self.event])
    }
}

impl TriggerWork {
    /// Starts the workflows of one change.
    pub(super) async fn start_pushed(&self, row: &ClaimedWork, push: Push) -> anyhow::Result<Outcome> {
        let done = || Ok(Outcome::Store(vec![row.complete()]));
        if self.run_service.store().followed_repository(&push.repository.address).await?.is_none() {
            return done();
        }
        let revision = match self.sources.pushed(&push.repository, &push.change).await {
            Ok(revision) => revision,
            Err(SourceError::NotYet(why)) => return self.commit_is_missing(row, &push, why).await,
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
    async fn commit_is_missing(&self, row: &ClaimedWork, push: &Push, why: String) -> anyhow::Result<Outcome> {
        let Push { repository, change, noticed_at, .. } = push;
        let (repository, reference, now) = (&repository.address, &change.reference, self.run_service.now());
        let known = self.run_service.store().followed_repository(repository).await?;
        let state = known.and_then(|(_, state)| serde_json::from_str::<RefsState>(&state).ok());
        if state.is_some_and(|state| state.refs.get(reference) != change.after.as_ref()) {
            tracing::info!(repository, reference, "a push starts nothing: a newer one came before its commit did");
            return Ok(Outcome::Store(vec![row.complete()]));
        }
        if !self.may_wait(*noticed_at) {
            let seconds = now.saturating_sub(*noticed_at) / 1000;
            tracing::warn!(repository, reference, "a push starts nothing: for {seconds} s {why}");
            return Ok(Outcome::Store(vec![row.complete()]));
        }
        tracing::info!(repository, reference, why, "a push waits for its commit");
        Ok(later(self, row, why))
    }

    /// Which workflow files of the commit are started.
    async fn decide(&self, push: &Push, revision: &Arc<PushedRevision>) -> anyhow::Result<Vec<Verdict>> {
        let (reference, changed) = (push.change.reference.clone(), revision.changed_paths.clone());
        let files = self.files(revision.files.clone()).await?;
        let reading = tokio::task::spawn_blocking(move || {
            let changed_paths = changed.as_deref();
            let event = TriggerEvent { name: "push", reference: &reference, changed_paths, ..TriggerEvent::default() };
            decision::decide(&files, &event)
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
