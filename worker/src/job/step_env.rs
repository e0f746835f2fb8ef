//! What every step of a job works with: the job, its machine, its contexts, and what steps left for its report.

use workflow::plan::{Annotation, Conclusion};

use super::{
    Job,
    contexts::Contexts,
    evaluate::Evaluator,
    report_limits::StepMessages,
    step::{StepResult, StepScope},
};
use crate::{dialect::step_contexts::JobStatus, sandbox::Machine};

/// Shared by the steps that run one after the other; a step in the background has its own.
pub(super) struct StepEnv<'a> {
    pub(super) job: &'a mut Job,
    pub(super) machine: &'a dyn Machine,
    pub(super) contexts: Contexts,
    pub(super) messages: StepMessages,
    /// Bytes of outputs, variables and states that steps left.
    pub(super) values_size: usize,
    /// A process ran.
    pub(super) started: bool,
    /// The event's payload lies in the job's machine.
    pub(super) has_event: bool,
}

impl<'a> StepEnv<'a> {
    pub(super) fn new(job: &'a mut Job, machine: &'a dyn Machine, contexts: Contexts) -> Self {
        Self {
            job,
            machine,
            contexts,
            messages: StepMessages::default(),
            values_size: 0,
            started: false,
            has_event: false,
        }
    }

    pub(super) fn evaluator(&self, scope: &StepScope<'_>) -> Evaluator<'a> {
        let evaluator = self.contexts.evaluator(scope.place, &scope.env, &scope.action, scope.status, self.machine);
        Evaluator { ends: Some((self.job.deadline.clone(), scope.deadline)), ..evaluator }
    }

    /// What the status functions say: a job that ends early is cancelled for every step that still runs.
    pub(super) fn status_of(&self, status: JobStatus) -> JobStatus {
        if self.job.deadline.ended.is_some() { JobStatus::Cancelled } else { status }
    }

    pub(super) fn observe(&self, index: i32, name: &str, state: &str, outcome: &str) {
        let name = self.job.masker.text(name);
        self.job.observer.step(index.unsigned_abs(), &name, state, outcome);
    }

    /// A step that cannot run fails with a message that stands in log and annotations.
    pub(super) async fn refuse(&mut self, index: i32, problem: &str) -> StepResult {
        self.job.log.notice(index, &format!("##[error]{problem}")).await;
        self.error(problem.to_owned());
        StepResult::new(Conclusion::Failure)
    }

    /// Something that a step can live with stands in log and annotations.
    pub(super) async fn warn(&mut self, index: i32, what: &str) {
        self.job.log.notice(index, &format!("##[warning]{what}")).await;
        self.warning(what.to_owned());
    }

    pub(super) fn warning(&mut self, message: String) {
        let annotation = Annotation { level: "warning".into(), message, ..Annotation::default() };
        self.messages.annotate([annotation], &self.job.masker);
    }

    pub(super) fn error(&mut self, message: String) {
        let annotation = Annotation { level: "error".into(), message, ..Annotation::default() };
        self.messages.annotate([annotation], &self.job.masker);
    }
}
