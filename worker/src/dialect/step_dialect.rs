//! What a workflow language decides about the steps of one job.

use std::{collections::BTreeMap, sync::Arc};

use indexmap::IndexMap;
use secrecy::SecretString;
use workflow::plan::{JobOrder, StepEntry};

use super::{line_reader::LineReader, shell::Shell, step_contexts::StepContexts, step_values::StepValues};

/// The rules of a language, with what its steps share.
pub(crate) trait StepDialect: Send + Sync {
    /// Contexts and default variables, as far as they are known before the job has a machine. `token`: the attempt's own,
    /// where there are services that take it.
    fn contexts(
        &self,
        order: &JobOrder,
        secrets: &BTreeMap<String, SecretString>,
        token: Option<&SecretString>,
    ) -> Arc<dyn StepContexts>;

    /// What each entry of the job's steps is called for its programs: its id, or a name of its own.
    fn step_names(&self, entries: &[StepEntry]) -> Vec<String>;

    /// A shell as written. The error says what to write instead.
    fn shell(&self, name: &str) -> Result<Shell, String>;

    /// The shell of a step that names none.
    fn default_shell(&self, has_bash: bool) -> Shell;

    /// What listens to a process, which has this environment and workspace.
    fn line_reader(&self, environment: &IndexMap<String, String>, workspace: &str) -> Box<dyn LineReader>;

    /// Files that a process may leave values in; `number` tells it from the others of its job.
    fn step_files(&self, temp: &str, number: &str) -> Vec<StepFile>;

    /// Reads what a process left in one of its files. The error fails its step.
    fn read_step_file(&self, file: &StepFile, text: &str) -> Result<StepValues, String>;
}

/// A file that a process may leave values in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepFile {
    /// The variable that holds its path.
    pub(crate) variable: &'static str,
    /// Where it lies in the machine.
    pub(crate) path: String,
    /// It is text for people: too much of it is left out, and fails nothing.
    pub(crate) is_summary: bool,
}
