//! Runs steps one after the other: conditions, results, and what each leaves for the next.

mod background;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use indexmap::IndexMap;
use tokio::time::Instant;
use workflow::{
    expression::{Object, Value},
    plan::{Conclusion, Environment, JobReport, Reason, Step, StepAction, StepEntry, StepReport, Tree},
};

use self::background::Background;
use super::{
    Job,
    actions::{LoadedActions, NodeProgram, PostStep, PreStep},
    contexts::Contexts,
    deadline::StopCause,
    evaluate::Evaluator,
    paths::absolute,
    process::{ProcessEnd, ProcessResult, ProcessSpec},
    reason_of,
    report_limits::{ENVIRONMENT, OUTPUTS, URL, take},
    step::{FinishedStep, StepResult, StepScope},
    step_env::StepEnv,
};
use crate::{
    dialect::step_contexts::{JobStatus, StepFrame},
    sandbox::Machine,
};

/// Runs the steps of one job.
pub(super) struct StepRunner<'a> {
    pub(super) env: StepEnv<'a>,
    pub(super) actions: LoadedActions,
    pub(super) posts: Vec<PostStep>,
    /// What actions saved for their later programs, by [`StepScope::key`].
    pub(super) states: HashMap<String, IndexMap<String, String>>,
    pub(super) node: NodeProgram,
    pub(super) has_bash: bool,
    status: JobStatus,
    /// `None`: the step runs in the background.
    reports: Vec<Option<StepReport>>,
    background: Background,
    reason: Option<Reason>,
    exit_code: i32,
    /// Number of the next step that is not one of the job's own.
    next: i32,
}

impl<'a> StepRunner<'a> {
    pub(super) fn new(
        job: &'a mut Job,
        machine: &'a Arc<dyn Machine>,
        contexts: Contexts,
        actions: LoadedActions,
    ) -> Self {
        Self {
            env: StepEnv::new(job, machine.as_ref(), contexts),
            background: Background::new(machine),
            actions,
            posts: Vec::new(),
            states: HashMap::new(),
            node: NodeProgram::default(),
            has_bash: true,
            status: JobStatus::Success,
            reports: Vec::new(),
            reason: None,
            exit_code: 0,
            next: 0,
        }
    }

    /// Runs the job's steps and the programs of actions around them, and evaluates the job's outputs.
    pub(super) async fn run(mut self, entries: &[StepEntry], pres: Vec<PreStep>, report: &mut JobReport) {
        let mut place = StepFrame::default();
        let names = self.env.job.dialect.step_names(entries);
        self.next = i32::try_from(entries.len()).unwrap_or(i32::MAX);
        self.pres(pres, &names).await;
        for ((index, entry), action) in (0..).zip(entries).zip(names) {
            let step = match entry {
                StepEntry::Control(control) => {
                    self.control(index, control, &mut place).await;
                    continue;
                }
                StepEntry::Step(step) if step.background => {
                    self.start(index, step, action, &place).await;
                    continue;
                }
                StepEntry::Step(step) => step,
            };
            let scope = StepScope { action, ..StepScope::new(index, &place, self.status) };
            let began = Instant::now();
            let ran = self.step(step, scope).await;
            remember(&mut place, step.id.as_deref(), &ran);
            let mark = format!("Main {}", ran.name);
            self.ended(index, &mark, step.id.clone(), ran, began.elapsed()).await;
        }
        self.wait_for_the_rest(&mut place).await;
        self.posts(&place).await;
        self.finish(&place, report).await;
    }

    /// The job failed; the first failure is what its report names.
    fn fail(&mut self, exit_code: Option<i32>) {
        if self.status == JobStatus::Success {
            self.exit_code = exit_code.unwrap_or(1);
        }
        self.status = JobStatus::Failure;
        self.reason.get_or_insert(Reason::Step);
    }

    pub(super) fn job_status(&self) -> JobStatus {
        self.env.status_of(self.status)
    }

    pub(super) fn is_over(&mut self) -> bool {
        self.env.job.deadline.is_over() || matches!(self.reason, Some(Reason::SandboxLost(_)))
    }

    /// A step of the job ended: what it means for the job, in its log and in its report.
    pub(super) async fn ended(
        &mut self,
        index: i32,
        mark: &str,
        id: Option<String>,
        ran: FinishedStep,
        duration: Duration,
    ) {
        self.count(&ran);
        let report = self.report_step(index, mark, id, &ran, duration).await;
        self.reports.push(Some(report));
    }

    /// What a step's end means for the job.
    fn count(&mut self, ran: &FinishedStep) {
        if ran.conclusion != Conclusion::Success && ran.end.outcome == Conclusion::Failure {
            self.fail(ran.end.exit_code);
        }
    }

    /// Records the end of a step in the log, for the observer and in the report.
    async fn report_step(
        &self,
        index: i32,
        mark: &str,
        id: Option<String>,
        ran: &FinishedStep,
        duration: Duration,
    ) -> StepReport {
        let (conclusion, outcome) = (ran.conclusion.as_str(), ran.end.outcome.as_str());
        self.env.job.log.end_of(index, mark, conclusion, outcome, duration).await;
        self.env.observe(index, &ran.name, conclusion, outcome);
        StepReport {
            id,
            name: ran.name.clone(),
            outcome: ran.end.outcome,
            conclusion: ran.conclusion,
            exit_code: ran.end.exit_code,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Runs one step of the job or of a composite action.
    pub(super) async fn step(&mut self, step: &Step, mut scope: StepScope<'_>) -> FinishedStep {
        let raw = plain_name(step);
        if self.is_over() {
            return FinishedStep {
                name: raw,
                end: StepResult::new(Conclusion::Skipped),
                conclusion: Conclusion::Skipped,
            };
        }
        scope.status = self.env.status_of(scope.status);
        let (runs, problem) = match self.prepare(step, step.condition.as_deref(), &mut scope).await {
            Ok(runs) => (runs, None),
            Err(problem) => (true, Some(problem)),
        };
        if !runs {
            return FinishedStep {
                name: raw,
                end: StepResult::new(Conclusion::Skipped),
                conclusion: Conclusion::Skipped,
            };
        }
        let evaluator = self.env.evaluator(&scope);
        let name = evaluator.text(&plain_name(step)).await.unwrap_or(raw);
        if scope.depth == 0 {
            self.env.job.log.begin(scope.index, &format!("Main {name}")).await;
            self.env.observe(scope.index, &name, "running", "");
        }
        let end = match problem {
            Some(problem) => self.env.refuse(scope.index, &problem).await,
            None => self.perform(step, &scope).await,
        };
        let conclusion = self.conclusion(step.continue_on_error.as_ref(), &end, &scope).await;
        FinishedStep { name, end, conclusion }
    }

    /// How a step counts: a failure may be tolerated.
    pub(super) async fn conclusion(
        &mut self,
        tolerant: Option<&Tree>,
        end: &StepResult,
        scope: &StepScope<'_>,
    ) -> Conclusion {
        if end.outcome == Conclusion::Failure && !self.is_over() {
            match self.env.evaluator(scope).truth("continue-on-error", tolerant).await {
                Ok(true) => return Conclusion::Success,
                Ok(false) => {}
                Err(problem) => {
                    self.env.refuse(scope.index, &problem).await;
                }
            }
        }
        end.outcome
    }

    /// Evaluates what a step needs before it runs; whether it does.
    pub(super) async fn prepare(
        &mut self,
        step: &Step,
        condition: Option<&str>,
        scope: &mut StepScope<'_>,
    ) -> Result<bool, String> {
        scope.env = self.env.evaluator(scope).env(&step.env).await?;
        let evaluator = self.env.evaluator(scope);
        if !evaluator.condition(condition).await? {
            return Ok(false);
        }
        if let Some(limit) = evaluator.minutes("timeout-minutes", step.timeout_minutes.as_ref()).await? {
            let deadline = Instant::now() + Duration::from_millis(limit);
            scope.deadline = Some(scope.deadline.map_or(deadline, |outer| outer.min(deadline)));
        }
        Ok(true)
    }

    async fn perform(&mut self, step: &Step, scope: &StepScope<'_>) -> StepResult {
        let result = match &step.action {
            StepAction::Run { script, shell, working_directory } => {
                self.script(script, shell.as_deref(), working_directory.as_deref(), scope).await
            }
            StepAction::Uses { uses, with } => Box::pin(self.uses(step, uses, with, scope)).await,
        };
        match result {
            Ok(end) => end,
            Err(problem) => self.env.refuse(scope.index, &problem).await,
        }
    }

    async fn script(
        &mut self,
        script: &str,
        shell: Option<&str>,
        directory: Option<&str>,
        scope: &StepScope<'_>,
    ) -> Result<StepResult, String> {
        let attempt = Arc::clone(&self.env.job.attempt);
        let defaults = [&attempt.order.job.defaults, &attempt.order.workflow_defaults];
        // A composite action's steps name their shell and start in the workspace.
        let defaults = if scope.depth == 0 { defaults.as_slice() } else { &[] };
        let evaluator = self.env.evaluator(scope);
        let script = evaluator.text(script).await?;
        let shell = shell.or_else(|| defaults.iter().find_map(|defaults| defaults.shell.as_deref()));
        let directory =
            directory.or_else(|| defaults.iter().find_map(|defaults| defaults.working_directory.as_deref()));
        let named = match shell {
            Some(shell) => Some(self.env.job.dialect.shell(&evaluator.text(shell).await?)?),
            None => None,
        };
        let directory = match directory {
            Some(directory) => absolute(&self.env.machine.workspace(), &evaluator.text(directory).await?),
            None => self.env.machine.workspace(),
        };
        loop {
            let by_default = named.is_none();
            let has_bash = self.has_bash && !self.env.contexts.in_container;
            let shell = named.clone().unwrap_or_else(|| self.env.job.dialect.default_shell(has_bash));
            self.env.job.log.notice(scope.index, &echo(&script, &shell.shown(), &scope.env)).await;
            let name = shell.file(&format!("step_{}", self.env.contexts.number()));
            let path = format!("{}/{name}", self.env.machine.temp());
            let process = ProcessSpec {
                step: scope.index,
                machine: None,
                argv: shell.command(&path),
                environment: self.env.contexts.environment(scope.place, &scope.env, &scope.action),
                directory: directory.clone(),
                files: vec![(path, Bytes::from(shell.content(&script)), 0o755)],
                search_path: String::new(),
                deadline: scope.deadline,
            };
            let done = self.env.process(process).await;
            if by_default
                && self.has_bash
                && !self.env.contexts.in_container
                && matches!(done.ended, ProcessEnd::NotFound(_))
            {
                self.has_bash = false;
                continue;
            }
            return Ok(self.judge(done, scope.index).await);
        }
    }

    /// What a process's end means for its step.
    pub(super) async fn judge(&mut self, done: ProcessResult, index: i32) -> StepResult {
        let mut end = StepResult { outcome: Conclusion::Failure, exit_code: None, outputs: done.outputs };
        let said = match done.ended {
            ProcessEnd::Exit(exit) => {
                end.exit_code = Some(exit.code);
                if exit.code == 0 && !done.failed {
                    end.outcome = Conclusion::Success;
                    return end;
                }
                if exit.out_of_memory {
                    self.reason = Some(Reason::OutOfMemory);
                    "The memory limit was hit; a process was ended.".to_owned()
                } else if exit.code == 0 {
                    return end;
                } else {
                    format!("Process completed with exit code {}.", exit.code)
                }
            }
            ProcessEnd::TimedOut => "The step's time is over; `timeout-minutes` of the step sets it.".to_owned(),
            ProcessEnd::Interrupted(cause) => {
                if matches!(cause, StopCause::Cancelled | StopCause::Killed | StopCause::Timeout) {
                    end.outcome = Conclusion::Cancelled;
                }
                let alone = cause == StopCause::Cancelled && !self.env.job.attempt.cancel.is_cancelled();
                if alone { "The step was cancelled." } else { "The step was ended: the job ends." }.to_owned()
            }
            ProcessEnd::NotFound(text) => {
                end.exit_code = Some(127);
                format!("{text}: it is not in the image; install it in a step before, or use another image or shell")
            }
            ProcessEnd::Refused(text) => text,
            ProcessEnd::Lost(text) => {
                self.reason = Some(Reason::SandboxLost(text.clone()));
                text
            }
        };
        self.env.job.log.notice(index, &format!("##[error]{said}")).await;
        self.env.error(said);
        end
    }

    async fn finish(mut self, place: &StepFrame, report: &mut JobReport) {
        let status = self.job_status();
        let evaluator = self.env.contexts.evaluator(place, &IndexMap::new(), "", status, self.env.machine);
        let order = Arc::clone(&self.env.job.attempt);
        let (mut problems, mut room) = (Vec::new(), OUTPUTS);
        for (name, text) in &order.order.job.outputs {
            match evaluator.text(text).await {
                Ok(value) if self.env.job.masker.finds(&value) || self.env.job.masker.finds(name) => {
                    let why = format!("job output {name} is left out: it may hold a secret");
                    problems.push(format!("##[warning]{why}"));
                    self.env.warning(why);
                }
                Ok(value) if take(&mut room, name.len() + value.len()) => {
                    report.outputs.insert(name.clone(), value);
                }
                Ok(value) => {
                    let why = format!(
                        "job output {name} is left out: it has {} bytes, and the outputs of a job may have {} MiB \
                         together; hand large values on as artifacts",
                        value.len(),
                        OUTPUTS >> 20
                    );
                    problems.push(format!("##[error]{why}"));
                    self.env.error(why);
                }
                Err(problem) => {
                    problems.push(format!("##[error]job output {name}: {problem}"));
                    self.fail(None);
                }
            }
        }
        match environment(order.order.job.environment.as_ref(), &evaluator).await {
            Ok(environment) => report.environment = environment,
            Err(problem) => {
                problems.push(format!("##[error]environment: {problem}"));
                self.fail(None);
            }
        }
        for problem in problems {
            self.env.job.log.notice(proto::STEP_CLEANUP, &problem).await;
        }
        self.env.job.deadline.is_over();
        let ended = self.env.job.deadline.ended;
        report.conclusion = match ended {
            Some(StopCause::Cancelled | StopCause::Killed) => Conclusion::Cancelled,
            Some(StopCause::Timeout | StopCause::LogLimit | StopCause::LogBroken | StopCause::DiskLimit) => {
                Conclusion::Failure
            }
            None if self.status == JobStatus::Success => Conclusion::Success,
            None => Conclusion::Failure,
        };
        report.reason = match (self.reason, ended) {
            (Some(reason @ (Reason::SandboxLost(_) | Reason::OutOfMemory)), _) => {
                (report.conclusion != Conclusion::Success).then_some(reason)
            }
            (_, Some(cause)) => Some(reason_of(cause)),
            (reason, None) => reason.filter(|_| report.conclusion != Conclusion::Success),
        };
        report.exit_code = if report.conclusion == Conclusion::Success { 0 } else { self.exit_code.max(1) };
        report.steps = self.reports.into_iter().flatten().collect();
        let (annotations, summary) = self.env.job.checks.take();
        self.env.messages.annotate(annotations, &self.env.job.masker);
        if !summary.is_empty() {
            self.env.messages.summarise(&summary, &self.env.job.masker);
        }
        (report.annotations, report.summary) = self.env.messages.into_parts();
        report.started = self.env.started;
        report.actions = self.actions.commits;
    }

    /// Number of a step that is not one of the job's own.
    pub(super) fn next_index(&mut self) -> i32 {
        let index = self.next;
        self.next = index.saturating_add(1);
        index
    }
}

/// Puts an ended step into the `steps` context.
pub(super) fn remember(place: &mut StepFrame, id: Option<&str>, ran: &FinishedStep) {
    let Some(id) = id else { return };
    let mut entry = Object::new();
    entry.insert("outputs", ran.end.outputs.iter().map(|(k, v)| (k, v.as_str())).collect::<Object>());
    entry.insert("outcome", ran.end.outcome.as_str());
    entry.insert("conclusion", ran.conclusion.as_str());
    place.steps.insert(id, Value::from(entry));
}

/// A step's name before its expressions are evaluated.
pub(super) fn plain_name(step: &Step) -> String {
    match (&step.name, &step.action) {
        (Some(name), _) => name.clone(),
        (None, StepAction::Uses { uses, .. }) => uses.clone(),
        (None, StepAction::Run { script, .. }) => {
            script.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("run").to_owned()
        }
    }
}

/// `environment:` evaluated at the job's end, when its steps' outputs are known; one without a name is none.
async fn environment(written: Option<&Tree>, evaluator: &Evaluator<'_>) -> Result<Option<Environment>, String> {
    let (name, url) = match written {
        Some(Tree::String(name)) => (name.as_str(), None),
        Some(Tree::Object(keys)) => {
            (keys.get("name").and_then(Tree::as_str).unwrap_or_default(), keys.get("url").and_then(Tree::as_str))
        }
        _ => return Ok(None),
    };
    let name = evaluator.text(name).await?;
    let url = match url {
        Some(url) => Some(evaluator.text(url).await?).filter(|url| !url.is_empty()),
        None => None,
    };
    if name.len() > ENVIRONMENT || url.as_ref().is_some_and(|url| url.len() > URL) {
        return Err(format!("its name may have {ENVIRONMENT} bytes, and its URL {} KiB", URL >> 10));
    }
    Ok((!name.is_empty()).then_some(Environment { name, url }))
}

/// What is run, as the log shows it; no line of it reads like output.
fn echo(script: &str, shell: &str, env: &IndexMap<String, String>) -> String {
    let mut lines = script.trim_end().lines();
    let mut text = format!("Run {}", lines.next().unwrap_or_default());
    for line in lines {
        text.push_str("\n| ");
        text.push_str(line);
    }
    text.push_str(&format!("\n| shell: {shell}"));
    for (name, value) in env {
        text.push_str(&format!("\n| env {name}: {}", value.replace('\n', "\n|   ")));
    }
    text
}
