//! What every step of a job works with: the job, its machine, its contexts, and what steps left for its report.

use workflow::plan::{Annotation, Conclusion};

use super::{
    Job,
    contexts::Contexts,
    evaluate::Evaluator,
    step::{StepResult, StepScope},
};
use crate::{dialect::step_contexts::JobStatus, sandbox::Machine};

/// Longest step summary, in bytes (GitHub docs, "Job summaries").
pub(super) const SUMMARY: usize = 1 << 20;
/// Summaries of one job together, in bytes: they travel with its report.
const SUMMARIES: usize = 4 << 20;
/// Annotations of one job.
const ANNOTATIONS: usize = 1000;

/// Shared by the steps that run one after the other; a step in the background has its own.
pub(super) struct StepEnv<'a> {
    pub(super) job: &'a mut Job,
    pub(super) machine: &'a dyn Machine,
    pub(super) contexts: Contexts,
    pub(super) annotations: Vec<Annotation>,
    pub(super) summary: String,
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
            annotations: Vec::new(),
            summary: String::new(),
            started: false,
            has_event: false,
        }
    }

    pub(super) fn evaluator(&self, scope: &StepScope<'_>) -> Evaluator<'a> {
        self.contexts.evaluator(scope.place, &scope.env, &scope.action, scope.status, self.machine)
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

    pub(super) fn summarise(&mut self, text: &str) {
        if text.len() > SUMMARY {
            self.error(format!("the step summary has {} bytes and is left out; it may have {SUMMARY}", text.len()));
            return;
        }
        if self.summary.len() + text.len() > SUMMARIES {
            self.error(format!("the step summary is left out: those of a job may have {SUMMARIES} bytes together"));
            return;
        }
        if !self.summary.is_empty() && !self.summary.ends_with('\n') {
            self.summary.push('\n');
        }
        self.summary.push_str(text);
    }

    pub(super) fn annotate(&mut self, annotations: Vec<Annotation>) {
        let room = ANNOTATIONS.saturating_sub(self.annotations.len());
        self.annotations.extend(annotations.into_iter().take(room));
    }

    pub(super) fn error(&mut self, message: String) {
        self.annotations.push(Annotation { level: "error".into(), message, ..Annotation::default() });
    }
}
