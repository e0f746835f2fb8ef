//! Workflow files that are events: looked for on relays, kept, given to plans, and published for their authors.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::Context;
use futures::FutureExt;
use nostr::{Event, JsonUtil, UnsignedEvent};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use workflow::{
    diagnostic::{self, Diagnostic},
    plan::Dialect,
};

use super::{repository_policy::RepositoryPolicy, run_service::RunService};
use config::Config;
use domain::run::{Millis, Repository, Visibility};
use nostr_client::{policy::Policy, protocol::Draft};
use source::{
    MaintainerSet, RepositoryMirrors,
    address::Address,
    definition::{Claim, Definition, in_force},
};
use store::{Change, DefinitionRow, DefinitionScan, Reader, RelayClass, Signer};
use web::DefinitionOutcome;

/// What relays said so long ago is asked again when somebody wants to see it (ms).
const FRESH: Millis = 10_000;
/// How long a page waits for relays; the look goes on behind it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Looks for pages at the same time.
const LOOKS: usize = 4;

/// Definitions that are being taken in at the same time.
const CHECKS: usize = 8;

/// Knows the definitions of repositories.
#[derive(Clone)]
pub(super) struct Definitions {
    run_service: RunService,
    sources: Arc<RepositoryMirrors>,
    policy: Policy,
    config: Arc<Config>,
    looks: Arc<Semaphore>,
    checks: Arc<Semaphore>,
    /// Repositories that are being looked at for a page.
    busy: Arc<Mutex<HashSet<String>>>,
}

impl Definitions {
    pub(super) fn new(
        run_service: RunService,
        sources: Arc<RepositoryMirrors>,
        policy: Policy,
        config: Arc<Config>,
    ) -> Self {
        Self {
            run_service,
            sources,
            policy,
            config,
            looks: Arc::new(Semaphore::new(LOOKS)),
            checks: Arc::new(Semaphore::new(CHECKS)),
            busy: Arc::default(),
        }
    }

    /// The definition that stands for a path now; one that relays have lost, or hold back, counts all the same.
    pub(super) async fn at(
        &self,
        repository: &str,
        path: &str,
        standing: &MaintainerSet,
    ) -> anyhow::Result<Option<Definition>> {
        self.look(repository, Some(path), standing).await?;
        let store = self.run_service.store();
        let rows = store.definitions(repository, Some(path)).await?;
        let Some(row) = in_force(rows, &standing.maintainers).remove(path).filter(|row| !row.withdrawn) else {
            return Ok(None);
        };
        let Some(row) = store.definition(&row.event).await? else { return Ok(None) };
        let event = Event::from_json(&row.signed).context("a stored definition can't be read")?;
        Ok(Some(Definition::read(&event)?))
    }

    /// Versions whose authors count, the newest of a path first, each with whether it is in force. Relays are asked
    /// where that was not done for a while; for a repository that is unknown here, never. Of one that the reader may not
    /// see there is none, as of one that is unknown.
    pub(super) async fn versions(
        &self,
        repository: &str,
        reader: &Reader,
    ) -> anyhow::Result<Vec<(DefinitionRow, bool)>> {
        let store = self.run_service.store();
        let known = store.maintainers(repository).await?.unwrap_or_default().keys;
        if !self.may_see(repository, &known, reader) {
            return Ok(Vec::new());
        }
        self.refresh(repository).await?;
        let keys = store.maintainers(repository).await?.unwrap_or_default().keys;
        let rows = store.definitions(repository, None).await?;
        let counts: HashSet<String> =
            in_force(rows.iter().cloned(), &keys).into_values().map(|row| row.event).collect();
        let rows = rows.into_iter().filter(|row| keys.contains(&row.author));
        Ok(rows.map(|row| (counts.contains(&row.event), row)).map(|(counts, row)| (row, counts)).collect())
    }

    /// One version with its event, if its author counts and the reader may see its repository.
    pub(super) async fn version(&self, event: &str, reader: &Reader) -> anyhow::Result<Option<DefinitionRow>> {
        let store = self.run_service.store();
        let Some(row) = store.definition(event).await? else { return Ok(None) };
        let keys = store.maintainers(&row.repository).await?.unwrap_or_default().keys;
        Ok((keys.contains(&row.author) && self.may_see(&row.repository, &keys, reader)).then_some(row))
    }

    /// Whether a reader may see what a repository has: as its runs, and its maintainers always.
    fn may_see(&self, repository: &str, maintainers: &[String], reader: &Reader) -> bool {
        let visibility = match Address::parse(repository) {
            Ok(Address::Known(repository)) => RepositoryPolicy::new(&self.config, &repository).visibility(),
            // There is no such repository.
            _ => Visibility::Public,
        };
        let maintains = || matches!(reader, Reader::Key(key) if maintainers.contains(key));
        reader.may_read(&visibility) || maintains()
    }

    /// Takes a definition in from its author, and sends it to the repository's relays. The signature was checked.
    pub(super) async fn define(&self, event: &Event) -> anyhow::Result<DefinitionOutcome> {
        let definition = match Definition::read(event) {
            Ok(definition) => definition,
            Err(defect) => return Ok(DefinitionOutcome::Malformed(defect.to_string())),
        };
        let now = self.run_service.now();
        if definition.made_at > (now / 1000).saturating_add(self.config.limits.ahead) {
            let why = "the definition is dated ahead of time: set the clock that it was made with";
            return Ok(DefinitionOutcome::Malformed(why.into()));
        }
        let repository = match Address::parse(&definition.repository) {
            Ok(Address::Known(repository)) => repository,
            _ => return Ok(DefinitionOutcome::Malformed("its `a` names no repository".into())),
        };
        // Before anything is read, looked up or dialled.
        if let Err(reason) = self.policy.decide(&definition.author, &[&repository.address]).await {
            return Ok(DefinitionOutcome::Refused(reason));
        }
        let Ok(_turn) = self.checks.try_acquire() else {
            return Ok(DefinitionOutcome::Busy);
        };
        if let Some(text) = definition.text.clone() {
            let path = definition.path.clone();
            let parse = move || Dialect::of_any_path(&path).parse(&path, &text).1;
            let findings = tokio::task::spawn_blocking(parse).await.context("the check of a definition")?;
            if diagnostic::has_errors(&findings) {
                return Ok(DefinitionOutcome::Faulty(
                    findings.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n"),
                ));
            }
        }
        let standing = match self.sources.standing(&repository).await {
            Ok(standing) => standing,
            Err(error) => return Ok(DefinitionOutcome::Refused(error.to_string())),
        };
        if !standing.maintainers.contains(&definition.author) {
            return Ok(DefinitionOutcome::Refused(
                "only owner and maintainers of the repository define its workflows".into(),
            ));
        }
        self.look(&repository.address, Some(&definition.path), &standing).await?;
        let rows = self.run_service.store().definitions(&repository.address, Some(&definition.path)).await?;
        if let Some(newer) = in_force(rows, &standing.maintainers).remove(&definition.path)
            && newer.precedence() < definition.precedence()
        {
            return Ok(DefinitionOutcome::Older(newer.event));
        }
        let to = self.relays_of(&standing);
        let looked = self.looked(&repository.address, &standing, vec![row(&definition, event, now)]);
        let draft = Draft { event: unsigned(event), signer: Signer::Coordinator, signature: Some(event.sig) };
        let mut batch = vec![looked];
        batch.extend(self.run_service.outbox().event(&draft, &to, None, now)?);
        self.run_service.store().commit(batch).await?;
        Ok(DefinitionOutcome::Taken(to.into_iter().map(|(url, _)| url).collect()))
    }

    /// Asks relays and keeps what they have.
    async fn look(&self, repository: &str, path: Option<&str>, standing: &MaintainerSet) -> anyhow::Result<()> {
        let found = self.sources.definitions(repository, path, standing).await;
        let now = self.run_service.now();
        let rows = found.iter().map(|(definition, event)| row(definition, event, now)).collect();
        Ok(self.run_service.store().commit(vec![self.looked(repository, standing, rows)]).await?)
    }

    fn looked(&self, repository: &str, standing: &MaintainerSet, found: Vec<DefinitionRow>) -> Change {
        Change::DefinitionScan(DefinitionScan {
            repository: repository.to_owned(),
            maintainers: standing.maintainers.clone(),
            found,
            at: self.run_service.now(),
        })
    }

    async fn refresh(&self, address: &str) -> anyhow::Result<()> {
        let store = self.run_service.store();
        let looked_at = store.maintainers(address).await?.unwrap_or_default().looked_at;
        let fresh = looked_at.saturating_add(FRESH) > self.run_service.now();
        let Ok(Address::Known(repository)) = Address::parse(address) else { return Ok(()) };
        if fresh || repository.address != address || !store.knows_repository(address).await? {
            return Ok(());
        }
        if !self.busy().insert(address.to_owned()) {
            return Ok(());
        }
        let this = self.clone();
        let look = tokio::spawn(async move {
            let looked = std::panic::AssertUnwindSafe(this.look_at(&repository)).catch_unwind().await;
            this.busy().remove(&repository.address);
            match looked {
                Ok(Err(error)) => tracing::debug!(repository = repository.address, "not looked at: {error:#}"),
                Err(_) => tracing::error!(repository = repository.address, "looking at it ended in a bug"),
                Ok(Ok(())) => {}
            }
        });
        // Who waits no longer sees what is known; the look goes on.
        let _ = tokio::time::timeout(PATIENCE, look).await;
        Ok(())
    }

    async fn look_at(&self, repository: &Repository) -> anyhow::Result<()> {
        let _turn = self.looks.acquire().await?;
        let standing = self.sources.standing(repository).await?;
        self.look(&repository.address, None, &standing).await
    }

    fn busy(&self) -> parking_lot::MutexGuard<'_, HashSet<String>> {
        self.busy.lock()
    }

    /// Our own relays and those of the repository; none of them has to take it for ever.
    fn relays_of(&self, standing: &MaintainerSet) -> Vec<(String, RelayClass)> {
        let ours = self.config.relays.write.iter().chain(&self.config.relays.read);
        self.run_service.outbox().others(ours.chain(&standing.relays))
    }
}

fn row(definition: &Definition, event: &Event, now: Millis) -> DefinitionRow {
    DefinitionRow {
        event: definition.event.clone(),
        repository: definition.repository.clone(),
        path: definition.path.clone(),
        author: definition.author.clone(),
        made_at: definition.made_at,
        sha256: definition.sha256.clone(),
        size: definition.text.as_ref().map_or(0, |text| text.len() as u64),
        withdrawn: definition.text.is_none(),
        signed: event.as_json(),
        seen_at: now,
    }
}

fn unsigned(event: &Event) -> UnsignedEvent {
    UnsignedEvent {
        id: Some(event.id),
        pubkey: event.pubkey,
        created_at: event.created_at,
        kind: event.kind,
        tags: event.tags.clone(),
        content: event.content.clone(),
    }
}
