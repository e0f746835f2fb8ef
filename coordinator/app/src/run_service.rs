//! The only writer of runs: an event in, its effects out, one transaction.

use std::sync::Arc;

use anyhow::Context;
use nostr::{Keys, PublicKey};
use prometheus_client::registry::Registry;
use secrecy::{ExposeSecret, SecretString};

use super::{
    metrics::runs::{Observed, RunMetrics},
    unit_of_work::UnitOfWork,
};
use config::{self, Config, Definitions, RepositoryConfig, VisibilityConfig};
use domain::run::{
    self, Approvers, AttemptId, EnvironmentProtection, Millis, NewRun, Repository, RequestOrigin, Rerun, RunEffect,
    RunEvent, RunRefusal, RunRequest, RunRules, RunState, RunUpdate, Visibility,
};
use domain::schedule::QueuedJob;
use nostr_client::{
    hive_ci::{self, Draft, PUBLISHER_SECRET, Secrets},
    publish,
    routes::Routes,
};
use store::{
    Batch, Change, Lease, LeaseChange, RelayClass, Signer, Store, StoreError, Task, TaskKind,
    seal::{self, StoreKey},
};

/// Milliseconds of a day.
const DAY_MS: Millis = 24 * 3600 * 1000;

/// Store, clock and key together: what changes runs.
#[derive(Clone)]
pub struct RunService(Arc<Inner>);

struct Inner {
    store: Store,
    store_key: StoreKey,
    keys: Keys,
    routes: Routes,
    config: Arc<Config>,
    metrics: RunMetrics,
    clock: fn() -> Millis,
}

/// What became of an event.
#[derive(Debug, Clone)]
pub enum Applied {
    /// The run is now so.
    Changed(Box<RunState>),
    /// Nothing changed.
    Unchanged(RunRefusal),
}

impl RunService {
    /// `keys` are the coordinator's Nostr keys; `routes` says where events go; `clock` gives Unix milliseconds.
    pub fn new(
        store: Store,
        store_key: StoreKey,
        keys: Keys,
        routes: Routes,
        config: Arc<Config>,
        registry: &mut Registry,
        clock: fn() -> Millis,
    ) -> Self {
        let metrics = RunMetrics::new(registry);
        Self(Arc::new(Inner { store, store_key, keys, routes, config, metrics, clock }))
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Unix milliseconds.
    pub fn now(&self) -> Millis {
        (self.0.clock)()
    }

    /// Makes a run of a request and tells its author "queued", all in one transaction with `settle`, which makes this
    /// the only time that the request is taken in.
    ///
    /// # Errors
    /// [`StoreError::Seen`] where it was taken in before; the store can't be written, or the secrets can't be sealed.
    pub async fn accept(
        &self,
        request: RunRequest,
        rerun: Option<Rerun>,
        secrets: &Secrets,
        settle: Batch,
    ) -> anyhow::Result<RunState> {
        let Inner { store, store_key, config, .. } = &*self.0;
        let now = self.now();
        let id = uuid::Uuid::now_v7().to_string();
        let counter = format!("runs of {} in {}", request.workflow, request.repository.address);
        let new = NewRun {
            id: id.clone(),
            serial: store.next("run").await?,
            number: match &rerun {
                Some(rerun) => rerun.number,
                None => store.next(&counter).await?,
            },
            rerun,
            secrets: secrets.names(),
            rules: self.rules(&request),
            environments: self.environments(&request),
            visibility: self.visibility(&request),
            expires_at: now.saturating_add(config.keep_days.saturating_mul(DAY_MS)),
            request,
        };
        let (state, effects) = run::create(new, now);
        let mut batch = settle;
        if let Some(rerun) = &state.rerun {
            batch.extend(super::rerun_artifacts::artifacts(store, rerun, &state.id, state.expires_at).await?);
        }
        if !secrets.values.is_empty() || secrets.publisher.is_some() {
            let mut values = secrets.values.clone();
            if let Some(keys) = &secrets.publisher {
                values.push((PUBLISHER_SECRET.to_owned(), keys.secret_key().to_secret_hex().into()));
            }
            let (sealed, wrapped_key) = seal::seal(store_key, &id, &values)?;
            batch.push(Change::Secrets { run: id, sealed, wrapped_key });
        }
        batch.extend(self.changes(&state, effects, None)?);
        batch.extend(self.hooks(None, &state));
        store.commit(batch).await?;
        self.0.metrics.record(vec![Observed::of(None, &state, now)], now);
        Ok(state)
    }

    /// Tells a run of an event, and stores what follows from it for all runs, together with `also`, before it returns. Where
    /// nothing follows, `also` is stored all the same.
    ///
    /// # Errors
    /// There is no such run, or the store can't be read or written.
    pub async fn apply(&self, id: &str, event: RunEvent, also: Batch) -> anyhow::Result<Applied> {
        loop {
            let (applied, mut batch, observed) = UnitOfWork::of(self, id, event.clone()).await?;
            batch.extend(also.iter().cloned());
            if batch.is_empty() {
                return Ok(applied);
            }
            match self.0.store.commit(batch).await {
                Ok(()) => {
                    self.0.metrics.record(observed, self.now());
                    return Ok(applied);
                }
                // Somebody else told it something meanwhile: what follows is decided anew.
                Err(StoreError::Stale(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends a run that was answered before this database knew of it, without a second answer.
    ///
    /// # Errors
    /// The store can't be read or written.
    pub(super) async fn end_answered(&self, id: &str) -> anyhow::Result<()> {
        while let Some(mut state) = self.0.store.run(id).await? {
            if !state.answered {
                (state.answered, state.version) = (true, state.version + 1);
                match self.0.store.commit(vec![Change::Run(Box::new(state))]).await {
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

    /// Values that came with a run's request, the publisher key among them; empty once erased.
    ///
    /// # Errors
    /// They can't be opened with this store key.
    pub async fn secrets(&self, run: &str) -> anyhow::Result<Vec<(String, SecretString)>> {
        let Some(found) = self.0.store.secrets(run).await? else { return Ok(Vec::new()) };
        Ok(seal::open(&self.0.store_key, run, &found.sealed, &found.wrapped_key)?)
    }

    /// The key that signs the run's result, as long as it is kept.
    pub(super) async fn publisher_of(&self, state: &RunState) -> anyhow::Result<Option<Keys>> {
        match &state.request.origin {
            RequestOrigin::HiveCi { publisher: Some(_), .. } => self.publisher_key(&state.id).await,
            _ => Ok(None),
        }
    }

    /// The publisher key that came with a run's request; `None` once erased.
    ///
    /// # Errors
    /// As [`Self::secrets`].
    pub async fn publisher_key(&self, run: &str) -> anyhow::Result<Option<Keys>> {
        let secrets = self.secrets(run).await?;
        let found = secrets.iter().find(|(name, _)| name == PUBLISHER_SECRET);
        Ok(found.and_then(|(_, value)| Keys::parse(value.expose_secret()).ok()))
    }

    /// The rows of a new version of a run and of the effects that come with it.
    pub(super) fn changes(
        &self,
        state: &RunState,
        effects: Vec<RunEffect>,
        publisher: Option<&Keys>,
    ) -> anyhow::Result<Batch> {
        let (run, now) = (&state.id, self.now());
        let task =
            |name: String, kind, due| Change::Task(Task { id: format!("{run} {name}"), run: run.clone(), kind, due });
        let mut batch = vec![Change::Run(Box::new(state.clone()))];
        for effect in effects {
            match effect {
                RunEffect::Plan => batch.push(task("plan".into(), TaskKind::Plan { tries: 0 }, now)),
                RunEffect::Queue { job, labels, avoid, .. } => batch.push(Change::Queue(QueuedJob {
                    run: run.clone(),
                    job,
                    labels,
                    avoid,
                    owner: state.request.repository.address.clone(),
                    since: now,
                })),
                RunEffect::Unqueue { job, .. } => batch.push(Change::Unqueue { run: run.clone(), job }),
                RunEffect::Lease { job, attempt, worker } => batch.push(self.lease(state, job, attempt, worker).into()),
                RunEffect::EndLease { job, attempt } => {
                    batch.push(LeaseChange::End(attempt_id(run, job, attempt)).into());
                }
                RunEffect::Stop { job, attempt, reason, .. } => {
                    let confirm_by = now.saturating_add(self.0.config.lease_timeouts.confirm_ms);
                    let attempt = attempt_id(run, job, attempt);
                    batch.push(LeaseChange::Cancel { attempt, reason, confirm_by }.into());
                }
                // The groups' rows are made beside these, by the cascade.
                RunEffect::Join { .. } | RunEffect::Leave { .. } => {}
                RunEffect::Wake { job, at } => {
                    let name = format!("wake {job}");
                    batch.push(task(name, TaskKind::Wake { job }, at));
                }
                RunEffect::Timer { at } => batch.push(task("expire".into(), TaskKind::Expire, at)),
                RunEffect::Publish(update) => batch.extend(self.publish(state, &update, publisher)?),
                RunEffect::FinalizeLog => batch.push(task("seal".into(), TaskKind::FinalizeLog, now)),
                RunEffect::EraseSecrets => {
                    batch.push(Change::EraseSecrets { run: run.clone() });
                    batch.push(Change::TaskDone { id: format!("{run} expire") });
                }
            }
        }
        Ok(batch)
    }

    fn lease(&self, state: &RunState, job: String, attempt: u32, worker: String) -> LeaseChange {
        let (repository, term) = (&state.request.repository.address, self.0.config.lease_timeouts.lease_ms);
        LeaseChange::Begin(Lease {
            attempt: attempt_id(&state.id, job, attempt),
            worker,
            repository: repository.clone(),
            expires_at: self.now().saturating_add(term),
            cancel_reason: None,
            confirm_by: None,
        })
    }

    /// What webhooks are told of a change.
    pub(super) fn hooks(&self, before: Option<&RunState>, after: &RunState) -> Batch {
        let config = &self.0.config;
        webhooks::told(&config.webhooks, before, after, &config.public_url, self.now())
    }

    fn publish(&self, state: &RunState, update: &RunUpdate, publisher: Option<&Keys>) -> anyhow::Result<Batch> {
        if state.answered {
            return Ok(Batch::new());
        }
        let planned = state.planned.as_ref().map(|planned| planned.relays.as_slice()).unwrap_or_default();
        let relays = self.0.routes.to(&state.request, planned);
        let mut batch = Batch::new();
        for mut draft in hive_ci::report(&state.id, &state.request, update, &self.0.keys.public_key()) {
            // Signed now: the key is erased with this very transaction.
            if let (Signer::Publisher { .. }, Some(keys)) = (&draft.signer, publisher) {
                draft.sign(keys).context("the publisher key does not sign the run's result")?;
            }
            batch.extend(self.outgoing(&draft, &relays, Some(&state.id))?);
        }
        Ok(batch)
    }

    /// The rows of an event of ours and of its deliveries.
    ///
    /// # Errors
    /// It can't be signed.
    pub fn outgoing(&self, draft: &Draft, relays: &[(String, RelayClass)], run: Option<&str>) -> anyhow::Result<Batch> {
        publish::outgoing(draft, &self.0.keys, relays, run, self.now())
    }

    /// What the operator lets definitions do in a repository.
    pub(super) fn definitions_policy(&self, repository: &Repository) -> Definitions {
        let own = self.repository(repository).and_then(|found| found.definitions);
        own.unwrap_or(self.0.config.definitions.policy)
    }

    fn rules(&self, request: &RunRequest) -> RunRules {
        RunRules {
            max_duration_ms: self.0.config.policy.max_duration.saturating_mul(1000),
            retry_started: self.0.config.retry.started,
            maintainers_read: self.repository(&request.repository).is_some_and(|found| found.maintainers),
            one_worker: false,
        }
    }

    /// What protects environments of the request's repository, in the operator's order.
    fn environments(&self, request: &RunRequest) -> Vec<EnvironmentProtection> {
        let named = planning::repository_name(&request.repository);
        let is_meant = |one: &&config::Environment| {
            one.repository == "*" || one.repository == request.repository.address || one.repository == named
        };
        let protection = |one: &config::Environment| EnvironmentProtection {
            name: one.name.clone(),
            approvers: match &one.approvers {
                None => Approvers::Maintainers,
                Some(keys) if keys.is_empty() => Approvers::Nobody,
                Some(keys) => Approvers::Keys(self::keys(keys)),
            },
            wait_ms: one.wait_minutes.saturating_mul(60_000),
            branches: one.branches.clone(),
        };
        self.0.config.environments.iter().filter(is_meant).map(protection).collect()
    }

    fn visibility(&self, request: &RunRequest) -> Visibility {
        match self.repository(&request.repository) {
            Some(found) if found.visibility == VisibilityConfig::Readers => Visibility::Readers(keys(&found.readers)),
            _ => Visibility::Public,
        }
    }

    /// What the operator set for a repository, by address, by `<npub>/<d>`, or for all.
    fn repository(&self, repository: &Repository) -> Option<&RepositoryConfig> {
        let named = planning::repository_name(repository);
        let all = &self.0.config.repositories;
        all.get(&repository.address).or_else(|| all.get(&named)).or_else(|| all.get("*"))
    }
}

fn attempt_id(run: &str, job: String, number: u32) -> AttemptId {
    AttemptId { run: run.to_owned(), job, number }
}

/// Keys as configured, in hex.
fn keys(written: &[String]) -> Vec<String> {
    written.iter().filter_map(|key| PublicKey::parse(key).ok()).map(|key| key.to_hex()).collect()
}
