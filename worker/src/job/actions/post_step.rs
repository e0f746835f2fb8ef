//! What actions leave to be done after the job's steps.

use workflow::plan::Step;

use super::LoadedAction;
use crate::{dialect::step_contexts::StepFrame, github::action::ActionHook};

/// An action's `post:` program, which runs after the job's steps.
pub(in crate::job) struct PostStep {
    pub(super) name: String,
    /// As `StepScope::key` of its step.
    pub(in crate::job) key: String,
    pub(super) step: Step,
    pub(super) after: After,
    /// What its programs are told that its step is called.
    pub(super) action: String,
    /// Where its step stands; `None`: among the job's.
    pub(super) place: Option<StepFrame>,
    pub(super) depth: usize,
}

/// What runs after the job's steps.
pub(super) enum After {
    /// A program of an action.
    Program { loaded: LoadedAction, hook: ActionHook },
    /// The worker saves a cache, or says why not.
    Save(Option<CacheSave>),
}

/// A cache that is saved.
#[derive(Debug, Clone)]
pub(super) struct CacheSave {
    pub(super) key: String,
    pub(super) path: String,
}
