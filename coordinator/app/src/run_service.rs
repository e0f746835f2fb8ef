//! The only writer of runs: an event in, its effects out, one transaction.

use std::sync::Arc;

use anyhow::Context;
use prometheus_client::registry::Registry;

use super::{
    effect_rows::{RowMaker, RunTransition},
    metrics::runs::{Observed, RunMetrics},
    repository_policy::RepositoryPolicy,
    run_secrets::{RunSecrets, StoredForJob},
    served_repositories::ServedRepositories,
    state_cache::{Snapshot, StateCache, WriteSet},
    unit_of_work::{self, Outcome, Sources},
};
use config::{Config, Definitions};
use domain::{
    id::{JobKey, RunId},
    run::{self, Millis, NewRun, Repository, Rerun, RunEvent, RunRefusal, RunRequest, RunRules, RunState},
    schedule::WaitUpdate,
};
use nostr_client::{outbox::Outbox, protocol::Secrets};
use secrecy::SecretString;
use store::{
    Batch, Change, RunChange, Store, StoreError, ValueContent,
    seal::{SealError, StoreKey},
};

/// Milliseconds of a day.
const DAY_MS: Millis = 24 * 3600 * 1000;

/// Changes runs. Clones share it.
#[derive(Clone)]
pub struct RunService(Arc<Inner>);

struct Inner {
    store: Store,
    cache: StateCache,
    secrets: RunSecrets,
    rows: RowMaker,
    served: ServedRepositories,
    config: Arc<Config>,
    metrics: RunMetrics,
    clock: fn() -> Millis,
}

/// What became of an event.
#[derive(Debug, Clone)]
pub enum Applied {
    /// The run is now so.
    Changed(Arc<RunState>),
    /// Nothing changed.
    Unchanged(RunRefusal),
}

/// What the writer of runs is built of.
pub struct RunServiceConfig {
    /// The database.
    pub store: Store,
    /// Seals the secrets of runs.
    pub store_key: StoreKey,
    /// Makes the events that report on runs.
    pub outbox: Outbox,
    /// Whose runs are reported job by job.
    pub served: ServedRepositories,
    /// The whole configuration: repositories have rules of their own.
    pub config: Arc<Config>,
    /// Unix milliseconds.
    pub clock: fn() -> Millis,
}

impl RunServiceConfig {
    /// The service; its metrics go into the registry.
    pub fn build(self, registry: &mut Registry) -> RunService {
        let Self { store, store_key, outbox, served, config, clock } = self;
        let secrets = RunSecrets { store: store.clone(), protocols: outbox.protocols(), store_key };
        let rows = RowMaker { outbox, config: config.clone() };
        let (cache, metrics) = (StateCache::default(), RunMetrics::new(registry));
        RunService(Arc::new(Inner { store, cache, secrets, rows, served, config, metrics, clock }))
    }
}

impl RunService {
    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Unix milliseconds.
    pub fn now(&self) -> Millis {
        (self.0.clock)()
    }

    /// Creates a run from a request and reports "queued" to its author, all in one transaction with `settle`, which
    /// marks the request as processed.
    ///
    /// # Errors
    /// [`StoreError::Seen`] where the request was processed before; the store can't be written, or the secrets can't be
    /// sealed.
    pub async fn accept(
        &self,
        request: RunRequest,
        rerun: Option<Rerun>,
        secrets: &Secrets,
        settle: Batch,
    ) -> anyhow::Result<Arc<RunState>> {
        let Inner { store, config, rows, served, .. } = &*self.0;
        let now = self.now();
        let id = RunId::from(uuid::Uuid::now_v7().to_string());
        let expires_at = now.saturating_add(config.keep_days.saturating_mul(DAY_MS));
        let mut counters = vec!["run".to_owned()];
        if rerun.is_none() {
            counters.push(format!("runs of {} in {}", request.workflow, request.repository.address));
        }
        let mut batch = settle;
        let carried = match &rerun {
            Some(rerun) => super::rerun_artifacts::artifacts(store, rerun, (&id, &request.actor), expires_at).await?,
            None => Batch::new(),
        };
        batch.extend(self.0.secrets.seal(&id, &request, secrets)?);
        let policy = RepositoryPolicy::new(config, &request.repository);
        let new = NewRun {
            id,
            serial: 0,
            number: rerun.as_ref().map_or(0, |rerun| rerun.number),
            rerun,
            secrets: secrets.names(),
            rules: RunRules { reports_jobs: served.reports(&request), ..policy.rules() },
            environments: policy.environments(),
            visibility: policy.visibility(),
            expires_at,
            request,
        };
        let (created, run) = tokio::sync::oneshot::channel();
        let rows = rows.clone();
        // Where events go is refreshed by tasks.
        let runtime = tokio::runtime::Handle::current();
        let numbered = move |numbers: &[u64]| {
            let _runtime = runtime.enter();
            let serial = numbers.first().copied().unwrap_or_default();
            let number = numbers.get(1).copied().unwrap_or(new.number);
            let (state, effects) = run::create(NewRun { serial, number, ..new }, now);
            let after = Arc::new(state);
            let transition = RunTransition { before: None, after: after.clone(), effects, publisher: None };
            batch.extend(rows.rows(transition, now).map_err(|error| format!("{error:#}"))?);
            // Behind the run: whom artifacts count for stands in its row.
            batch.extend(carried);
            // Whoever waited for it may have gone; the run is stored all the same.
            let _ = created.send(after);
            Ok(batch)
        };
        store.commit_numbered(counters, numbered).await?;
        let after = run.await.context("a run that was created is not told of")?;
        self.0.metrics.record(vec![Observed::of(None, &after, now)], now);
        Ok(after)
    }

    /// Applies an event to a run and commits the resulting changes, including those to other runs, together with `also`.
    /// Where nothing changes, `also` is committed all the same.
    ///
    /// # Errors
    /// There is no such run, or the store can't be read or written.
    pub async fn apply(&self, id: &RunId, event: RunEvent, also: Batch) -> anyhow::Result<Applied> {
        let Inner { store, cache, secrets, rows, .. } = &*self.0;
        loop {
            let sources = Sources { store, cache, secrets, rows, now: self.now() };
            let changes = match unit_of_work::compute(&sources, id, event.clone()).await? {
                Outcome::Commit(changes) => changes,
                Outcome::Refused { refusal, read } => {
                    if !self.is_stored(&read).await? {
                        continue;
                    }
                    if !also.is_empty() {
                        store.commit(also).await?;
                    }
                    return Ok(Applied::Unchanged(refusal));
                }
            };
            if !cache.publish(&changes.set) {
                continue;
            }
            let mut batch = changes.batch;
            batch.extend(also.iter().cloned());
            match self.write(changes.set, batch).await {
                Ok(()) => {
                    self.0.metrics.record(changes.observed, self.now());
                    return Ok(Applied::Changed(changes.state));
                }
                // Another process changed it, or the version before was not written: decided anew from the store.
                Err(StoreError::Stale(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Commits published versions. In a task of its own: a caller that goes away leaves no commit without its end.
    async fn write(&self, set: WriteSet, batch: Batch) -> Result<(), StoreError> {
        let this = self.clone();
        let writing = tokio::spawn(async move {
            let written = this.0.store.commit(batch).await;
            this.0.cache.finish(&set, written.is_ok());
            written
        });
        writing.await.unwrap_or(Err(StoreError::Stopped))
    }

    /// Whether what was read is the stored version, and survives a power failure. A refusal may be acted on only then:
    /// what it says was done before must not be lost with a failed commit, or be older than what another process wrote.
    async fn is_stored(&self, read: &Snapshot<RunState>) -> anyhow::Result<bool> {
        let Inner { store, cache, .. } = &*self.0;
        let (id, version) = (&read.state.id, read.state.version);
        if let Some(lineage) = read.lineage
            && !cache.is_committed(id, lineage, version).await
        {
            return Ok(false);
        }
        store.synced().await?;
        let is_newest = store.run_version(id).await? == Some(version);
        if !is_newest {
            cache.forget(id);
        }
        Ok(is_newest)
    }

    /// Writes why queued jobs still wait. One transaction, whatever their number.
    ///
    /// # Errors
    /// The store can't be written.
    pub async fn set_wait_reasons(&self, updates: Vec<WaitUpdate>) -> anyhow::Result<()> {
        Ok(self.0.store.commit(vec![Change::WaitReasons(updates)]).await?)
    }

    /// Ends a run that was answered before this database knew of it, without a second answer.
    ///
    /// # Errors
    /// The store can't be read or written.
    pub(super) async fn end_answered(&self, id: &RunId) -> anyhow::Result<()> {
        while let Some(mut state) = self.0.store.run(id).await? {
            if !state.answered {
                (state.answered, state.version) = (true, state.version + 1);
                match self.0.store.commit(vec![Change::Run(RunChange::whole(state))]).await {
                    Err(StoreError::Stale(_)) => continue,
                    written => written?,
                }
            }
            let by = "its answer, which an earlier database of this pool gave".to_owned();
            self.apply(id, RunEvent::Cancel { by }, Vec::new()).await?;
            break;
        }
        Ok(())
    }

    /// What came encrypted with a run's request; empty once erased.
    ///
    /// # Errors
    /// It can't be read, or not be opened with this store key.
    pub async fn secrets(&self, run: &RunId) -> anyhow::Result<Secrets> {
        self.0.secrets.open(run).await
    }

    /// What maintainers stored that a job may have.
    ///
    /// # Errors
    /// It can't be read, or not be opened with this store key.
    pub(super) async fn stored_for(&self, state: &RunState, job: &JobKey) -> anyhow::Result<StoredForJob> {
        self.0.secrets.stored_for(state, job).await
    }

    /// Seals a secret for a repository, or for an environment of it.
    ///
    /// # Errors
    /// It can't be sealed.
    pub(super) fn seal_stored(
        &self,
        repository: &str,
        environment: &str,
        name: &str,
        value: SecretString,
    ) -> Result<ValueContent, SealError> {
        self.0.secrets.seal_stored(repository, environment, name, value)
    }

    /// Which repositories are served.
    pub(super) fn served(&self) -> &ServedRepositories {
        &self.0.served
    }

    /// Makes the events that go to relays.
    pub(super) fn outbox(&self) -> &Outbox {
        &self.0.rows.outbox
    }

    /// What the operator lets definitions do in a repository.
    pub(super) fn definitions_policy(&self, repository: &Repository) -> Definitions {
        RepositoryPolicy::new(&self.0.config, repository).definitions()
    }
}
