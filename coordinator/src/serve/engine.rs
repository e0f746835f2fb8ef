//! The only writer of runs: an event in, its effects out, one transaction.

use std::sync::Arc;

use anyhow::Context;
use nostr::{JsonUtil, Keys, PublicKey};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    config::{Config, RepositoryConfig, VisibilityConfig},
    nostr::hive_ci::{self, Draft, PUBLISHER_SECRET, Secrets},
    run::{self, Effect, Event, Millis, New, Origin, Phase, Refused, Request, Rules, State, Update, Visibility},
    store::{
        Batch, Change, Outgoing, Queued, RelayClass, Signer, Store, StoreError, Task, TaskKind,
        seal::{self, StoreKey},
    },
};

/// Milliseconds of a day.
const DAY_MS: Millis = 24 * 3600 * 1000;

/// Store, clock and key together: what changes runs.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    store: Store,
    store_key: StoreKey,
    us: PublicKey,
    config: Arc<Config>,
    clock: fn() -> Millis,
}

/// What became of an event.
#[derive(Debug, Clone)]
pub enum Applied {
    /// The run is now so.
    Changed(Box<State>),
    /// Nothing changed.
    Unchanged(Refused),
}

impl Engine {
    /// `us` is the coordinator's Nostr key; `clock` gives Unix milliseconds.
    pub fn new(store: Store, store_key: StoreKey, us: PublicKey, config: Arc<Config>, clock: fn() -> Millis) -> Self {
        Self(Arc::new(Inner { store, store_key, us, config, clock }))
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Unix milliseconds.
    pub fn now(&self) -> Millis {
        (self.0.clock)()
    }

    /// Makes a run of a request and tells its author "queued", all in one transaction with the request's id.
    ///
    /// `None`: the request was taken in before.
    ///
    /// # Errors
    /// The store can't be written, or the secrets can't be sealed.
    pub async fn accept(&self, request: Request, secrets: &Secrets) -> anyhow::Result<Option<State>> {
        let Inner { store, store_key, config, .. } = &*self.0;
        let now = self.now();
        let id = uuid::Uuid::now_v7().to_string();
        let counter = format!("runs of {} in {}", request.workflow, request.repository.address);
        let new = New {
            id: id.clone(),
            serial: store.next("run").await?,
            number: store.next(&counter).await?,
            attempt: 1,
            previous: None,
            secrets: !secrets.values.is_empty(),
            rules: self.rules(&request),
            visibility: self.visibility(&request),
            expires_at: now.saturating_add(config.keep_days.saturating_mul(DAY_MS)),
            request,
        };
        let seen = new.request.id.clone();
        let (state, effects) = run::create(new, now);
        let mut batch: Batch = vec![Change::Seen { id: seen, at: now }];
        if !secrets.values.is_empty() || secrets.publisher.is_some() {
            let mut values = secrets.values.clone();
            if let Some(keys) = &secrets.publisher {
                values.push((PUBLISHER_SECRET.to_owned(), keys.secret_key().to_secret_hex().into()));
            }
            let (sealed, wrapped_key) = seal::seal(store_key, &id, &values)?;
            batch.push(Change::Secrets { run: id, sealed, wrapped_key });
        }
        batch.extend(self.changes(&state, effects, None)?);
        match store.commit(batch).await {
            Ok(()) => Ok(Some(state)),
            Err(StoreError::Seen(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells a run of an event, and stores what follows from it, together with `also`, before it returns. Where
    /// nothing follows, `also` is stored all the same.
    ///
    /// # Errors
    /// There is no such run, or the store can't be read or written.
    pub async fn apply(&self, id: &str, event: Event, also: Batch) -> anyhow::Result<Applied> {
        let store = &self.0.store;
        loop {
            let state = store.run(id).await?.with_context(|| format!("there is no run {id}"))?;
            let (state, effects) = match run::advance(&state, event.clone(), self.now()) {
                Ok(next) => next,
                Err(refused) => {
                    if !also.is_empty() {
                        store.commit(also).await?;
                    }
                    return Ok(Applied::Unchanged(refused));
                }
            };
            let publisher = match &state.phase {
                Phase::Done { .. } => self.publisher(&state).await?,
                _ => None,
            };
            let mut batch = self.changes(&state, effects, publisher.as_ref())?;
            batch.extend(also.iter().cloned());
            match store.commit(batch).await {
                Ok(()) => return Ok(Applied::Changed(Box::new(state))),
                // Somebody else told it something meanwhile: what follows is decided anew.
                Err(StoreError::Stale(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Values that came with a run's request, the publisher key among them; empty once erased.
    ///
    /// # Errors
    /// They can't be opened with this store key.
    pub async fn secrets(&self, run: &str) -> anyhow::Result<Vec<(String, SecretString)>> {
        let Some(found) = self.0.store.secrets(run).await? else { return Ok(Vec::new()) };
        Ok(seal::open(&self.0.store_key, run, &found.sealed, &found.wrapped_key)?)
    }

    async fn publisher(&self, state: &State) -> anyhow::Result<Option<Keys>> {
        if !matches!(&state.request.origin, Origin::HiveCi { publisher: Some(_), .. }) {
            return Ok(None);
        }
        let secrets = self.secrets(&state.id).await?;
        let found = secrets.iter().find(|(name, _)| name == PUBLISHER_SECRET);
        Ok(found.and_then(|(_, value)| Keys::parse(value.expose_secret()).ok()))
    }

    /// The rows of a new version of a run and of the effects that come with it.
    fn changes(&self, state: &State, effects: Vec<Effect>, publisher: Option<&Keys>) -> anyhow::Result<Batch> {
        let (run, now) = (&state.id, self.now());
        let task = |name: String, kind, due| Change::Task(Task { id: format!("{run} {name}"), run: run.clone(), kind, due });
        let mut batch = vec![Change::Run(Box::new(state.clone()))];
        for effect in effects {
            match effect {
                Effect::Plan => batch.push(task("plan".into(), TaskKind::Plan { tries: 0 }, now)),
                Effect::Queue { job, labels, avoid, .. } => batch.push(Change::Queue(Queued {
                    run: run.clone(),
                    job,
                    labels,
                    avoid,
                    owner: state.request.repository.address.clone(),
                    since: now,
                })),
                Effect::Unqueue { job, .. } => batch.push(Change::Unqueue { run: run.clone(), job }),
                Effect::Stop { job, attempt, worker, reason } => {
                    let name = format!("stop {job} {attempt}");
                    batch.push(task(name, TaskKind::Stop { job, attempt, worker, reason }, now));
                }
                Effect::Timer { at } => batch.push(task("expire".into(), TaskKind::Expire, at)),
                Effect::Publish(update) => batch.extend(self.publish(state, &update, publisher)?),
                Effect::Seal => batch.push(task("seal".into(), TaskKind::Seal, now)),
                Effect::EraseSecrets => {
                    batch.push(Change::EraseSecrets { run: run.clone() });
                    batch.push(Change::TaskDone { id: format!("{run} expire") });
                }
            }
        }
        Ok(batch)
    }

    fn publish(&self, state: &State, update: &Update, publisher: Option<&Keys>) -> anyhow::Result<Batch> {
        let drafts = hive_ci::report(&state.id, &state.request, update, &self.0.us);
        let relays = self.relays(state);
        let mut batch = Batch::new();
        for mut draft in drafts {
            if let (Signer::Publisher { .. }, Some(keys)) = (&draft.signer, publisher) {
                draft.sign(keys).context("the publisher key does not sign the run's result")?;
            }
            batch.push(Change::Outbox(self.outgoing(draft, Some(&state.id), relays.clone())));
        }
        Ok(batch)
    }

    /// An event of ours as a row of the outbox.
    pub fn outgoing(&self, mut draft: Draft, run: Option<&str>, relays: Vec<(String, RelayClass)>) -> Outgoing {
        Outgoing {
            event: draft.event.id().to_hex(),
            sequence: 0,
            unsigned: draft.event.as_json(),
            signature: draft.signature.map(|signature| signature.to_string()),
            signer: draft.signer,
            relays,
            run: run.map(str::to_owned),
            made_at: self.now(),
        }
    }

    /// Where a run's events go: our own relays, then those of the repository and the job.
    fn relays(&self, state: &State) -> Vec<(String, RelayClass)> {
        let mut relays: Vec<(String, RelayClass)> =
            self.0.config.relays.write.iter().map(|url| (url.clone(), RelayClass::Own)).collect();
        let job: &[String] = match &state.request.origin {
            Origin::HiveCi { relays, .. } => relays,
            Origin::Api => &[],
        };
        let planned = state.planned.iter().flat_map(|planned| &planned.relays);
        for url in job.iter().chain(&state.request.repository.relays).chain(planned) {
            if !relays.iter().any(|(known, _)| known.trim_end_matches('/') == url.trim_end_matches('/')) {
                relays.push((url.clone(), RelayClass::Other));
            }
        }
        relays
    }

    fn rules(&self, request: &Request) -> Rules {
        Rules {
            max_duration_ms: self.0.config.policy.max_duration.saturating_mul(1000),
            retry_started: self.0.config.retry.started,
            maintainers_read: self.repository(request).is_some_and(|found| found.maintainers),
        }
    }

    fn visibility(&self, request: &Request) -> Visibility {
        match self.repository(request) {
            Some(found) if found.visibility == VisibilityConfig::Readers => {
                let keys = found.readers.iter().filter_map(|key| PublicKey::parse(key).ok());
                Visibility::Readers(keys.map(|key| key.to_hex()).collect())
            }
            _ => Visibility::Public,
        }
    }

    /// What the operator set for a repository, by address, by `<npub>/<d>`, or for all.
    fn repository(&self, request: &Request) -> Option<&RepositoryConfig> {
        let repository = &request.repository;
        let named = crate::plan::repository_name(repository);
        let all = &self.0.config.repositories;
        all.get(&repository.address).or_else(|| all.get(&named)).or_else(|| all.get("*"))
    }
}
