//! Runs one job of a workflow file on a real machine and keeps what came of it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use indexmap::IndexMap;
use parking_lot::Mutex;
use proto::worker::LogStream;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use worker::{
    config::JobLimits,
    fetch::{ActionRef, CommitQuery, FetchedAction, LocalRepository, LocatedCommit, RepositoryFetcher},
    job::{ActionsApiAccess, JobAttempt, ProgressReporter, execute},
    log::{Record, spool::RecordCallback},
    sandbox::Sandbox,
};
use workflow::plan::{Dialect, JobOrder, JobReport, MatrixCell, SourceRef};

/// What came of a job.
pub(crate) struct Outcome {
    pub(crate) report: JobReport,
    pub(crate) records: Vec<Record>,
}

impl Outcome {
    /// Lines of output, without what Longshore says itself.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text: Vec<u8> = self
            .records
            .iter()
            .filter(|record| matches!(record.stream(), LogStream::Stdout | LogStream::Stderr))
            .flat_map(|record| record.text.to_vec())
            .collect();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// What Longshore says.
    pub(crate) fn notices(&self) -> String {
        let notices = self.records.iter().filter(|record| record.stream() == LogStream::Notice);
        notices.map(|record| String::from_utf8_lossy(&record.text).into_owned()).collect()
    }

    /// Everything that left the worker, as text.
    pub(crate) fn everything(&self) -> String {
        let log: Vec<u8> = self.records.iter().flat_map(|record| record.text.to_vec()).collect();
        let marks: Vec<_> = self.records.iter().filter_map(|record| record.mark.as_ref()).map(|m| &m.name).collect();
        format!("{}{marks:?}{:?}", String::from_utf8_lossy(&log), self.report)
    }

    pub(crate) fn conclusions(&self) -> Vec<&'static str> {
        self.report.steps.iter().map(|step| step.conclusion.as_str()).collect()
    }
}

pub(crate) struct Run {
    pub(crate) order: JobOrder,
    pub(crate) secrets: BTreeMap<String, SecretString>,
    pub(crate) limits: JobLimits,
    pub(crate) image: String,
    pub(crate) checked_out: bool,
    pub(crate) node: Option<std::path::PathBuf>,
    pub(crate) cancel: CancellationToken,
    pub(crate) kill: CancellationToken,
    pub(crate) repository: Option<std::path::PathBuf>,
    /// Files of the one repository that every `owner/repo@ref` stands for.
    pub(crate) actions: Vec<(String, String)>,
    pub(crate) actions_api: Option<ActionsApiAccess>,
    /// Cancels the first token when a record's text holds the word.
    pub(crate) cancel_at: Option<(&'static str, CancellationToken)>,
}

impl Run {
    /// The job `job` of a workflow whose `on:` is added.
    pub(crate) fn new(jobs: &str) -> Self {
        let text = format!("name: Test\non: push\n{jobs}");
        let (plan, problems) = workflow::github::parse(".github/workflows/t.yml", &text);
        let plan = plan.unwrap_or_else(|| panic!("{problems:?}\n{text}"));
        let (id, job) = plan.jobs.into_iter().next().expect("a job");
        let cell = MatrixCell { total: 1, ..MatrixCell::default() };
        let contexts = serde_json::json!({
            "github": {
                "event_name": "push", "repository": "npub1x/hello", "ref": "refs/heads/main", "ref_name": "main",
                "sha": "0".repeat(40), "run_id": "7", "actor": "npub1x", "workflow": "Test",
                "event": {"ref": "refs/heads/main"},
            },
            "vars": {"COLOUR": "blue"}, "matrix": cell.matrix, "needs": {}, "inputs": {},
            "strategy": {"job-index": 0, "job-total": 1},
        });
        let order = JobOrder {
            run: "run".into(),
            key: id.clone(),
            name: id.clone(),
            id,
            attempt: 1,
            dialect: Dialect::Github,
            workflow: plan.name,
            job,
            runs_on: vec!["ubuntu-latest".into()],
            contexts: contexts.as_object().expect("an object").clone(),
            request_env: IndexMap::new(),
            workflow_env: plan.env,
            workflow_defaults: plan.defaults,
            timeout_ms: 120_000,
            source: SourceRef::default(),
            notices: Vec::new(),
            token_secrets: Vec::new(),
        };
        Self {
            order,
            secrets: BTreeMap::new(),
            limits: JobLimits::default(),
            image: "longshore/ubuntu:dev".into(),
            checked_out: false,
            node: None,
            cancel: CancellationToken::new(),
            kill: CancellationToken::new(),
            repository: None,
            actions: Vec::new(),
            actions_api: None,
            cancel_at: None,
        }
    }

    /// One job of these steps.
    pub(crate) fn steps(steps: &str) -> Self {
        let steps: String = steps.lines().map(|line| format!("      {line}\n")).collect();
        Self::new(&format!("jobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n{steps}"))
    }

    pub(crate) fn secret(mut self, name: &str, value: &str) -> Self {
        self.secrets.insert(name.into(), value.to_owned().into());
        self
    }

    /// Gives the job a repository with these files.
    pub(crate) fn repository(mut self, folder: &Path, files: &[(&str, &str)]) -> Self {
        for (path, content) in files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
            std::fs::write(path, content).expect("file");
        }
        let script = "git init -q -b main . && git add -A && \
                      git -c user.name=n -c user.email=e@example.org commit -q --allow-empty -m one && git rev-parse HEAD";
        let output = std::process::Command::new("sh").args(["-c", script]).current_dir(folder).output().expect("git");
        let commit = String::from_utf8(output.stdout).expect("text").trim().to_owned();
        self.order.source =
            SourceRef { repository: "local".into(), commit, reference: "refs/heads/main".into(), trusted: true };
        self.repository = Some(folder.to_owned());
        self
    }

    pub(crate) async fn on(self, sandbox: Arc<dyn Sandbox>) -> Outcome {
        let records = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&records);
        let cancel_at = self.cancel_at;
        let sink = RecordCallback::new(move |record: Record| {
            if let Some((word, token)) = &cancel_at
                && record.stream() == LogStream::Stdout
                && String::from_utf8_lossy(&record.text).contains(word)
            {
                token.cancel();
            }
            kept.lock().push(record);
        });
        let attempt = JobAttempt {
            order: self.order,
            secrets: self.secrets,
            image: self.image,
            runtime: String::new(),
            limits: self.limits,
            node: self.node,
            checked_out: self.checked_out,
            actions_api: self.actions_api,
            cancel: self.cancel,
            kill: self.kill,
        };
        let local = LocalRepository::new(self.repository.unwrap_or_else(|| "/nonexistent".into()));
        let sources = Sources { local, actions: self.actions };
        let job = execute(attempt, sandbox, Arc::new(sources), Arc::new(sink), Arc::new(Silent));
        let report = tokio::spawn(job).await.expect("a job never panics");
        let records = std::mem::take(&mut *records.lock());
        Outcome { report, records }
    }
}

/// A repository on this machine, and one for all actions.
struct Sources {
    local: LocalRepository,
    actions: Vec<(String, String)>,
}

impl RepositoryFetcher for Sources {
    fn locate<'a>(
        &'a self,
        source: &'a SourceRef,
        wanted: &'a CommitQuery,
    ) -> BoxFuture<'a, anyhow::Result<LocatedCommit>> {
        self.local.locate(source, wanted)
    }

    fn action<'a>(
        &'a self,
        source: &'a SourceRef,
        action: &'a ActionRef,
    ) -> BoxFuture<'a, anyhow::Result<FetchedAction>> {
        if self.actions.is_empty() || action.repository.is_empty() {
            return self.local.action(source, action);
        }
        let mut archive = tar::Builder::new(Vec::new());
        for (path, text) in &self.actions {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(text.len() as u64);
            archive.append_data(&mut header, path, text.as_bytes()).expect("an archive");
        }
        let bytes = Bytes::from(archive.into_inner().expect("an archive"));
        let archive = futures::stream::once(async { Ok(bytes) }).boxed();
        async { Ok(FetchedAction { commit: "c".repeat(40), notes: Vec::new(), archive }) }.boxed()
    }
}

struct Silent;

impl ProgressReporter for Silent {
    fn begun(&self) {}
    fn step(&self, _index: u32, _name: &str, _state: &str, _outcome: &str) {}
}
