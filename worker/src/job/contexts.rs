//! What the steps of a job share: the environment that they see and add to, and their expressions.

use std::{collections::BTreeMap, sync::Arc};

use indexmap::IndexMap;
use serde_json::Map;
use workflow::{
    expression::{EvaluationLimits, NoHostFunctions, Object, Scope, Value, interpolate_tree},
    plan::{EnvSource, Tree},
};

use super::{
    JobAttempt,
    actions_api::{ActionsApiAccess, ServicePort},
    evaluate::Evaluator,
    paths::search_path,
};
use crate::{
    dialect::{
        step_contexts::{JobStatus, StepContexts, StepFrame, StepView},
        step_dialect::StepDialect,
    },
    sandbox::{JobPaths, Machine, SandboxKind},
};

/// What all steps of a job share. A step in the background has a copy, until it is waited for.
#[derive(Clone)]
pub(super) struct Contexts {
    /// What the workflow's language makes of the job.
    language: Arc<dyn StepContexts>,
    /// Variables of image and container, below everything else.
    machine: IndexMap<String, String>,
    /// Request, workflow and job, and what steps added.
    env: IndexMap<String, String>,
    /// What steps added to the search path, oldest first.
    paths: Vec<String>,
    /// What of the two above was added since this copy was made.
    added: StepAdditions,
    /// The job names a container: its default shell is `sh`.
    pub(super) in_container: bool,
    /// `job.services`.
    pub(super) services: Map<String, serde_json::Value>,
    /// The services that actions call, and the way there.
    pub(super) actions_api: Option<(Arc<ServicePort>, ActionsApiAccess)>,
    sources: [EnvSource; 3],
    container_id: String,
    /// Number of the next process, behind what tells this copy from others: its files have both in their names.
    number: u64,
    copy: String,
}

/// What steps added for those after them.
#[derive(Clone, Default)]
pub(super) struct StepAdditions {
    env: IndexMap<String, String>,
    paths: Vec<String>,
}

impl Contexts {
    pub(super) fn new(attempt: &JobAttempt, dialect: &dyn StepDialect) -> Self {
        let order = &attempt.order;
        Self {
            language: dialect.contexts(order, &attempt.secrets, attempt.token()),
            machine: IndexMap::new(),
            env: IndexMap::new(),
            paths: Vec::new(),
            added: StepAdditions::default(),
            in_container: false,
            services: Map::new(),
            actions_api: None,
            sources: [EnvSource::Map(order.request_env.clone()), order.workflow_env.clone(), order.job.env.clone()],
            container_id: format!("{}-{}-{}", order.run, order.key.replace('/', "-"), order.attempt),
            number: 1,
            copy: String::new(),
        }
    }

    /// A copy for a step in the background; `step` tells its files from those of others.
    pub(super) fn fork(&self, step: i32) -> Self {
        Self { added: StepAdditions::default(), number: 1, copy: format!("{step}_"), ..self.clone() }
    }

    /// What was added since this copy was made.
    pub(super) fn into_added(self) -> StepAdditions {
        self.added
    }

    /// What a step in the background added holds from now on for all.
    pub(super) fn merge(&mut self, added: StepAdditions) {
        self.add_env(added.env);
        added.paths.iter().for_each(|path| self.add_path(path));
    }

    pub(super) fn add_env(&mut self, values: IndexMap<String, String>) {
        self.added.env.extend(values.clone());
        self.env.extend(values);
    }

    pub(super) fn add_path(&mut self, path: &str) {
        for paths in [&mut self.paths, &mut self.added.paths] {
            paths.retain(|known| known != path);
            paths.push(path.to_owned());
        }
    }

    /// Names the next process's files.
    pub(super) fn number(&self) -> String {
        format!("{}{}", self.copy, self.number)
    }

    /// The next process is another.
    pub(super) fn count(&mut self) {
        self.number += 1;
    }

    /// A copy as far as it can be known where no machine is yet: `paths` are those that it will have.
    pub(super) async fn before_machine(&self, sandbox: SandboxKind, paths: Option<&JobPaths>) -> Result<Self, String> {
        let mut early = self.clone();
        if let Some(paths) = paths {
            early.locate(sandbox, paths);
        }
        early.evaluate_env(None).await?;
        Ok(early)
    }

    /// A value evaluated before the first step, with the job's own `env`: `hashFiles` and status functions do not exist.
    pub(super) fn before_steps(&self, tree: &Tree) -> Result<Value, String> {
        let mut contexts = self.language.of_job().clone();
        contexts.insert("env", Object::case_sensitive(self.env.iter().map(|(name, value)| (name, value.as_str()))));
        let scope = Scope { contexts: &contexts, functions: &NoHostFunctions, limits: EvaluationLimits::default() };
        interpolate_tree(tree, &scope).map_err(|error| error.to_string())
    }

    /// Scheme, host and port at which the job's programs reach the services; `None`: the usual ones, or none.
    pub(super) fn origin(&self) -> Option<&str> {
        self.actions_api.as_ref().and_then(|(way, _)| way.other_origin())
    }

    /// What depends on the paths of the job becomes known.
    pub(super) fn locate(&mut self, sandbox: SandboxKind, paths: &JobPaths) {
        self.language = self.language.located(sandbox, paths, self.origin());
    }

    /// The machine is there: what depends on it becomes known.
    pub(super) async fn enter(
        &mut self,
        sandbox: SandboxKind,
        machine: &dyn Machine,
        container_env: BTreeMap<String, String>,
    ) -> Result<(), String> {
        self.locate(sandbox, &JobPaths { workspace: machine.workspace(), temp: machine.temp() });
        self.machine.insert("HOME".into(), machine.home());
        // A user that the job named may have another home than the image says.
        self.machine.extend(machine.image_environment().into_iter().filter(|(name, _)| name != "HOME"));
        self.machine.extend(container_env);
        self.evaluate_env(Some(machine)).await
    }

    /// Evaluates `env` of request, workflow and job, each of which sees those before it.
    pub(super) async fn evaluate_env(&mut self, machine: Option<&dyn Machine>) -> Result<(), String> {
        for index in 0..self.sources.len() {
            let Some(source) = self.sources.get(index).cloned() else {
                break;
            };
            let evaluator = self.evaluator(&StepFrame::default(), &IndexMap::new(), "", JobStatus::Success, machine);
            // Values of the request are data: an expression in them is text.
            let values = match (index, source) {
                (0, EnvSource::Map(map)) => map,
                (_, source) => evaluator.env(&source).await?,
            };
            self.env.extend(values);
        }
        Ok(())
    }

    /// The file that tells of the run's event: its path and its content.
    pub(super) fn event_file(&self) -> Option<(String, Vec<u8>)> {
        self.language.event_file()
    }

    /// The search path of the machine itself, what steps added behind it.
    pub(super) fn own_path(&self) -> String {
        let own = self.machine.get("PATH").map(String::as_str).unwrap_or_default();
        let own = search_path(&[], own);
        std::iter::once(own.as_str()).chain(self.paths.iter().rev().map(String::as_str)).collect::<Vec<_>>().join(":")
    }

    pub(super) fn evaluator<'a>(
        &self,
        place: &StepFrame,
        env: &IndexMap<String, String>,
        action: &str,
        status: JobStatus,
        machine: impl Into<Option<&'a dyn Machine>>,
    ) -> Evaluator<'a> {
        let step = StepView {
            frame: place,
            name: action,
            status,
            env: Object::case_sensitive(self.env.iter().chain(&place.env).chain(env).map(|(k, v)| (k, v.as_str()))),
            container: if self.in_container { &self.container_id } else { "" },
            services: &self.services,
            number: &self.number(),
        };
        Evaluator { contexts: self.language.of_step(&step), status, machine: machine.into(), ends: None }
    }

    /// What programs of actions are told besides: steps of `run:` are not, as on GitHub.
    pub(super) fn for_actions(&self) -> IndexMap<String, String> {
        self.actions_api.as_ref().map(|(way, access)| way.variables(access)).unwrap_or_default()
    }

    /// The whole environment of a process.
    pub(super) fn environment(
        &self,
        place: &StepFrame,
        env: &IndexMap<String, String>,
        action: &str,
    ) -> IndexMap<String, String> {
        let mut variables = self.environment_over(self.machine.clone(), place, env, action);
        let path = search_path(&self.paths, variables.get("PATH").map(String::as_str).unwrap_or_default());
        variables.insert("PATH".into(), path);
        variables
    }

    /// The environment of a process in another machine, over that of its image.
    pub(super) fn environment_over(
        &self,
        mut variables: IndexMap<String, String>,
        place: &StepFrame,
        env: &IndexMap<String, String>,
        action: &str,
    ) -> IndexMap<String, String> {
        variables.extend(self.env.clone());
        variables.extend(place.env.clone());
        variables.extend(env.clone());
        self.language.set_variables(&mut variables, place, action);
        if let Some((way, access)) = &self.actions_api {
            variables.extend(way.for_every_step(access));
        }
        variables
    }
}
