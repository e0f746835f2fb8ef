//! Steps in the background: started beside the others, waited for, cancelled.
//!
//! Each runs on a copy of what the steps of its job share. What it made of the copy holds for the others once it was
//! waited for. Source of the rules: GitHub docs, workflow syntax, `jobs.<job_id>.steps[*].background` and those after
//! it, and the behaviour of GitHub's runner.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    task::Poll,
};

use indexmap::IndexMap;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use workflow::plan::{Conclusion, Control, ControlAction, Reason, Step, StepReport, Tree};

use super::{PostStep, StepRunner, plain_name, remember};
use crate::{
    dialect::step_contexts::StepFrame,
    job::{
        actions::{LoadedActions, NodeProgram},
        contexts::StepAdditions,
        deadline::Interrupt,
        report_limits::StepMessages,
        step::{FinishedStep, StepResult, StepScope},
    },
    sandbox::Machine,
};

/// Steps of one job that run in the background at once; more wait for their turn.
const PARALLEL_LIMIT: usize = 10;

/// The steps of a job that were started in the background.
pub(super) struct Background {
    machine: Arc<dyn Machine>,
    slots: Arc<Semaphore>,
    /// By number.
    steps: BTreeMap<i32, BackgroundStep>,
}

struct BackgroundStep {
    name: String,
    cancel: CancellationToken,
    /// Place of its report among those of the job.
    report: usize,
    phase: Phase,
}

enum Phase {
    Running(AbortOnDropHandle<BackgroundResult>),
    /// It was waited for, or ended by a `cancel`.
    Ended {
        conclusion: Conclusion,
        exit_code: Option<i32>,
        /// A wait said so: its failure is the wait's.
        heard: bool,
    },
}

/// What an ended step leaves.
struct BackgroundResult {
    ran: FinishedStep,
    report: StepReport,
    added: StepAdditions,
    actions: LoadedActions,
    posts: Vec<PostStep>,
    states: HashMap<String, IndexMap<String, String>>,
    node: NodeProgram,
    messages: StepMessages,
    started: bool,
    reason: Option<Reason>,
}

impl Background {
    pub(super) fn new(machine: &Arc<dyn Machine>) -> Self {
        Self { machine: Arc::clone(machine), slots: Arc::new(Semaphore::new(PARALLEL_LIMIT)), steps: BTreeMap::new() }
    }

    fn of_phase(&self, is: impl Fn(&Phase) -> bool) -> Vec<i32> {
        self.steps.iter().filter(|(_, step)| is(&step.phase)).map(|(index, _)| *index).collect()
    }

    fn running(&self) -> Vec<i32> {
        self.of_phase(|phase| matches!(phase, Phase::Running(_)))
    }

    /// Those that failed before a `cancel` reached them, and that no wait heard of.
    fn unheard(&self) -> Vec<i32> {
        self.of_phase(|phase| matches!(phase, Phase::Ended { conclusion: Conclusion::Failure, heard: false, .. }))
    }

    fn names(&self, steps: &[i32]) -> String {
        let names: Vec<_> = steps.iter().filter_map(|index| self.steps.get(index)).map(|step| &*step.name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

impl StepRunner<'_> {
    /// Starts a step of the job and goes on.
    pub(super) async fn start(&mut self, index: i32, step: &Step, action: String, place: &StepFrame) {
        let cancel = self.env.job.deadline.cancel.child_token();
        let mut job = self.env.job.clone();
        job.deadline.cancel = cancel.clone();
        let machine = Arc::clone(&self.background.machine);
        // Asked for here, not in the task: turns come in the order of the steps.
        let mut slot = Box::pin(Arc::clone(&self.background.slots).acquire_owned());
        let at_once = futures::poll!(&mut slot);
        let (contexts, actions) = (self.env.contexts.fork(index), self.actions.fork(&index.to_string()));
        let (states, node, status) = (self.states.clone(), self.node.clone(), self.status);
        let (has_event, has_bash) = (self.env.has_event, self.has_bash);
        let raw = plain_name(step);
        let name = self.env.evaluator(&StepScope::new(index, place, status)).text(&raw).await.unwrap_or(raw);
        let (step, place) = (step.clone(), place.clone());
        let running = tokio::spawn(async move {
            let mut runner = StepRunner::new(&mut job, &machine, contexts, actions);
            (runner.states, runner.node, runner.status) = (states, node, status);
            (runner.env.has_event, runner.has_bash) = (has_event, has_bash);
            let slot = match at_once {
                Poll::Ready(slot) => slot.ok(),
                Poll::Pending => tokio::select! {
                    slot = slot => slot.ok(),
                    () = runner.withdrawn() => None,
                },
            };
            let began = Instant::now();
            let ran = if slot.is_some() {
                let scope = StepScope { action, ..StepScope::new(index, &place, status) };
                runner.step(&step, scope).await
            } else {
                let end = StepResult::new(Conclusion::Cancelled);
                FinishedStep { name: plain_name(&step), end, conclusion: Conclusion::Cancelled }
            };
            drop(slot);
            runner.leave(index, step.id, ran, began).await
        });
        let phase = Phase::Running(AbortOnDropHandle::new(running));
        self.background.steps.insert(index, BackgroundStep { name, cancel, report: self.reports.len(), phase });
        self.reports.push(None);
    }

    /// Waits for what ends a step that has no turn yet.
    async fn withdrawn(&mut self) {
        if let Interrupt::Job(cause) = self.env.job.deadline.interrupt(None).await {
            self.env.job.deadline.end(cause);
        }
    }

    /// The step ended: log and observer hear of it now, the job when it waits.
    async fn leave(self, index: i32, id: Option<String>, ran: FinishedStep, began: Instant) -> BackgroundResult {
        let report = self.report_step(index, &format!("Main {}", ran.name), id, &ran, began.elapsed()).await;
        BackgroundResult {
            ran,
            report,
            added: self.env.contexts.into_added(),
            actions: self.actions,
            posts: self.posts,
            states: self.states,
            node: self.node,
            messages: self.env.messages,
            started: self.env.started,
            reason: self.reason,
        }
    }

    /// Waits for a step, and takes over what it left.
    async fn join(&mut self, index: i32, place: &mut StepFrame, cancelled: bool) {
        let Some(step) = self.background.steps.get_mut(&index) else { return };
        let Phase::Running(running) = &mut step.phase else { return };
        let left = running.await;
        let Ok(left) = left else {
            step.phase = Phase::Ended { conclusion: Conclusion::Failure, exit_code: None, heard: false };
            return;
        };
        // What a `cancel` ended has not failed.
        let conclusion = match left.ran.conclusion {
            Conclusion::Cancelled if cancelled => Conclusion::Success,
            conclusion => conclusion,
        };
        step.name.clone_from(&left.ran.name);
        step.phase = Phase::Ended { conclusion, exit_code: left.ran.end.exit_code, heard: false };
        remember(place, left.report.id.as_deref(), &left.ran);
        if let Some(report) = self.reports.get_mut(step.report) {
            *report = Some(left.report);
        }
        self.env.contexts.merge(left.added);
        self.actions.merge(left.actions);
        self.states.extend(left.states);
        self.node.merge(left.node);
        let (annotations, summary) = left.messages.into_parts();
        self.env.messages.annotate(annotations, &self.env.job.masker);
        if !summary.is_empty() {
            self.env.messages.add_summary(&summary, &self.env.job.masker);
        }
        self.env.started |= left.started;
        if matches!(left.reason, Some(Reason::SandboxLost(_) | Reason::OutOfMemory)) {
            self.reason = left.reason;
        }
        for post in left.posts {
            if !self.posts.iter().any(|known| known.key == post.key) {
                self.posts.push(post);
            }
        }
    }

    /// `wait:`, `wait-all:` or `cancel:`, whose turn comes whatever happened before.
    pub(super) async fn control(&mut self, index: i32, control: &Control, place: &mut StepFrame) {
        let number = |at: &usize| i32::try_from(*at).unwrap_or(i32::MAX);
        let (steps, cancels) = match &control.control {
            ControlAction::Wait(steps) => (steps.iter().map(number).collect(), false),
            ControlAction::WaitAll => (self.background.running(), false),
            ControlAction::Cancel(step) => (vec![number(step)], true),
        };
        let evaluator = self.env.evaluator(&StepScope::new(index, place, self.job_status()));
        let name = evaluator.text(&control.name).await.unwrap_or_else(|_| control.name.clone());
        let gathering = Gathering { index, name, steps, cancels, tolerant: control.continue_on_error.as_ref() };
        self.gather(gathering, control.id.as_deref(), place).await;
    }

    /// Before anything runs for the end of the job, every step has ended and every failure counts.
    pub(super) async fn wait_for_the_rest(&mut self, place: &mut StepFrame) {
        let mut steps = self.background.running();
        steps.extend(self.background.unheard());
        if steps.is_empty() {
            return;
        }
        let (index, name) = (self.next_index(), "Wait for all background steps".to_owned());
        self.gather(Gathering { index, name, steps, cancels: false, tolerant: None }, None, place).await;
    }

    async fn gather(&mut self, gathering: Gathering<'_>, id: Option<&str>, place: &mut StepFrame) {
        let Gathering { index, name, steps, cancels, tolerant } = gathering;
        let began = Instant::now();
        let mark = format!("Main {name}");
        self.env.job.log.begin(index, &mark).await;
        self.env.observe(index, &name, "running", "");
        let verb = if cancels { "Cancelling" } else { "Waiting for" };
        let said = format!("{verb} steps in the background: {}", self.background.names(&steps));
        self.env.job.log.notice(index, &said).await;
        if cancels {
            let running = steps.iter().filter_map(|step| self.background.steps.get(step));
            running.for_each(|step| step.cancel.cancel());
        }
        let mut end = StepResult::new(Conclusion::Success);
        for step in &steps {
            self.join(*step, place, cancels).await;
            let Some(step) = self.background.steps.get_mut(step) else { continue };
            let Phase::Ended { conclusion, exit_code, heard } = &mut step.phase else { continue };
            if cancels {
                continue;
            }
            *heard = true;
            match (*conclusion, end.outcome) {
                (Conclusion::Failure, Conclusion::Success | Conclusion::Cancelled) => {
                    (end.outcome, end.exit_code) = (Conclusion::Failure, *exit_code);
                }
                (Conclusion::Cancelled, Conclusion::Success) => end.outcome = Conclusion::Cancelled,
                _ => {}
            }
            let said = format!("{}: {}", step.name, conclusion.as_str());
            self.env.job.log.notice(index, &said).await;
        }
        let before = place.clone();
        let scope = StepScope::new(index, &before, self.job_status());
        let conclusion = self.conclusion(tolerant, &end, &scope).await;
        let ran = FinishedStep { name, end, conclusion };
        remember(place, id, &ran);
        self.ended(index, &mark, id.map(str::to_owned), ran, began.elapsed()).await;
    }
}

/// A wait, or a cancel.
struct Gathering<'a> {
    index: i32,
    name: String,
    steps: Vec<i32>,
    cancels: bool,
    tolerant: Option<&'a Tree>,
}
