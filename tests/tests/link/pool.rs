//! A coordinator's dispatch with a run side in memory, and workers that run scripts instead of containers.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use config::{
    LeaseTimeouts,
    keys::{Keys, make_keys},
};
use connections::{
    client_address::TrustedProxies,
    listener::{LimitedListener, Refusals},
    shares::{Limits, Shares},
};
use dispatch::{
    Acknowledgement, ActionsAccess, ActionsApi, Assignment, Dispatch, DispatchConfig, RunCommands, ServerTls,
    SourceObjects,
};
use domain::id::{JobKey, RunId};
use domain::{run::AttemptId, schedule::QueuedJob};
use futures::{future::BoxFuture, stream::BoxStream};
use logs::Logs;
use parking_lot::Mutex;
use proto::worker::{ResolveRequest, Resolved};
use store::{Batch, Change, Lease, LeaseChange, Store, WorkerRow};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use worker::coordinator_client::Shutdown;
use workflow::plan::{Defaults, Dialect, Env, EnvSource, Job, JobContent, JobOrder, JobReport, SourceRef, Strategy};

use super::script::Script;

/// How long things last in a test; `offer` and `confirm` are far away unless a test is about them.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) timeouts: LeaseTimeouts,
    pub(crate) unmatched: Duration,
}

pub(crate) fn terms() -> Terms {
    let timeouts = LeaseTimeouts { lease_ms: 1500, renew_ms: 300, ..LeaseTimeouts::default() };
    Terms { timeouts, unmatched: Duration::from_secs(3600) }
}

/// Terms with a lease of so many seconds.
pub(crate) fn long_leases() -> Terms {
    let timeouts = LeaseTimeouts { lease_ms: 30_000, ..terms().timeouts };
    Terms { timeouts, ..terms() }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

/// What one job went through.
#[derive(Debug, Clone, Default)]
pub(crate) struct Course {
    pub(crate) waiting: bool,
    pub(crate) labels: Vec<String>,
    pub(crate) attempts: u32,
    /// Current attempt and its worker.
    pub(crate) held: Option<(u32, String)>,
    pub(crate) begun: u32,
    pub(crate) report: Option<JobReport>,
    pub(crate) finished: u32,
    pub(crate) lost: Vec<String>,
    pub(crate) reason: String,
    pub(crate) unmatched: bool,
    /// The assignment can't be made.
    pub(crate) broken: bool,
}

/// The run side: enough of it to see what dispatch asks, over a real store.
pub(crate) struct Memory {
    pub(crate) store: Store,
    pub(crate) jobs: watch::Sender<HashMap<String, Course>>,
    /// Repository and commit of the jobs, where a test needs real ones, and how often they were asked for.
    pub(crate) source: Mutex<Option<(PathBuf, String)>>,
    pub(crate) bundles: Mutex<Vec<Vec<String>>>,
    /// What was asked to be resolved, and of which commits the files were sent.
    pub(crate) resolved: Mutex<Vec<String>>,
    pub(crate) archived: Mutex<Vec<String>>,
}

const RUN: &str = "run";
/// Bytes of log that the pool takes of one attempt.
pub(crate) const LOG_BYTES: u64 = 128 << 20;

impl Memory {
    fn order(&self, job: &str, course: &Course) -> JobOrder {
        let mut order = order(job, course);
        if job == "huge" {
            order.contexts.insert("needs".into(), "x".repeat(proto::MESSAGE_LIMIT).into());
        }
        if let Some((_, commit)) = &*self.source.lock() {
            order.source.commit.clone_from(commit);
            order.source.reference = "refs/heads/main".into();
        }
        order
    }

    /// Commits to the database in memory: at once, or once another thread has ended what it writes there.
    pub(crate) fn commit(&self, batch: Batch) {
        futures::executor::block_on(self.store.commit(batch)).unwrap();
    }

    /// Somebody cancels a job, whether a coordinator runs or not.
    pub(crate) fn cancel(&self, job: &str, confirm: Duration) {
        let confirm_by = now() + u64::try_from(confirm.as_millis()).unwrap();
        self.commit(vec![LeaseChange::Cancel { attempt: id(job, 1), reason: "asked for".into(), confirm_by }.into()]);
    }

    fn end_lease(&self, attempt: &AttemptId) {
        self.commit(vec![LeaseChange::End(attempt.clone()).into()]);
    }

    fn change<T>(&self, job: &str, with: impl FnOnce(&mut Course) -> T) -> T {
        let mut value = None;
        self.jobs.send_modify(|jobs| value = Some(with(jobs.entry(job.to_owned()).or_default())));
        value.unwrap()
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, anyhow::Result<T>> {
    Box::pin(std::future::ready(Ok(value)))
}

/// Says to each connection which attempt it is, and whether that is still held.
impl ActionsApi for Memory {
    fn access<'a>(&'a self, _: &'a AttemptId, _: &'a JobOrder) -> Option<ActionsAccess> {
        Some(ActionsAccess { token: "runtime canary".to_owned().into(), id_token: false })
    }

    fn serve(
        &self,
        attempt: AttemptId,
        held: Arc<dyn Fn() -> bool + Send + Sync>,
        mut connection: DuplexStream,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut asked = String::new();
            connection.read_to_string(&mut asked).await.unwrap();
            let said = format!("{} {} {}: {asked}", attempt.job, attempt.number, held());
            connection.write_all(said.as_bytes()).await.unwrap();
        })
    }
}

impl RunCommands for Memory {
    fn begin<'a>(
        &'a self,
        _: &'a RunId,
        job: &'a JobKey,
        worker: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<Option<Assignment>>> {
        let begun = self.change(job.as_str(), |course| {
            if !course.waiting {
                return None;
            }
            course.waiting = false;
            course.attempts += 1;
            course.held = Some((course.attempts, worker.to_owned()));
            let attempt = id(job.as_str(), course.attempts);
            let order = self.order(job.as_str(), course);
            let secrets = vec![("TOKEN".into(), "canary".to_owned().into())];
            Some((Assignment { order, attempt, secrets, time_limit_ms: 0 }, course.broken))
        });
        let Some((assignment, broken)) = begun else { return ready(None) };
        let lease = Lease {
            attempt: assignment.attempt.clone(),
            worker: worker.to_owned(),
            repository: "30617:owner:repo".into(),
            expires_at: now() + 1500,
            cancel_reason: None,
            confirm_by: None,
        };
        let unqueue = Change::Unqueue { run: RUN.into(), job: job.clone() };
        self.commit(vec![unqueue, LeaseChange::Begin(lease).into()]);
        // As a process that dies between the two would leave it.
        assert!(!broken, "a bug after the commit");
        ready(Some(assignment))
    }

    fn begun<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, anyhow::Result<Acknowledgement>> {
        ready(self.change(attempt.job.as_str(), |course| match &course.held {
            Some((number, _)) if *number == attempt.number => {
                course.begun += 1;
                Acknowledgement::Accepted
            }
            _ => Acknowledgement::Stale,
        }))
    }

    fn finished<'a>(
        &'a self,
        attempt: &'a AttemptId,
        report: JobReport,
    ) -> BoxFuture<'a, anyhow::Result<Acknowledgement>> {
        self.end_lease(attempt);
        ready(self.change(attempt.job.as_str(), |course| match &course.held {
            Some((number, _)) if *number == attempt.number => {
                course.held = None;
                course.finished += 1;
                course.report = Some(report);
                Acknowledgement::Accepted
            }
            _ => Acknowledgement::Stale,
        }))
    }

    fn lost<'a>(&'a self, attempt: &'a AttemptId, reason: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        self.end_lease(attempt);
        ready(self.change(attempt.job.as_str(), |course| {
            if course.held.as_ref().is_some_and(|(number, _)| *number == attempt.number) {
                course.held = None;
                course.lost.push(reason.to_owned());
            }
        }))
    }

    fn wait_reasons<'a>(&'a self, _: &'a RunId, reasons: Vec<(JobKey, String)>) -> BoxFuture<'a, anyhow::Result<()>> {
        for (job, reason) in reasons {
            self.change(job.as_str(), |course| course.reason = reason);
        }
        ready(())
    }

    fn unmatched<'a>(&'a self, _: &'a RunId, job: &'a JobKey) -> BoxFuture<'a, anyhow::Result<()>> {
        self.commit(vec![Change::Unqueue { run: RUN.into(), job: job.clone() }]);
        ready(self.change(job.as_str(), |course| {
            course.waiting = false;
            course.unmatched = true;
        }))
    }
}

impl SourceObjects for Memory {
    fn bundle<'a>(
        &'a self,
        repository: &'a str,
        wanted: &'a [String],
        have: &'a [String],
    ) -> BoxFuture<'a, anyhow::Result<BoxStream<'static, std::io::Result<Bytes>>>> {
        if let Some((folder, commit)) = &*self.source.lock() {
            assert_eq!(wanted, std::slice::from_ref(commit));
            self.bundles.lock().push(have.to_vec());
            git(folder, &["update-ref", &format!("refs/longshore/{commit}"), commit]);
            let mut arguments =
                vec!["bundle".to_owned(), "create".into(), "-".into(), format!("refs/longshore/{commit}")];
            arguments.extend(have.iter().map(|id| format!("^{id}")));
            let bundle = git(folder, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
            let parts: BoxStream<'static, _> = Box::pin(futures::stream::iter([Ok(bundle.into())]));
            return ready(parts);
        }
        let parts = [Bytes::from(repository.to_owned()), Bytes::from(vec![0; 600 * 1024])];
        let parts: BoxStream<'static, _> = Box::pin(futures::stream::iter(parts.map(Ok)));
        ready(parts)
    }

    fn resolve<'a>(&'a self, own: &'a str, asked: &'a ResolveRequest) -> BoxFuture<'a, anyhow::Result<Resolved>> {
        self.resolved.lock().push(format!("{own} {}@{}", asked.repository, asked.reference));
        ready(Resolved { repository: "key".into(), commit: "c".repeat(40), ..Resolved::default() })
    }

    fn archive<'a>(
        &'a self,
        repository: &'a str,
        commit: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<BoxStream<'static, std::io::Result<Bytes>>>> {
        self.archived.lock().push(format!("{repository} {commit}"));
        let parts: BoxStream<'static, _> = Box::pin(futures::stream::iter([Ok(Bytes::from_static(b"the files"))]));
        ready(parts)
    }
}

/// Permits for more connections than any test makes.
fn limited(listener: TcpListener) -> LimitedListener {
    let shares = Shares::new(Limits { all: 1000, each: 1000 });
    LimitedListener::new(listener, shares, 1000, TrustedProxies::default(), Refusals::default())
}

fn id(job: &str, number: u32) -> AttemptId {
    AttemptId { run: RUN.into(), job: job.into(), number }
}

fn order(job: &str, course: &Course) -> JobOrder {
    JobOrder {
        run: RUN.into(),
        key: job.into(),
        id: job.into(),
        name: job.into(),
        attempt: course.attempts,
        dialect: Dialect::Github,
        workflow: "ci".into(),
        job: Job {
            name: None,
            needs: Vec::new(),
            condition: None,
            runs_on: serde_json::json!("ubuntu-latest"),
            strategy: Strategy::default(),
            env: EnvSource::default(),
            defaults: Defaults::default(),
            outputs: Env::new(),
            timeout_minutes: None,
            continue_on_error: None,
            container: None,
            services: None,
            concurrency: None,
            permissions: None,
            environment: None,
            work: JobContent::Steps(Vec::new()),
        },
        runs_on: course.labels.clone(),
        contexts: serde_json::Map::new(),
        request_env: Env::new(),
        workflow_env: EnvSource::default(),
        workflow_defaults: Defaults::default(),
        timeout_ms: 60_000,
        source: SourceRef { repository: "30617:owner:repo".into(), ..SourceRef::default() },
        notices: Vec::new(),
        token_secrets: Vec::new(),
    }
}

/// Runs git in a folder and returns what it printed.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"];
    let output = Command::new("git").arg("-C").arg(folder).args(identity).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A coordinator that listens.
pub(crate) struct Pool {
    pub(crate) memory: Arc<Memory>,
    pub(crate) keys: Keys,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) dispatch: Dispatch,
    pub(crate) port: u16,
    terms: Terms,
    stop: CancellationToken,
    served: JoinHandle<anyhow::Result<()>>,
}

impl Pool {
    pub(crate) async fn start(terms: Terms) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = make_keys(folder.path(), &["localhost".into(), "127.0.0.1".into()]).unwrap();
        let memory = Arc::new(Memory {
            store: Store::in_memory().unwrap(),
            jobs: watch::Sender::new(HashMap::new()),
            source: Mutex::default(),
            bundles: Mutex::default(),
            resolved: Mutex::default(),
            archived: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(folder, keys, memory, terms, listener).await
    }

    async fn serve(
        folder: tempfile::TempDir,
        keys: Keys,
        memory: Arc<Memory>,
        terms: Terms,
        listener: TcpListener,
    ) -> Self {
        let port = listener.local_addr().unwrap().port();
        let dispatch = DispatchConfig {
            store: memory.store.clone(),
            runs: memory.clone(),
            logs: Logs::new(folder.path().join("logs")),
            objects: memory.clone(),
            actions_api: memory.clone(),
            configured_workers: Vec::new(),
            coordinator: "c".into(),
            token_key: [9; 32],
            bulk_url: String::new(),
            log_bytes: LOG_BYTES,
            worker_slots: 8,
            timeouts: terms.timeouts,
            unmatched: terms.unmatched,
            clock: now,
        }
        .build();
        let tls = ServerTls {
            certificate: std::fs::read(&keys.tls.certificate).unwrap(),
            key: std::fs::read(&keys.tls.key).unwrap().into(),
        };
        let stop = CancellationToken::new();
        let served = tokio::spawn({
            let (dispatch, stop) = (dispatch.clone(), stop.clone());
            async move { dispatch.serve(limited(listener), Some(tls), stop).await }
        });
        Self { memory, keys, folder, dispatch, port, terms, stop, served }
    }

    /// Ends the coordinator and starts another one on the same port with the same run side.
    pub(crate) async fn restart(self) -> Self {
        self.go_away().await.come_back().await
    }

    /// Ends the coordinator.
    pub(crate) async fn go_away(self) -> Away {
        self.stop.cancel();
        within("the coordinator's end", self.served).await.unwrap().unwrap();
        Away { folder: self.folder, keys: self.keys, memory: self.memory, port: self.port, terms: self.terms }
    }

    pub(crate) fn queue(&self, job: &str, labels: &[&str]) {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        self.memory.change(job, |course| {
            course.waiting = true;
            course.labels.clone_from(&labels);
        });
        self.memory.commit(vec![Change::Queue(QueuedJob {
            run: RUN.into(),
            job: job.into(),
            labels,
            avoid: Vec::new(),
            owner: "30617:owner:repo".into(),
            since: 0,
            reason: String::new(),
        })]);
    }

    /// The configuration of a worker with the pool's first identity.
    pub(crate) fn config(&self, name: &str) -> worker::config::Config {
        worker::config::Config {
            coordinator: format!("https://localhost:{}", self.port),
            name: name.into(),
            data: self.folder.path().join(name),
            identity_file: self.keys.worker.clone(),
            ca_file: Some(self.keys.ca.clone()),
            ..worker::config::Config::default()
        }
    }

    /// Enrols the identity in a file.
    pub(crate) fn enrol(&self, identity: &str) {
        let row = WorkerRow {
            id: dispatch::worker_id(&hex::decode(identity).unwrap()),
            identity: identity.to_owned(),
            name: String::new(),
            labels: Vec::new(),
            slots: 0,
            seen_at: 0,
            draining: false,
        };
        self.memory.commit(vec![Change::Worker(row)]);
    }

    /// A worker of the first identity, connected.
    pub(crate) async fn worker(&self, name: &str, script: Script) -> Running {
        self.enrol(&self.keys.worker_identity);
        let running = Running::start(self.config(name), script);
        self.connected(1).await;
        running
    }

    /// Waits for a number of connected workers. Sessions announce themselves to nobody, so this asks.
    pub(crate) async fn connected(&self, count: usize) {
        within("workers", async {
            while self.dispatch.workers().len() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Waits until a job's course is as asked for.
    pub(crate) async fn until(&self, job: &str, is: impl Fn(&Course) -> bool) -> Course {
        let mut jobs = self.memory.jobs.subscribe();
        let seen = within(job, jobs.wait_for(|jobs| jobs.get(job).is_some_and(&is))).await.unwrap();
        seen.get(job).unwrap().clone()
    }

    pub(crate) async fn finished(&self, job: &str) -> JobReport {
        self.until(job, |course| course.report.is_some()).await.report.unwrap()
    }

    pub(crate) fn course(&self, job: &str) -> Course {
        self.memory.jobs.borrow().get(job).cloned().unwrap_or_default()
    }

    pub(crate) fn begun(&self, job: &str) -> u32 {
        self.course(job).begun
    }

    /// Cancels the first attempt of a job.
    pub(crate) fn cancel(&self, job: &str) {
        self.memory.cancel(job, self.terms.timeouts.confirm());
    }

    /// Waits until a log says this.
    pub(crate) async fn until_logged(&self, job: &str, number: u32, text: &str) {
        within("a log", async {
            while self.log(job, number) != text {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// The texts of a log's records.
    pub(crate) fn log(&self, job: &str, number: u32) -> String {
        let path = self.folder.path().join("logs").join(RUN).join(job).join(number.to_string());
        let bytes = std::fs::read(path).unwrap_or_default();
        let (mut rest, mut text) = (bytes.as_slice(), String::new());
        while !rest.is_empty() {
            let record = <proto::worker::LogRecord as prost::Message>::decode_length_delimited(&mut rest).unwrap();
            text.push_str(std::str::from_utf8(&record.text).unwrap());
        }
        text
    }
}

/// What is left while no coordinator runs.
pub(crate) struct Away {
    folder: tempfile::TempDir,
    keys: Keys,
    memory: Arc<Memory>,
    port: u16,
    terms: Terms,
}

impl Away {
    pub(crate) fn pool_memory(&self) -> &Memory {
        &self.memory
    }

    /// Another coordinator on the same port with the same run side.
    pub(crate) async fn come_back(self) -> Pool {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        Pool::serve(self.folder, self.keys, self.memory, self.terms, listener).await
    }
}

/// Fails with a name instead of hanging.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.unwrap_or_else(|_| panic!("`{what}` did not come"))
}

/// A worker in this process.
pub(crate) struct Running {
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
    pub(crate) data: PathBuf,
}

impl Running {
    pub(crate) fn start(config: worker::config::Config, script: Script) -> Self {
        let (shutdown, data) = (Shutdown::default(), config.data.clone());
        let task = tokio::spawn(worker::coordinator_client::run(config, Arc::new(script), shutdown.clone(), || ()));
        Self { shutdown, task, data }
    }

    /// Ends it in order.
    pub(crate) async fn drain(self, within: Duration) {
        self.shutdown.drain.cancel();
        tokio::time::timeout(within, self.task).await.expect("a drained worker ends").unwrap().unwrap();
    }
}
