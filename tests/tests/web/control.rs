//! Stands behind the pages: notes what it was asked for, and answers with what these tests know.

use domain::id::{JobKey, RunId};
use domain::run::ApprovalVerdict;
use futures::{StreamExt, future::BoxFuture};
use parking_lot::Mutex;
use store::{Artifact, Cache, DefinitionRow, Reader};
use web::{
    ArtifactContent, ArtifactRefusal, Control, DefinitionOutcome, File, Metrics, OperatorActionError, Readiness,
    RelayView, Sent, SettingsRefusal, ValueAnswer, ValueOrder, WorkerConnection,
};

use super::definitions;

/// The key of the secret 1, which has a profile.
const ANN: &str = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

type Answers = futures::stream::BoxStream<'static, nostr::Event>;

#[derive(Default)]
pub(super) struct Asked(pub(super) Mutex<Vec<String>>, pub(super) Mutex<Readiness>);

impl Control for Asked {
    fn enrolment_token(&self) -> String {
        "token".into()
    }

    fn names(&self, keys: &[&str]) -> std::collections::HashMap<String, String> {
        let ann = keys.iter().filter(|key| **key == ANN);
        ann.map(|key| ((*key).to_owned(), "Ann <b>".to_owned())).collect()
    }

    fn workers(&self) -> Vec<WorkerConnection> {
        vec![WorkerConnection {
            worker: "w1".into(),
            version: "1.2.3".into(),
            architecture: "x86_64".into(),
            sandbox: "docker".into(),
            busy: 1,
            draining: false,
        }]
    }

    fn relays(&self) -> Vec<RelayView> {
        let error = Some("<b>it does not answer".to_owned());
        vec![RelayView { url: "wss://relay.example".into(), connected: false, since: 0, error }]
    }

    fn readiness(&self) -> BoxFuture<'_, Readiness> {
        let readiness = self.1.lock().clone();
        Box::pin(async { readiness })
    }

    fn publish<'a>(&'a self, events: &'a [nostr::Event]) -> BoxFuture<'a, anyhow::Result<Sent>> {
        self.0.lock().extend(events.iter().map(|event| format!("publish {}", event.kind)));
        Box::pin(async { Ok(Sent::Taken(vec!["wss://relay.example".into()])) })
    }

    /// Ann manages every repository.
    fn may_manage<'a>(
        &'a self,
        _: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<Result<(), SettingsRefusal>>> {
        Box::pin(async move { Ok(if key == ANN { Ok(()) } else { Err(SettingsRefusal::Others) }) })
    }

    fn order_value(&self, order: ValueOrder) -> BoxFuture<'_, anyhow::Result<ValueAnswer>> {
        let ValueOrder { repository, environment, kind, name, value, by, at, .. } = order;
        let value = value.unwrap_or("(removed)".into());
        let kind = kind.as_str();
        self.0.lock().push(format!("{kind} {name}={value} of {repository} {environment:?} by {by} at {at}"));
        Box::pin(async move {
            Ok(match name.as_str() {
                "OLD" => ValueAnswer::Older,
                "FULL" => ValueAnswer::Unusable("there is no room".into()),
                _ => ValueAnswer::Taken { replaces: false },
            })
        })
    }

    fn artifact_files<'a>(&'a self, _: &'a Artifact) -> BoxFuture<'a, Result<Vec<(String, u64)>, ArtifactRefusal>> {
        Box::pin(async { Ok(vec![("a/<b>.txt".to_owned(), 3)]) })
    }

    fn artifact_file<'a>(
        &'a self,
        _: &'a Artifact,
        path: &'a str,
        _: Box<dyn Send>,
    ) -> BoxFuture<'a, Result<ArtifactContent, ArtifactRefusal>> {
        Box::pin(async move {
            let bytes = futures::stream::iter([Ok(bytes::Bytes::from_static(b"<b>"))]).boxed();
            if path == "a/<b>.txt" { Ok(ArtifactContent { length: 3, bytes }) } else { Err(ArtifactRefusal::Missing) }
        })
    }

    fn delete_cache<'a>(&'a self, entry: &'a Cache) -> BoxFuture<'a, anyhow::Result<()>> {
        self.0.lock().push(format!("delete cache {}", entry.id));
        Box::pin(async { Ok(()) })
    }

    fn send_to_signer<'a>(
        &'a self,
        relay: &'a str,
        event: &'a nostr::Event,
    ) -> BoxFuture<'a, Result<(), OperatorActionError>> {
        self.0.lock().push(format!("carry {} to {relay}", event.kind));
        let refused = relay.starts_with("ws://127.").then(|| OperatorActionError::Wrong("not a public address".into()));
        Box::pin(async { refused.map_or(Ok(()), Err) })
    }

    fn answers<'a>(&'a self, relay: &'a str, _: &'a str) -> BoxFuture<'a, Result<Answers, OperatorActionError>> {
        let busy = relay.contains("busy").then(|| OperatorActionError::Busy("wait a minute".into()));
        Box::pin(async { busy.map_or_else(|| Ok(futures::stream::empty().boxed()), Err) })
    }

    fn workflows<'a>(&'a self, _: &'a str, commit: &'a str) -> BoxFuture<'a, anyhow::Result<Vec<File>>> {
        let text = format!("# {commit} <script>\non: push\njob: 1\n");
        Box::pin(async { Ok(vec![File { path: ".github/workflows/a.yml".into(), text }]) })
    }

    fn definitions<'a>(
        &'a self,
        _: &'a str,
        _: &'a Reader,
    ) -> BoxFuture<'a, anyhow::Result<Vec<(DefinitionRow, bool)>>> {
        Box::pin(async {
            Ok(vec![
                (definitions::version("d2", "on: push # <b>\n"), true),
                (definitions::version("d1", "on: x\n"), false),
            ])
        })
    }

    fn definition<'a>(
        &'a self,
        event: &'a str,
        reader: &'a Reader,
    ) -> BoxFuture<'a, anyhow::Result<Option<DefinitionRow>>> {
        Box::pin(async move {
            let all = self.definitions("", reader).await?.into_iter().map(|(row, _)| row);
            Ok(all.into_iter().find(|row| row.event == event))
        })
    }

    fn definition_tags(&self, _: &str, path: &str, _: Option<&str>) -> Result<Vec<Vec<String>>, String> {
        Ok(vec![vec!["path".into(), path.into()]])
    }

    fn define<'a>(&'a self, event: &'a nostr::Event) -> BoxFuture<'a, anyhow::Result<DefinitionOutcome>> {
        self.0.lock().push(format!("define {}", event.kind));
        Box::pin(async { Ok(DefinitionOutcome::Taken(vec!["wss://relay.example".into()])) })
    }

    fn cancel<'a>(&'a self, run: &'a RunId, by: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        self.0.lock().push(format!("cancel {run} by {by}"));
        Box::pin(async { Ok(()) })
    }

    fn decide<'a>(
        &'a self,
        run: &'a RunId,
        job: &'a JobKey,
        verdict: ApprovalVerdict,
        by: &'a str,
        comment: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<bool>> {
        self.0.lock().push(format!("{verdict:?} {run} {job} by {by}: {comment}"));
        Box::pin(async { Ok(true) })
    }

    fn drain<'a>(&'a self, worker: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        self.0.lock().push(format!("drain {worker}"));
        Box::pin(async { Ok(()) })
    }
}

impl Metrics for Asked {
    fn render(&self) -> BoxFuture<'_, anyhow::Result<String>> {
        Box::pin(async { Ok("# EOF\n".to_owned()) })
    }
}
