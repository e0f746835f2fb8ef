//! Drives a run's state machine with jobs on this machine, where a pool has store, schedule and sessions.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use actions_api::{ActionsApi, JobIdentity, RunLookup};
use anyhow::{Context, Result};
use domain::group::{self, Group, Member};
use domain::id::{CommitId, JobKey, RunId};
use domain::run::{
    self, FinalizedLog, NewRun, Planned, Repository, RunEffect, RunEvent, RunPhase, RunRequest, RunRules, RunState,
    Visibility,
};
use futures::{FutureExt as _, future::BoxFuture};
use indexmap::IndexMap;
use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_util::sync::CancellationToken;
use worker::{
    config::Config,
    fetch::RepositoryFetcher,
    job::{self, ActionsApiAccess, ProgressReporter, Tunnel},
    log::spool::RecordCallback,
    sandbox::Sandbox,
};
use workflow::plan::{JobOrder, JobReport};

use crate::clock::now_ms;

use super::{
    checkout::Checkout,
    interrupt::InterruptSignals,
    report::{RunLogs, RunReport},
    tree_watcher::TreeWatcher,
    view::ViewMode,
};

/// A plan and what it is run with.
pub(super) struct LocalRun {
    /// The run's id.
    pub(super) run: RunId,
    pub(super) planned: Planned,
    pub(super) vars: IndexMap<String, String>,
    pub(super) secrets: BTreeMap<String, SecretString>,
    /// The commit's files lie in the workspace when a job starts.
    pub(super) checked_out: bool,
    /// Jobs at a time.
    pub(super) jobs: usize,
    /// Whose caches its jobs have: the checkout's folder.
    pub(super) repository: String,
    /// How the run is shown while it goes on.
    pub(super) view: ViewMode,
    pub(super) config: Config,
    /// The services that actions call.
    pub(super) origin: ActionsApi,
}

/// An update from a running job.
enum JobUpdate {
    Begun { job: JobKey, attempt: u32 },
    Finished { job: JobKey, attempt: u32, report: Box<JobReport> },
}

struct LocalRunner {
    work: LocalRun,
    sandbox: Arc<dyn Sandbox>,
    sources: Arc<dyn RepositoryFetcher>,
    state: RunState,
    queue: VecDeque<(JobKey, Vec<String>)>,
    running: HashMap<JobKey, CancellationToken>,
    groups: HashMap<String, Group>,
    /// Reports of jobs that ended, by job key.
    reports: HashMap<JobKey, Box<JobReport>>,
    kill: CancellationToken,
    logs: Arc<RunLogs>,
    updates: mpsc::UnboundedSender<JobUpdate>,
    shown: Arc<ShownRun>,
}

/// The run as its jobs see it when they ask.
#[derive(Default)]
struct ShownRun(Mutex<Option<RunState>>);

impl RunLookup for ShownRun {
    fn run(&self, id: &RunId) -> Option<RunState> {
        self.0.lock().clone().filter(|state| state.id == *id)
    }
}

/// Other files than those that run, as soon as there are some.
pub(super) struct Superseding<'a> {
    watcher: &'a mut TreeWatcher,
    /// What runs, or ran last.
    commit: CommitId,
    open: &'a dyn Fn() -> Result<Checkout>,
    /// What is to be run instead.
    pub(super) next: Option<Checkout>,
    /// Somebody ended the run.
    pub(super) is_interrupted: bool,
}

impl<'a> Superseding<'a> {
    pub(super) fn new(watcher: &'a mut TreeWatcher, commit: CommitId, open: &'a dyn Fn() -> Result<Checkout>) -> Self {
        Self { watcher, commit, open, next: None, is_interrupted: false }
    }

    /// Waits until what would be run is not what runs. Dropped before, nothing is missed.
    pub(super) async fn changed(&mut self) -> Result<Checkout> {
        loop {
            self.watcher.changed().await?;
            match (self.open)() {
                Ok(next) if next.commit == self.commit => {}
                Ok(next) => return Ok(next),
                // Git may be at work on the same files.
                Err(error) => tracing::warn!("{error:#}"),
            }
        }
    }
}

/// Waits for files that supersede those that run; for ever where none can.
async fn superseded(superseding: Option<&mut Superseding<'_>>) -> Result<Checkout> {
    match superseding.filter(|superseding| superseding.next.is_none()) {
        Some(superseding) => superseding.changed().await,
        None => std::future::pending().await,
    }
}

/// Runs a plan to its end, which `interrupt` and `superseding` may end early.
pub(super) async fn run_to_end(
    mut work: LocalRun,
    sandbox: Arc<dyn Sandbox>,
    sources: Arc<dyn RepositoryFetcher>,
    interrupt: &mut InterruptSignals,
    mut superseding: Option<&mut Superseding<'_>>,
) -> Result<RunReport> {
    let begun = now_ms();
    let (updates, mut received) = mpsc::unbounded_channel();
    let shown = Arc::new(ShownRun::default());
    work.origin = work.origin.with_runs(Arc::clone(&shown) as Arc<dyn RunLookup>);
    let (state, _) = run::create(work.new_run(), begun);
    let logs = Arc::new(RunLogs::new(work.view));
    let planned = work.planned.clone();
    let (queue, running) = (VecDeque::new(), HashMap::new());
    let (groups, reports) = (HashMap::new(), HashMap::new());
    let kill = CancellationToken::new();
    let mut driver =
        LocalRunner { work, sandbox, sources, state, queue, running, groups, reports, kill, logs, updates, shown };
    driver.apply(RunEvent::Planned(Box::new(planned)));
    let mut interrupts = 0;
    loop {
        driver.start_jobs();
        if matches!(driver.state.phase, RunPhase::Done { .. }) {
            break;
        }
        tokio::select! {
            update = received.recv() => match update.context("the jobs' channel is closed")? {
                JobUpdate::Begun { job, attempt } => driver.apply(RunEvent::Begun { job, attempt }),
                JobUpdate::Finished { job, attempt, report } => {
                    driver.running.remove(&job);
                    driver.apply(RunEvent::Finished { job, attempt, report });
                }
            },
            next = superseded(superseding.as_deref_mut()) => {
                let next = next?;
                if let Some(superseding) = &mut superseding {
                    superseding.next = Some(next);
                }
                driver.logs.view.print("files changed: cancelling this run, to run them");
                driver.apply(RunEvent::Cancel { by: "a change of the files".into() });
            }
            by = interrupt.next() => {
                interrupts += 1;
                superseding.iter_mut().for_each(|superseding| superseding.is_interrupted = true);
                match interrupts {
                    1 => {
                        driver.logs.view.print("cancelling; press Ctrl-C again to end everything at once");
                        driver.apply(RunEvent::Cancel { by: by.into() });
                    }
                    _ => driver.kill.cancel(),
                }
            }
        }
    }
    driver.logs.view.end();
    Ok(RunReport::of(&driver.state, &driver.reports, &driver.logs, now_ms().saturating_sub(begun)))
}

impl LocalRunner {
    /// One event through the state machine. What it refuses changes nothing.
    fn apply(&mut self, event: RunEvent) {
        let Ok((state, effects)) = run::advance(&self.state, event, now_ms()) else { return };
        self.state = state;
        *self.shown.0.lock() = Some(self.state.clone());
        self.logs.view.state(&self.state);
        for effect in effects {
            match effect {
                RunEffect::Queue { job, labels, .. } => self.queue.push_back((job, labels)),
                RunEffect::Unqueue { job, .. } => self.queue.retain(|(queued, _)| *queued != job),
                RunEffect::Stop { job, .. } => {
                    if let Some(cancel) = self.running.get(&job) {
                        cancel.cancel();
                    }
                }
                RunEffect::Join { job, ask } => {
                    let member = Member { run: self.state.id.clone(), serial: self.state.serial, job, since: now_ms() };
                    self.group(&ask.group.clone(), group::GroupEvent::JoinRequested { member, ask });
                }
                RunEffect::Leave { job, group } => {
                    self.group(&group, group::GroupEvent::Left { run: self.state.id.clone(), job });
                }
                RunEffect::StoreReport { job, report, .. } => drop(self.reports.insert(job, report)),
                RunEffect::FinalizeLog => self.apply(RunEvent::LogFinalized { log: FinalizedLog::default() }),
                _ => {}
            }
        }
    }

    /// Concurrency groups hold between the jobs of this run alone: other processes are not asked.
    fn group(&mut self, name: &str, event: group::GroupEvent) {
        let key = group::key("local", name);
        let known = self.groups.remove(&key).unwrap_or_else(|| Group::new(key.clone()));
        let Ok((next, effects)) = group::advance(&known, event, now_ms()) else {
            self.groups.insert(key, known);
            return;
        };
        self.groups.insert(key, next);
        for (_, event) in effects.into_iter().map(group::GroupEffect::into_run_event) {
            self.apply(event);
        }
    }

    fn start_jobs(&mut self) {
        while self.running.len() < self.work.jobs {
            let Some((job, labels)) = self.queue.pop_front() else { return };
            let Some(image) = labels.iter().find_map(|label| self.work.config.labels.get(label)).cloned() else {
                let known: Vec<&str> = self.work.config.labels.keys().map(String::as_str).collect();
                tracing::error!(
                    "{job}: no image stands for the label {}; known: {}; add --image {}=IMAGE",
                    labels.join(", "),
                    known.join(", "),
                    labels.first().map(String::as_str).unwrap_or("LABEL"),
                );
                self.apply(RunEvent::Unmatched { job });
                continue;
            };
            self.apply(RunEvent::Accepted { job: job.clone(), worker: "exec".into() });
            self.start(job, image);
        }
    }

    fn access(&self, order: &JobOrder) -> ActionsApiAccess {
        let planned = &self.work.planned;
        let who = JobIdentity {
            run: order.run.as_str().into(),
            job: order.key.as_str().into(),
            attempt: order.attempt,
            repository: self.work.repository.clone(),
            reference: planned.reference.clone(),
            bases: JobIdentity::bases_of(&planned.context),
            // It is the user's own checkout.
            trusted: true,
            github: planned.context.clone(),
            ..JobIdentity::default()
        };
        let token = self.work.origin.token(&who).into();
        let tunnel = Arc::new(LocalTunnel { origin: self.work.origin.clone(), who: Arc::new(who) });
        ActionsApiAccess { token, id_token: false, tunnel }
    }

    fn start(&mut self, key: JobKey, image: String) {
        let Some(order) = run::order(&self.state, &key) else { return };
        let cancel = CancellationToken::new();
        self.running.insert(key.clone(), cancel.clone());
        let attempt = job::JobAttempt {
            secrets: self.state.secrets_of(&key, self.work.secrets.clone().into_iter().collect()).into_iter().collect(),
            image,
            runtime: String::new(),
            limits: self.work.config.limits.clone(),
            node: self.work.config.node.clone(),
            checked_out: self.work.checked_out,
            actions_api: Some(self.access(&order)),
            cancel,
            kill: self.kill.clone(),
            order,
        };
        let number = attempt.order.attempt;
        let lines = self.logs.job(key.as_str(), &attempt.order.name);
        let sink = Arc::new(RecordCallback::new(move |record| lines.take(&record)));
        let observer = Arc::new(UpdateSender {
            job: key.clone(),
            attempt: number,
            updates: self.updates.clone(),
            logs: self.logs.clone(),
        });
        let (sandbox, sources, updates) = (self.sandbox.clone(), self.sources.clone(), self.updates.clone());
        tokio::spawn(async move {
            let report = Box::new(job::execute(attempt, sandbox, sources, sink, observer).await);
            // The receiver is gone only where the whole run is.
            let _ = updates.send(JobUpdate::Finished { job: key, attempt: number, report });
        });
    }
}

/// The services for actions in this process, reached without a network.
struct LocalTunnel {
    origin: ActionsApi,
    who: Arc<JobIdentity>,
}

impl Tunnel for LocalTunnel {
    fn serve(&self, connection: DuplexStream) -> BoxFuture<'static, ()> {
        let (origin, who) = (self.origin.clone(), self.who.clone());
        // The connection ends with its job.
        async move { origin.serve(who, Arc::new(|| true), connection).await }.boxed()
    }
}

struct UpdateSender {
    job: JobKey,
    attempt: u32,
    updates: mpsc::UnboundedSender<JobUpdate>,
    logs: Arc<RunLogs>,
}

impl ProgressReporter for UpdateSender {
    fn begun(&self) {
        let _ = self.updates.send(JobUpdate::Begun { job: self.job.clone(), attempt: self.attempt });
    }
    fn step(&self, index: u32, name: &str, state: &str, _: &str) {
        self.logs.view.step(self.job.as_str(), index, name, state);
    }
}

impl LocalRun {
    fn new_run(&self) -> NewRun {
        new_run(self.run.clone(), &self.planned, &self.vars, self.secrets.keys().cloned().collect())
    }
}

/// A run of a plan on this machine; `secrets` are names.
pub(super) fn new_run(id: RunId, planned: &Planned, vars: &IndexMap<String, String>, secrets: Vec<String>) -> NewRun {
    let request = RunRequest {
        id: "exec".into(),
        origin: run::RequestOrigin::Api,
        repository: Repository { address: "local".into(), ..Repository::default() },
        workflow: planned.plan.path.clone(),
        commit: planned.commit.to_string(),
        branch: String::new(),
        reference: Some(planned.reference.clone()),
        trigger: None,
        payload: None,
        actor: String::new(),
        env: vars.clone(),
        notices: Vec::new(),
        inputs: None,
        again: None,
        command: None,
        pinned: None,
        pull_request: None,
        received_at: now_ms(),
    };
    NewRun {
        id,
        serial: 1,
        number: 1,
        rerun: None,
        request,
        secrets,
        rules: RunRules { one_worker: true, ..RunRules::default() },
        environments: Vec::new(),
        visibility: Visibility::Public,
        expires_at: u64::MAX,
    }
}
