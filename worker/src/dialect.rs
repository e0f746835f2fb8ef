//! The seam between the step runner and a workflow language.
//!
//! The step runner asks a [`StepDialect`] how a job's steps run in the language of its workflow, and names no language
//! itself. Another language is a module beside [`github`](crate::github) and an arm of [`of`].

pub(crate) mod line_reader;
pub(crate) mod shell;
pub(crate) mod step_contexts;
pub(crate) mod step_dialect;
pub(crate) mod step_values;

use std::sync::Arc;

use workflow::plan::Dialect;

use self::step_dialect::StepDialect;
use crate::github::steps::GithubSteps;

/// The rules for the steps of one job.
pub(crate) fn of(dialect: Dialect) -> Arc<dyn StepDialect> {
    match dialect {
        Dialect::Github => Arc::new(GithubSteps::default()),
    }
}
