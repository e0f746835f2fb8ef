//! What one stage asks of another, each in a few lines: the only place where they meet.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use nostr::{Event, Filter, Keys, Kind, PublicKey};
use proto::worker::{self as wire, ResolveRequest};
use tokio::io::DuplexStream;
use workflow::plan::JobOrder;

use super::{
    definitions::Definitions,
    engine::{Applied, Engine},
};
use crate::{
    config::{self, Config},
    dispatch::{self, Access, AttemptId, Connected, Dispatch, Enrolment, Logs, Objects, worker_id},
    log,
    nostr::{
        policy::{Judgement, Policy},
        publish::PublisherKeys,
        relays::{Answer, Relays, ReqExitPolicy},
        signers::{Objection, Signers},
        tags,
    },
    origin::{self, Held, Origin, Who},
    run::{self, Millis, Verdict},
    source::{
        Lookup, Sources,
        address::Address,
        definition,
        outside::{Asked, Need},
    },
    store::{Change, DefinitionRow, Store, StoreError, WorkerRow},
    web::{Control, Defined, File, Load, NotCarried, Sent},
};

/// How long relays may take to say what they have of a repository.
const LOOK_UP: Duration = Duration::from_secs(8);
/// How long an enrolment token is good.
const TOKEN_MS: Millis = 3_600_000;

/// Repositories are looked up on the relays the request and the operator name.
pub(super) struct RelayLookup {
    pub(super) relays: Relays,
    pub(super) config: config::Relays,
}

impl RelayLookup {
    fn with_ours(&self, relays: &[String]) -> Vec<String> {
        let ours = self.config.lookup.iter().chain(&self.config.read);
        relays
            .iter()
            .chain(ours)
            .filter_map(|url| crate::nostr::relays::normal(url))
            .collect::<indexmap::IndexSet<_>>()
            .into_iter()
            .collect()
    }
}

impl Lookup for RelayLookup {
    fn find<'a>(&'a self, relays: &'a [String], filter: Filter) -> BoxFuture<'a, Vec<Event>> {
        async move {
            let urls = self.with_ours(relays);
            self.relays.fetch(&urls, &filter, ReqExitPolicy::ExitOnEOSE, LOOK_UP).await
        }
        .boxed()
    }

    fn write_relays<'a>(&'a self, author: &'a str) -> BoxFuture<'a, Vec<String>> {
        async move {
            let Ok(key) = PublicKey::from_hex(author) else { return Vec::new() };
            let urls = self.with_ours(&self.config.index);
            let filter = Filter::new().kind(Kind::RelayList).author(key);
            let found = self.relays.fetch(&urls, &filter, ReqExitPolicy::ExitOnEOSE, LOOK_UP).await;
            let newest = found.into_iter().max_by_key(|event| (event.created_at, std::cmp::Reverse(event.id)));
            let tags = newest.iter().flat_map(|event| tags::all(event, "r"));
            tags.filter(|tag| tag.get(2).is_none_or(|use_| use_ == "write"))
                .filter_map(|tag| crate::nostr::relays::normal(tag.get(1)?))
                .take(8)
                .collect()
        }
        .boxed()
    }
}

impl PublisherKeys for Engine {
    fn publisher<'a>(&'a self, run: &'a str) -> BoxFuture<'a, anyhow::Result<Option<Keys>>> {
        self.publisher_key(run).boxed()
    }
}

impl Logs for log::Logs {
    fn open<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, anyhow::Result<u64>> {
        self.open(&attempt.run, &attempt.job, attempt.number).boxed()
    }

    fn append<'a>(&'a self, attempt: &'a AttemptId, offset: u64, data: Bytes) -> BoxFuture<'a, anyhow::Result<u64>> {
        self.append(&attempt.run, &attempt.job, attempt.number, offset, data).boxed()
    }

    fn sync<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, anyhow::Result<u64>> {
        self.sync(&attempt.run, &attempt.job, attempt.number).boxed()
    }

    fn close<'a>(&'a self, attempt: &'a AttemptId, total: u64, sha256: &'a [u8]) -> BoxFuture<'a, anyhow::Result<()>> {
        self.close(&attempt.run, &attempt.job, attempt.number, total, sha256).boxed()
    }
}

type Bytestream = BoxStream<'static, std::io::Result<Bytes>>;

impl Objects for Sources {
    fn bundle<'a>(
        &'a self,
        repository: &'a str,
        wanted: &'a [String],
        have: &'a [String],
    ) -> BoxFuture<'a, anyhow::Result<Bytestream>> {
        async move { Ok(self.bundle(repository, wanted, have).await?) }.boxed()
    }

    fn resolve<'a>(&'a self, own: &'a str, asked: &'a ResolveRequest) -> BoxFuture<'a, anyhow::Result<wire::Resolved>> {
        async move {
            let lock = match asked.need() {
                wire::Need::Tree => self.lock_of(own, &asked.commit).await?,
                _ => None,
            };
            let need = match asked.need() {
                wire::Need::Tree => Need::Tree(lock.as_ref()),
                wire::Need::Everything => Need::Everything,
                wire::Need::History | wire::Need::Unspecified => Need::History,
            };
            let repository = if asked.repository.is_empty() { own } else { &asked.repository };
            let found = self.find(&Asked { repository, reference: &asked.reference, need }).await?;
            Ok(wire::Resolved {
                repository: found.key,
                commit: found.commit,
                reference: found.reference,
                refs: found.refs.into_iter().collect(),
                origin: found.origin,
                notes: found.notes,
            })
        }
        .boxed()
    }

    fn archive<'a>(&'a self, repository: &'a str, commit: &'a str) -> BoxFuture<'a, anyhow::Result<Bytestream>> {
        async move { Ok(self.archive(repository, commit).await?) }.boxed()
    }
}

/// Workers that the store or the configuration knows.
pub(super) struct Enrolled {
    pub(super) store: Store,
    /// Configured identities, hex.
    pub(super) configured: Vec<String>,
    pub(super) clock: fn() -> Millis,
}

impl Enrolment for Enrolled {
    fn known<'a>(&'a self, identity: &'a str) -> BoxFuture<'a, anyhow::Result<Option<WorkerRow>>> {
        async move {
            let stored = self.store.workers().await?.into_iter().find(|row| row.identity == identity);
            let configured = || {
                let key =
                    hex::decode(identity).ok().filter(|_| self.configured.iter().any(|known| known == identity))?;
                Some(WorkerRow {
                    id: worker_id(&key),
                    identity: identity.to_owned(),
                    name: String::new(),
                    labels: Vec::new(),
                    slots: 0,
                    seen_at: 0,
                    draining: false,
                })
            };
            Ok(stored.or_else(configured))
        }
        .boxed()
    }

    fn enrol<'a>(&'a self, worker: &'a WorkerRow, token: &'a str) -> BoxFuture<'a, anyhow::Result<bool>> {
        async move {
            let seen = Change::Seen { id: format!("enrolment {token}"), at: (self.clock)() };
            match self.store.commit(vec![seen, Change::Worker(worker.clone())]).await {
                Ok(()) => Ok(true),
                Err(StoreError::Seen(_)) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn seen<'a>(&'a self, worker: &'a WorkerRow) -> BoxFuture<'a, anyhow::Result<()>> {
        async move { Ok(self.store.commit(vec![Change::Worker(worker.clone())]).await?) }.boxed()
    }
}

/// What people ask for over HTTP.
pub(super) struct Operator {
    pub(super) engine: Engine,
    pub(super) dispatch: Dispatch,
    pub(super) sources: Arc<Sources>,
    pub(super) policy: Policy,
    pub(super) relays: Relays,
    pub(super) signers: Signers,
    pub(super) config: Arc<Config>,
    pub(super) definitions: Definitions,
}

impl From<Objection> for NotCarried {
    fn from(objection: Objection) -> Self {
        let reason = objection.to_string();
        match objection {
            Objection::Wrong(_) => Self::Wrong(reason),
            Objection::Busy(_) => Self::Busy(reason),
            Objection::Relay(_) => Self::Relay(reason),
        }
    }
}

impl Operator {
    /// Why the author of these events may not have them published here; `None`: they may.
    async fn objection(&self, events: &[Event]) -> Option<String> {
        let author = events.first()?.pubkey.to_hex();
        let mut judgement = self.policy.judge(&author, None);
        if judgement == Judgement::AskMaintainers {
            let mut maintainers = Vec::new();
            for address in events.iter().filter_map(|event| tags::first(event, "a")) {
                if let Ok(Address::Known(repository)) = Address::parse(address) {
                    maintainers.extend(self.sources.maintainers(&repository).await);
                }
            }
            judgement = self.policy.judge(&author, Some(&maintainers));
        }
        match judgement {
            Judgement::Allowed => None,
            Judgement::Refused(reason) => Some(reason),
            Judgement::AskMaintainers => Some("the maintainers of the repository are not known".into()),
        }
    }
}

impl Control for Operator {
    fn enrolment_token(&self) -> String {
        self.dispatch.enrolment_token(self.engine.now().saturating_add(TOKEN_MS))
    }

    fn loads(&self) -> Vec<Load> {
        let load = |worker: Connected| Load {
            worker: worker.id,
            version: worker.version,
            busy: worker.busy,
            draining: worker.draining,
        };
        self.dispatch.workers().into_iter().map(load).collect()
    }

    fn publish<'a>(&'a self, events: &'a [Event]) -> BoxFuture<'a, anyhow::Result<Sent>> {
        async move {
            if let Some(reason) = self.objection(events).await {
                return Ok(Sent::Refused(reason));
            }
            let (mut taken, mut complaints) = (Vec::new(), Vec::new());
            for url in self.config.relays.read.iter().filter_map(|url| crate::nostr::relays::normal(url)) {
                let mut answers = Vec::new();
                for event in events {
                    answers.push(self.relays.send(&url, event).await);
                }
                let refused = answers.into_iter().find_map(|answer| match answer {
                    Answer::Taken => None,
                    Answer::Refused(reason) | Answer::Later(reason) => Some(reason),
                });
                match refused {
                    None => taken.push(url),
                    Some(reason) => complaints.push(format!("{url}: {reason}")),
                }
            }
            Ok(match taken.is_empty() {
                true => Sent::NoRelay(format!("no relay took the events: {}", complaints.join("; "))),
                false => Sent::Taken(taken),
            })
        }
        .boxed()
    }

    fn carry<'a>(&'a self, relay: &'a str, event: &'a Event) -> BoxFuture<'a, Result<(), NotCarried>> {
        async move { Ok(self.signers.send(relay, event).await?) }.boxed()
    }

    fn answers<'a>(
        &'a self,
        relay: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Event>, NotCarried>> {
        async move { Ok(self.signers.answers(relay, key).await?.boxed()) }.boxed()
    }

    fn workflows<'a>(&'a self, repository: &'a str, commit: &'a str) -> BoxFuture<'a, anyhow::Result<Vec<File>>> {
        async move {
            let limit = self.config.limits.workflow_bytes;
            let found = self.sources.stored_files(repository, commit, &workflow::github::place::FOLDERS, limit).await?;
            Ok(found.into_iter().map(|(path, text)| File { path, text }).collect())
        }
        .boxed()
    }

    fn definitions<'a>(&'a self, repository: &'a str) -> BoxFuture<'a, anyhow::Result<Vec<(DefinitionRow, bool)>>> {
        self.definitions.versions(repository).boxed()
    }

    fn definition<'a>(&'a self, event: &'a str) -> BoxFuture<'a, anyhow::Result<Option<DefinitionRow>>> {
        self.definitions.version(event).boxed()
    }

    fn definition_tags(&self, repository: &str, path: &str, text: Option<&str>) -> Result<Vec<Vec<String>>, String> {
        workflow::github::place::check(path)?;
        Ok(definition::tags(repository, path, text))
    }

    fn define<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, anyhow::Result<Defined>> {
        self.definitions.define(event).boxed()
    }

    fn cancel<'a>(&'a self, run: &'a str, by: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        async move {
            self.engine.apply(run, run::Event::Cancel { by: by.to_owned() }, Vec::new()).await?;
            Ok(())
        }
        .boxed()
    }

    fn decide<'a>(
        &'a self,
        run: &'a str,
        job: &'a str,
        verdict: Verdict,
        by: &'a str,
        comment: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<bool>> {
        let (job, by, comment) = (job.to_owned(), by.to_owned(), comment.to_owned());
        let event = run::Event::Decided { job, verdict, by, comment };
        async move { Ok(matches!(self.engine.apply(run, event, Vec::new()).await?, Applied::Changed(_))) }.boxed()
    }

    fn drain<'a>(&'a self, worker: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        async move {
            self.dispatch.drain(worker, true);
            let row = self.engine.store().workers().await?.into_iter().find(|row| row.id == worker);
            if let Some(row) = row {
                self.engine.store().commit(vec![Change::Worker(WorkerRow { draining: true, ..row })]).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

/// Jobs' connections are served for the run as it stands in the store.
pub(super) struct Services {
    pub(super) origin: Origin,
    pub(super) store: Store,
}

impl dispatch::Origin for Services {
    fn access<'a>(&'a self, attempt: &'a AttemptId, order: &'a JobOrder) -> Option<Access> {
        let who = Who {
            run: attempt.run.clone(),
            job: attempt.job.clone(),
            attempt: attempt.number,
            repository: order.source.repository.clone(),
            ..Who::default()
        };
        let id_token = order.source.trusted && origin::grants(order.job.permissions.as_ref());
        Some(Access { token: self.origin.token(&who).into(), id_token })
    }

    fn serve(&self, attempt: AttemptId, held: Held, connection: DuplexStream) -> BoxFuture<'static, ()> {
        let (origin, store) = (self.origin.clone(), self.store.clone());
        async move {
            match store.run(&attempt.run).await {
                Ok(Some(state)) => {
                    let who = who(&state, &attempt);
                    origin.serve(Arc::new(who), held, connection).await;
                }
                Ok(None) => {}
                Err(error) => tracing::error!("a job's connection cannot be served: {error}"),
            }
        }
        .boxed()
    }
}

/// What a run's job may have of caches and artifacts.
fn who(state: &run::State, attempt: &AttemptId) -> Who {
    let planned = state.planned.as_ref();
    let mut who = Who {
        run: attempt.run.clone(),
        job: attempt.job.clone(),
        attempt: attempt.number,
        repository: state.request.repository.address.clone(),
        ..Who::default()
    };
    if let Some(planned) = planned {
        who.reference.clone_from(&planned.reference);
        who.trusted = planned.trusted;
        who.bases = Who::bases_of(&planned.github);
        who.github.clone_from(&planned.github);
        let order = run::order(state, &attempt.job);
        let permissions = order.as_ref().and_then(|order| order.job.permissions.as_ref());
        who.id_token = planned.trusted && origin::grants(permissions);
    }
    who
}
