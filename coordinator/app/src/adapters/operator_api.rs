//! What people ask for over HTTP: runs, cancels, approvals, definitions, workers.

use super::profiles::Profiles;
use crate::{
    definitions::Definitions,
    repository_settings::RepositorySettings,
    run_service::{Applied, RunService},
};
use actions_api::{ActionsApi, ArchiveError};
use config::{self, Config};
use dispatch::{ConnectedWorker, Dispatch};
use domain::id::{JobKey, RunId};
use domain::run::{self, ApprovalVerdict, Millis};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use nostr::Event;
use nostr_client::{
    policy::Policy,
    relays::{Answer, RelayState, Relays, normal},
    remote_signer::{Objection, RemoteSigners},
    tags,
};
use source::{RepositoryMirrors, address::Address, definition};
use std::{collections::HashMap, sync::Arc};
use store::{Artifact, Cache, DefinitionRow, Reader};
use web::{
    ArtifactContent, ArtifactRefusal, Control, DefinitionOutcome, File, OperatorActionError, Readiness, RelayView,
    Sent, SettingsRefusal, ValueAnswer, ValueOrder, WorkerConnection,
};
use workflow::{dialect::workflow_folders, plan::Dialect};

/// How long an enrolment token is good.
const TOKEN_MS: Millis = 3_600_000;

/// What people ask for over HTTP.
pub(crate) struct Operator {
    pub(crate) run_service: RunService,
    pub(crate) dispatch: Dispatch,
    pub(crate) sources: Arc<RepositoryMirrors>,
    pub(crate) policy: Policy,
    pub(crate) relays: Relays,
    pub(crate) signers: RemoteSigners,
    pub(crate) config: Arc<Config>,
    pub(crate) definitions: Definitions,
    pub(crate) profiles: Profiles,
    pub(crate) settings: RepositorySettings,
    pub(crate) actions_api: ActionsApi,
}

impl Operator {
    /// Why the author of these events may not have them published here; `None`: they may.
    async fn objection(&self, events: &[Event]) -> Option<String> {
        let author = events.first()?.pubkey.to_hex();
        let addresses: Vec<String> = events
            .iter()
            .filter_map(|event| match Address::parse(tags::first(event, "a")?) {
                Ok(Address::Known(repository)) => Some(repository.address),
                _ => None,
            })
            .collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        self.policy.decide(&author, &addresses).await.err()
    }
}

/// What relays keep the pool from: one that is lost is a warning, unless there is no other for what it is used for.
fn relay_readiness(config: &config::Relays, states: &[RelayState]) -> Readiness {
    let lost = |url: &str| {
        let state = states.iter().find(|state| state.url == url)?;
        (!state.connected).then_some(state.error.as_deref()?)
    };
    let mut readiness = Readiness::default();
    for (urls, use_of) in [(&config.read, "job events come from"), (&config.write, "results go to")] {
        let urls: Vec<String> = urls.iter().filter_map(|url| normal(url)).collect();
        if !urls.is_empty() && urls.iter().all(|url| lost(url).is_some()) {
            readiness.failures.push(format!("no relay that {use_of} is connected: {}", urls.join(", ")));
        }
    }
    for state in states.iter().filter(|state| state.named) {
        if let Some(error) = lost(&state.url) {
            readiness.warnings.push(format!("the relay {} is lost: {error}", state.url));
        }
    }
    readiness
}

impl Control for Operator {
    fn names(&self, keys: &[&str]) -> HashMap<String, String> {
        self.profiles.names(keys)
    }

    fn enrolment_token(&self) -> String {
        self.dispatch.enrolment_token(self.run_service.now().saturating_add(TOKEN_MS))
    }

    fn workers(&self) -> Vec<WorkerConnection> {
        let connection = |worker: ConnectedWorker| WorkerConnection {
            worker: worker.id,
            version: worker.program.version,
            architecture: worker.program.architecture,
            sandbox: worker.program.sandbox,
            busy: worker.busy,
            draining: worker.draining,
        };
        self.dispatch.workers().into_iter().map(connection).collect()
    }

    fn relays(&self) -> Vec<RelayView> {
        let named = self.relays.states().into_iter().filter(|relay| relay.named);
        let view = |RelayState { url, connected, since, error, .. }| RelayView { url, connected, since, error };
        named.map(view).collect()
    }

    fn readiness(&self) -> BoxFuture<'_, Readiness> {
        async {
            let mut readiness = relay_readiness(&self.config.relays, &self.relays.states());
            match self.run_service.store().problem().await {
                Ok(None) => {}
                Ok(Some(problem)) => readiness.failures.push(problem.to_string()),
                Err(error) => readiness.failures.push(format!("the database does not answer: {error}")),
            }
            readiness
        }
        .boxed()
    }

    fn publish<'a>(&'a self, events: &'a [Event]) -> BoxFuture<'a, anyhow::Result<Sent>> {
        async move {
            if let Some(reason) = self.objection(events).await {
                return Ok(Sent::Refused(reason));
            }
            let (mut taken, mut complaints) = (Vec::new(), Vec::new());
            for url in self.config.relays.read.iter().filter_map(|url| nostr_client::relays::normal(url)) {
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

    fn send_to_signer<'a>(
        &'a self,
        relay: &'a str,
        event: &'a Event,
    ) -> BoxFuture<'a, Result<(), OperatorActionError>> {
        async move { self.signers.send(relay, event).await.map_err(|why| operator_error(&why)) }.boxed()
    }

    fn answers<'a>(
        &'a self,
        relay: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Event>, OperatorActionError>> {
        async move { Ok(self.signers.answers(relay, key).await.map_err(|why| operator_error(&why))?.boxed()) }.boxed()
    }

    fn workflows<'a>(&'a self, repository: &'a str, commit: &'a str) -> BoxFuture<'a, anyhow::Result<Vec<File>>> {
        async move {
            let limit = self.config.limits.workflow_bytes;
            let found = self.sources.stored_files(repository, commit, &workflow_folders(), limit).await?;
            Ok(found.into_iter().map(|(path, text)| File { path, text }).collect())
        }
        .boxed()
    }

    fn definitions<'a>(
        &'a self,
        repository: &'a str,
        reader: &'a Reader,
    ) -> BoxFuture<'a, anyhow::Result<Vec<(DefinitionRow, bool)>>> {
        self.definitions.versions(repository, reader).boxed()
    }

    fn definition<'a>(
        &'a self,
        event: &'a str,
        reader: &'a Reader,
    ) -> BoxFuture<'a, anyhow::Result<Option<DefinitionRow>>> {
        self.definitions.version(event, reader).boxed()
    }

    fn definition_tags(&self, repository: &str, path: &str, text: Option<&str>) -> Result<Vec<Vec<String>>, String> {
        Dialect::of_path(path)?;
        Ok(definition::tags(repository, path, text))
    }

    fn define<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, anyhow::Result<DefinitionOutcome>> {
        self.definitions.define(event).boxed()
    }

    fn may_manage<'a>(
        &'a self,
        repository: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<Result<(), SettingsRefusal>>> {
        async move { Ok(self.settings.may_manage(repository, key).await) }.boxed()
    }

    fn order_value(&self, order: ValueOrder) -> BoxFuture<'_, anyhow::Result<ValueAnswer>> {
        self.settings.order(order).boxed()
    }

    fn artifact_files<'a>(
        &'a self,
        artifact: &'a Artifact,
    ) -> BoxFuture<'a, Result<Vec<(String, u64)>, ArtifactRefusal>> {
        async move { self.actions_api.artifact_files(artifact).await.map_err(refused) }.boxed()
    }

    fn artifact_file<'a>(
        &'a self,
        artifact: &'a Artifact,
        path: &'a str,
        kept: Box<dyn Send>,
    ) -> BoxFuture<'a, Result<ArtifactContent, ArtifactRefusal>> {
        let found = async move {
            let (length, bytes) = self.actions_api.artifact_file(artifact, path, kept).await?;
            Ok(ArtifactContent { length, bytes })
        };
        found.map(|found: Result<_, ArchiveError>| found.map_err(refused)).boxed()
    }

    fn delete_cache<'a>(&'a self, entry: &'a Cache) -> BoxFuture<'a, anyhow::Result<()>> {
        self.settings.delete_cache(entry).boxed()
    }

    fn cancel<'a>(&'a self, run: &'a RunId, by: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        async move {
            self.run_service.apply(run, run::RunEvent::Cancel { by: by.to_owned() }, Vec::new()).await?;
            Ok(())
        }
        .boxed()
    }

    fn decide<'a>(
        &'a self,
        run: &'a RunId,
        job: &'a JobKey,
        verdict: ApprovalVerdict,
        by: &'a str,
        comment: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<bool>> {
        let (job, by, comment) = (job.to_owned(), by.to_owned(), comment.to_owned());
        let event = run::RunEvent::Decided { job, verdict, by, comment };
        async move { Ok(matches!(self.run_service.apply(run, event, Vec::new()).await?, Applied::Changed(_))) }.boxed()
    }

    fn drain<'a>(&'a self, worker: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        self.dispatch.drain(worker, true).boxed()
    }
}

/// Why a remote signer could not be reached, as the API answers it.
fn operator_error(objection: &Objection) -> OperatorActionError {
    let reason = objection.to_string();
    match objection {
        Objection::Wrong(_) => OperatorActionError::Wrong(reason),
        Objection::Busy(_) => OperatorActionError::Busy(reason),
        Objection::Relay(_) => OperatorActionError::Relay(reason),
    }
}

fn refused(error: ArchiveError) -> ArtifactRefusal {
    match error {
        ArchiveError::Missing => ArtifactRefusal::Missing,
        other => ArtifactRefusal::Unreadable(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_relay_is_a_warning_and_the_last_one_of_its_use_a_failure() {
        let config = config::Relays {
            read: vec!["wss://a.example".into(), "wss://b.example".into()],
            write: vec!["wss://a.example".into()],
            ..config::Relays::default()
        };
        let state = |url: &str, error: Option<&str>| RelayState {
            url: url.into(),
            named: true,
            connected: error.is_none(),
            since: 0,
            error: error.map(str::to_owned),
        };
        let both = |a, b| relay_readiness(&config, &[state("wss://a.example", a), state("wss://b.example", b)]);
        assert!(both(None, None).failures.is_empty() && both(None, None).warnings.is_empty());
        let one = both(None, Some("it does not answer"));
        assert_eq!(one.failures, Vec::<String>::new());
        assert_eq!(one.warnings, ["the relay wss://b.example is lost: it does not answer"]);
        let writer = both(Some("it does not answer"), None);
        assert_eq!(writer.failures, ["no relay that results go to is connected: wss://a.example"]);
    }
}
