//! Runs one attempt: machine, steps, post steps, report.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Instant};

use proto::{STEP_CLEANUP, STEP_SETUP};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use workflow::plan::{Conclusion, JobContent, JobOrder, JobReport, Reason};

use crate::{
    config::JobLimits,
    dialect::{self, step_dialect::StepDialect},
    fetch::{self, CheckoutOptions, RepositoryFetcher},
    log::{
        LogSink,
        mask::{self, MaskOutcome, Masker},
    },
    sandbox::{JobSpec, Machine, MachineSpec, Sandbox, SandboxError, service::ServiceSpec},
};

mod actions;
mod actions_api;
mod container;
mod contexts;
mod deadline;
mod disk;
mod evaluate;
mod log_writer;
mod output;
mod paths;
mod process;
mod report_limits;
mod services;
mod step;
mod step_env;
mod steps;

pub use actions::artifact_zip;
use actions::{LoadedActions, PreStep};
use actions_api::CheckRuns;
pub use actions_api::{ActionsApiAccess, Tunnel};
use contexts::Contexts;
pub(crate) use deadline::longest;
use deadline::{Deadline, StopCause};
use log_writer::{LogStop, LogWriter, now_ms};
use steps::StepRunner;

/// One attempt to run.
pub struct JobAttempt {
    /// What to do.
    pub order: JobOrder,
    /// `secrets` context.
    pub secrets: BTreeMap<String, SecretString>,
    /// Image for the job where it names no container.
    pub image: String,
    /// Runtime of the engine for its containers; empty: the engine's own.
    pub runtime: String,
    /// What the job may use.
    pub limits: JobLimits,
    /// Node.js that a machine without one gets for JavaScript actions.
    pub node: Option<PathBuf>,
    /// The source lies in the workspace before the first step, as `longshore exec` has it.
    pub checked_out: bool,
    /// The services that actions call; `None`: there are none.
    pub actions_api: Option<ActionsApiAccess>,
    /// Cancelled: steps with `always()` still run, within the grace; see `kill`.
    pub cancel: CancellationToken,
    /// Cancelled: everything ends now.
    pub kill: CancellationToken,
}

impl JobAttempt {
    /// Its own token, which the services take.
    fn token(&self) -> Option<&SecretString> {
        self.actions_api.as_ref().map(|access| &access.token)
    }
}

/// Hears of what an attempt reaches.
pub trait ProgressReporter: Send + Sync {
    /// The machine runs, the first step is about to start.
    fn begun(&self);
    /// A step changed: index, name, `running` or its conclusion, and its outcome.
    fn step(&self, index: u32, name: &str, state: &str, outcome: &str);
}

/// Runs an attempt to its end. Never fails: whatever goes wrong is the report's reason.
pub async fn execute(
    attempt: JobAttempt,
    sandbox: Arc<dyn Sandbox>,
    sources: Arc<dyn RepositoryFetcher>,
    sink: Arc<dyn LogSink>,
    observer: Arc<dyn ProgressReporter>,
) -> JobReport {
    let stop = LogStop::default();
    let masker = Arc::new(Masker::default());
    let (log, writer) = LogWriter::start(sink, Arc::clone(&masker), attempt.limits.log, stop.clone());
    let deadline = Deadline::new(&attempt, stop);
    let dialect = dialect::of(attempt.order.dialect);
    let github = attempt.order.contexts.get("github");
    let repository = github.and_then(|github| github["repository"].as_str()).unwrap_or_default();
    let checks = Arc::new(CheckRuns::new(repository));
    let job = Job { attempt: Arc::new(attempt), dialect, sandbox, sources, observer, log, masker, checks, deadline };
    let report = Box::pin(job.run()).await;
    // The writer ends with the log; only a panic in it could be seen here, and the report stands without it.
    let _ = writer.await;
    report
}

/// A job before its first step.
struct Ready {
    machine: Arc<dyn Machine>,
    /// Ends the job where it uses too much disk.
    disk: AbortOnDropHandle<()>,
    contexts: Contexts,
    actions: LoadedActions,
    /// What actions run before the first step.
    pres: Vec<PreStep>,
}

/// A step in the background has a copy, whose deadline ends it alone.
#[derive(Clone)]
struct Job {
    attempt: Arc<JobAttempt>,
    /// The rules of its workflow's language.
    dialect: Arc<dyn StepDialect>,
    sandbox: Arc<dyn Sandbox>,
    sources: Arc<dyn RepositoryFetcher>,
    observer: Arc<dyn ProgressReporter>,
    log: LogWriter,
    masker: Arc<Masker>,
    /// What its programs say through GitHub's API.
    checks: Arc<CheckRuns>,
    deadline: Deadline,
}

impl Job {
    async fn run(mut self) -> JobReport {
        let mut report =
            JobReport { reason: None, exit_code: 0, started_at_ms: now_ms(), ..JobReport::failed(Reason::Step) };
        let began = Instant::now();
        let attempt = Arc::clone(&self.attempt);
        self.log.begin(STEP_SETUP, "Set up job").await;
        let ready = self.set_up().await;
        let word = if ready.is_ok() { "success" } else { "failure" };
        if let Err(reason) = &ready {
            self.log.notice(STEP_SETUP, &format!("##[error]{reason}")).await;
        }
        self.log.end_of(STEP_SETUP, "Set up job", word, word, began.elapsed()).await;

        let machine = match ready {
            Ok(Ready { machine, disk: _disk, contexts, actions, pres }) => {
                report.image = machine.image_digest();
                self.observer.begun();
                if let JobContent::Steps(steps) = &attempt.order.job.work {
                    StepRunner::new(&mut self, &machine, contexts, actions).run(steps, pres, &mut report).await;
                }
                Some(machine)
            }
            Err(reason) => {
                if matches!(reason, Reason::Cancelled(_)) {
                    report.conclusion = Conclusion::Cancelled;
                }
                report.reason = Some(reason);
                None
            }
        };
        self.complete(machine, &mut report).await;
        report
    }

    /// Everything before the first step.
    async fn set_up(&mut self) -> Result<Ready, Reason> {
        let attempt = Arc::clone(&self.attempt);
        let order = &attempt.order;
        let JobContent::Steps(steps) = &order.job.work else {
            return Err(Reason::Invalid("a job that calls a workflow has no steps for a worker".into()));
        };
        self.learn_secrets().await?;
        for notice in &order.notices {
            self.log.notice(STEP_SETUP, notice).await;
        }
        let mut contexts = Contexts::new(&attempt, self.dialect.as_ref());
        // Only who names containers needs it.
        let early = match order.job.container.is_some() || order.job.services.is_some() {
            true => contexts.before_machine(self.sandbox.kind(), self.sandbox.paths().as_ref()).await,
            false => Ok(contexts.clone()),
        };
        let early = early.map_err(Reason::Invalid)?;
        let spec = self.spec(&mut contexts, &early).await.map_err(Reason::Invalid)?;
        self.log.notice(STEP_SETUP, &format!("Image: {} ({})", spec.image, self.sandbox.kind())).await;
        let environment = spec.environment.clone();
        let services = match &order.job.services {
            Some(services) => services::plan(self, &early, services, &self.plain_spec()).await,
            None => Ok(Vec::new()),
        };
        let services = services.map_err(Reason::Invalid)?;
        let spec = JobSpec { machine: spec, services: led_to(&services, contexts.in_container) };
        let machine = tokio::select! {
            machine = self.sandbox.acquire(spec) => machine.map_err(failed_start)?,
            cause = self.deadline.interrupted(None) => return Err(match cause {
                StopCause::Timeout => Reason::StartFailed("the container did not start in time; look at the engine".into()),
                cause => reason_of(cause),
            }),
        };
        self.deadline.begin();
        let disk = disk::watch(&machine, attempt.limits.disk, self.deadline.full.clone(), self.log.clone());
        self.log.reads(Arc::clone(&machine)).await;
        let mut actions = LoadedActions::default();
        let preparing = async {
            self.fill(machine.as_ref()).await?;
            if let Some(access) = &attempt.actions_api {
                let (masker, checks) = (Arc::clone(&self.masker), Arc::clone(&self.checks));
                let way = actions_api::ServicePort::open(access, machine.as_ref(), masker, checks).await;
                let way = way.map_err(|error| error.to_string())?;
                contexts.actions_api = Some((Arc::new(way), access.clone()));
            }
            contexts.enter(self.sandbox.kind(), machine.as_ref(), environment).await?;
            services::wait_until_ready(self, &mut contexts, machine.as_ref(), &services).await?;
            actions.prepare(self, machine.as_ref(), steps).await
        };
        let prepared = tokio::select! {
            prepared = preparing => prepared.map_err(Reason::Invalid),
            cause = self.deadline.interrupted(None) => Err(reason_of(cause)),
        };
        match prepared {
            Ok(pres) => Ok(Ready { machine, disk, contexts, actions, pres }),
            Err(reason) => {
                machine.destroy().await;
                Err(reason)
            }
        }
    }

    /// The image of the job's container.
    fn image(&self) -> &str {
        match &self.attempt.order.job.container {
            Some(container) => container.as_str().or(container["image"].as_str()).unwrap_or(&self.attempt.image),
            None => &self.attempt.image,
        }
    }

    async fn fill(&self, machine: &dyn Machine) -> Result<(), String> {
        if !self.attempt.checked_out {
            return Ok(());
        }
        let most_bytes = self.attempt.limits.disk;
        let checkout = CheckoutOptions { depth: 1, most_bytes, ..CheckoutOptions::default() };
        let out = fetch::checkout(self.sources.as_ref(), &self.attempt.order.source, &checkout).await;
        let archive = out.map_err(|error| format!("{error:#}"))?.archive;
        machine.unpack(&machine.workspace(), false, archive).await.map_err(|error| error.to_string())
    }

    async fn learn_secrets(&self) -> Result<(), Reason> {
        let secrets = self.attempt.secrets.values().chain(self.attempt.token());
        let values: Vec<_> = secrets.map(SecretString::expose_secret).collect();
        let added = self.masker.add_all(values);
        if added.contains(&MaskOutcome::OverLimit) {
            let most = mask::LONGEST >> 10;
            return Err(Reason::Invalid(format!(
                "the job's secrets are too long to be masked: give it fewer, of {most} KiB at most each"
            )));
        }
        for (name, _) in self.attempt.secrets.keys().zip(added).filter(|(_, added)| *added == MaskOutcome::TooShort) {
            let text = format!("##[warning]secret {name} has one or two bytes: it is not masked");
            self.log.notice(STEP_SETUP, &text).await;
        }
        Ok(())
    }

    /// The machine of a job that asks for nothing. Its services and Docker actions start from it too.
    fn plain_spec(&self) -> MachineSpec {
        let order = &self.attempt.order;
        let attempt = format!("{}/{}/{}", order.run, order.key, order.attempt);
        let spec = plain_machine(&self.attempt.image, attempt, &self.attempt.limits);
        MachineSpec { runtime: self.attempt.runtime.clone(), ..spec }
    }

    async fn spec(&self, contexts: &mut Contexts, early: &Contexts) -> Result<MachineSpec, String> {
        let mut spec = self.plain_spec();
        if let Some(tree) = &self.attempt.order.job.container {
            let value = early.before_steps(tree).map_err(|error| format!("container: {error}"))?;
            contexts.in_container = container::apply(&value, &mut spec)?;
            self.keep_token("container", &mut spec).await;
        }
        Ok(spec)
    }

    /// The job's own token is good nowhere else: no registry is told it.
    async fn keep_token(&self, who: &str, spec: &mut MachineSpec) {
        let token = self.attempt.token().map(SecretString::expose_secret);
        if spec.credentials.as_ref().is_some_and(|given| Some(given.password.expose_secret()) == token) {
            spec.credentials = None;
            let said =
                format!("{who}.credentials: the job's own token opens no registry; the image is pulled without it");
            self.log.notice(STEP_SETUP, &said).await;
        }
    }

    /// Everything after the last step. Where a step failed, this did not: only what failed the job beside its steps is a
    /// failure here.
    async fn complete(&mut self, machine: Option<Arc<dyn Machine>>, report: &mut JobReport) {
        let began = Instant::now();
        self.log.begin(STEP_CLEANUP, "Complete job").await;
        if let Some(machine) = machine {
            machine.destroy().await;
        }
        let word = match report.reason.as_ref().filter(|reason| !matches!(reason, Reason::Step)) {
            Some(reason) => {
                self.log.notice(STEP_CLEANUP, &format!("##[error]{reason}")).await;
                report.conclusion.as_str()
            }
            None => Conclusion::Success.as_str(),
        };
        self.log.notice(STEP_CLEANUP, &format!("Job {}", report.conclusion.as_str())).await;
        self.log.end_of(STEP_CLEANUP, "Complete job", word, word, began.elapsed()).await;
        if let Err(error) = self.log.end().await {
            report.conclusion = Conclusion::Failure;
            report.reason = Some(Reason::WorkerLost(format!("its log could not be stored: {error}; look at its disk")));
        }
        report.finished_at_ms = now_ms();
        self.mask(report);
        report_limits::bound(report);
    }

    /// Nothing leaves without its secrets masked, whenever they became known.
    fn mask(&self, report: &mut JobReport) {
        let mask = |text: &mut String| *text = self.masker.text(text);
        report.outputs.retain(|name, value| !self.masker.finds(name) && !self.masker.finds(value));
        mask(&mut report.summary);
        if let Some(environment) = &mut report.environment {
            mask(&mut environment.name);
            environment.url.iter_mut().for_each(mask);
        }
        for step in &mut report.steps {
            mask(&mut step.name);
        }
        for annotation in &mut report.annotations {
            mask(&mut annotation.message);
            annotation.title.iter_mut().for_each(mask);
            annotation.file.iter_mut().for_each(mask);
        }
        if let Some(text) = report.reason.as_mut().and_then(Reason::detail_mut) {
            mask(text);
        }
    }
}

/// The machine of a job that asks for nothing: what is started before a job is known.
pub(crate) fn plain_machine(image: &str, attempt: String, limits: &JobLimits) -> MachineSpec {
    container::plain(image, attempt, limits.resources())
}

/// A job in a container of its own reaches services by their names (GitHub docs, "About service containers"): its
/// localhost leads nowhere.
fn led_to(services: &[ServiceSpec], in_container: bool) -> Vec<ServiceSpec> {
    let led = |spec: &ServiceSpec| if in_container { Vec::new() } else { spec.ports.clone() };
    services.iter().map(|spec| ServiceSpec { ports: led(spec), ..spec.clone() }).collect()
}

fn failed_start(error: SandboxError) -> Reason {
    match error {
        SandboxError::Image { .. } => Reason::PullFailed(error.to_string()),
        SandboxError::Refused(text) | SandboxError::NotFound(text) => Reason::Invalid(text),
        SandboxError::Engine(_) | SandboxError::Start(_) | SandboxError::Lost(_) => {
            Reason::StartFailed(error.to_string())
        }
    }
}

fn reason_of(cause: StopCause) -> Reason {
    match cause {
        StopCause::Cancelled => Reason::Cancelled("the job was cancelled".into()),
        StopCause::Killed => Reason::Cancelled("the job was ended at once".into()),
        StopCause::Timeout => Reason::Timeout,
        StopCause::LogLimit => Reason::LogLimit,
        StopCause::DiskLimit => Reason::Disk,
        StopCause::LogBroken => Reason::WorkerLost("its log could not be stored; look at its disk".into()),
    }
}
