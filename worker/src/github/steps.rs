//! GitHub's rules for the steps of a job, as the step runner asks for them.

use std::{collections::BTreeMap, sync::Arc};

use indexmap::IndexMap;
use parking_lot::Mutex;
use secrecy::SecretString;
use workflow::plan::{JobOrder, StepEntry};

use super::{command_files, contexts::GithubContexts, line_reader::CommandReader, matcher::Matchers, names, shell};
use crate::dialect::{
    line_reader::LineReader,
    shell::Shell,
    step_contexts::StepContexts,
    step_dialect::{StepDialect, StepFile},
    step_values::StepValues,
};

/// The rules, with the problem matchers that outlive their step.
#[derive(Default)]
pub(crate) struct GithubSteps {
    matchers: Arc<Mutex<Matchers>>,
}

impl StepDialect for GithubSteps {
    fn contexts(
        &self,
        order: &JobOrder,
        secrets: &BTreeMap<String, SecretString>,
        token: Option<&SecretString>,
    ) -> Arc<dyn StepContexts> {
        Arc::new(GithubContexts::new(order, secrets, token))
    }

    fn step_names(&self, entries: &[StepEntry]) -> Vec<String> {
        names::names(entries)
    }

    fn shell(&self, name: &str) -> Result<Shell, String> {
        shell::named(name)
    }

    fn default_shell(&self, has_bash: bool) -> Shell {
        shell::default_for(has_bash)
    }

    fn line_reader(&self, environment: &IndexMap<String, String>, workspace: &str) -> Box<dyn LineReader> {
        Box::new(CommandReader::new(environment, workspace, Arc::clone(&self.matchers)))
    }

    fn step_files(&self, temp: &str, number: &str) -> Vec<StepFile> {
        command_files::of_process(temp, number)
    }

    fn read_step_file(&self, file: &StepFile, text: &str) -> Result<StepValues, String> {
        command_files::read(file, text).map_err(|error| error.to_string())
    }
}
