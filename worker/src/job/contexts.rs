//! The contexts and the environment that a job's steps see.

use std::{collections::BTreeMap, sync::Arc};

use indexmap::IndexMap;
use secrecy::ExposeSecret as _;
use serde_json::{Map, json};
use workflow::{
    expression::{EvaluationLimits, NoHostFunctions, Object, Scope, Value, interpolate_tree},
    plan::{EnvSource, Tree},
};

use super::{
    JobAttempt,
    actions_api::{ActionsApiAccess, ServicePort},
    command_files::command_file,
};
use crate::{
    github::{
        environment::{self, search_path},
        evaluate::{Evaluator, JobStatus},
        uses::ActionRef,
    },
    sandbox::{JobPaths, Machine, SandboxKind},
};

/// Names of the contexts of a step (GitHub docs, "Contexts reference").
const NAMES: &[&str] =
    &["github", "env", "vars", "job", "steps", "runner", "secrets", "strategy", "matrix", "needs", "inputs"];

/// What all steps of a job share. A step in the background has a copy, until it is waited for.
#[derive(Clone)]
pub(super) struct Contexts {
    base: Object,
    /// The same for all steps; only `action` and what belongs to it differs.
    github: Map<String, serde_json::Value>,
    /// Default variables made of it.
    defaults: IndexMap<String, String>,
    /// Variables of image and container, below everything else.
    machine: IndexMap<String, String>,
    /// Request, workflow and job, and what steps added by `GITHUB_ENV`.
    env: IndexMap<String, String>,
    /// What steps added by `GITHUB_PATH`, oldest first.
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
    temp: String,
}

/// What steps added for those after them.
#[derive(Clone, Default)]
pub(super) struct StepAdditions {
    env: IndexMap<String, String>,
    paths: Vec<String>,
}

/// Where expressions are evaluated: a job's steps, or a composite action's.
#[derive(Clone, Default)]
pub(super) struct StepFrame {
    /// `steps` context.
    pub(super) steps: Object,
    /// Inputs of the composite action; `None`: the job's.
    pub(super) inputs: Option<Object>,
    /// `env` of the steps that use the action, around it.
    pub(super) env: IndexMap<String, String>,
    /// Folder of the action, as steps see it.
    pub(super) action_path: Option<String>,
    /// Where the action comes from; `None`: the workspace.
    pub(super) remote: Option<ActionRef>,
}

impl Contexts {
    pub(super) fn new(attempt: &JobAttempt) -> Self {
        let order = &attempt.order;
        let mut github = order.contexts.get("github").and_then(Tree::as_object).cloned().unwrap_or_default();
        github.insert("job".into(), order.id.clone().into());
        environment::complete(&mut github);
        let mut base = Object::new();
        for name in NAMES {
            let value = order.contexts.get(*name).map(Value::from_json).filter(|value| !matches!(value, Value::Null));
            base.insert(name, value.unwrap_or_else(|| Object::new().into()));
        }
        let secrets = attempt.secrets.iter().map(|(name, value)| (name.as_str(), value.expose_secret()));
        base.insert("secrets", secrets.collect::<Object>());
        base.insert("github", Value::from_json(&github.clone().into()));
        Self {
            base,
            github,
            defaults: IndexMap::new(),
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
            temp: String::new(),
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

    /// A value evaluated where no machine is yet: `hashFiles` and status functions do not exist.
    pub(super) fn before_machine(&self, tree: &Tree) -> Result<Value, String> {
        let scope = Scope { contexts: &self.base, functions: &NoHostFunctions, limits: EvaluationLimits::default() };
        interpolate_tree(tree, &scope).map_err(|error| format!("container: {error}"))
    }

    /// A value evaluated before the first step, with the job's own `env`.
    pub(super) fn before_steps(&self, tree: &Tree) -> Result<Value, String> {
        let mut contexts = self.base.clone();
        contexts.insert("env", self.env.iter().map(|(name, value)| (name, value.as_str())).collect::<Object>());
        let scope = Scope { contexts: &contexts, functions: &NoHostFunctions, limits: EvaluationLimits::default() };
        interpolate_tree(tree, &scope).map_err(|error| error.to_string())
    }

    /// What depends on the paths of the job becomes known.
    pub(super) fn locate(&mut self, sandbox: SandboxKind, paths: &JobPaths) {
        self.github.insert("workspace".into(), paths.workspace.clone().into());
        self.github.insert("event_path".into(), format!("{}/_github_workflow/event.json", paths.temp).into());
        self.temp.clone_from(&paths.temp);
        let mut runner = runner(sandbox, paths);
        if self.asks_for_debug() {
            runner.insert("debug".into(), "1".into());
        }
        self.defaults = environment::defaults(&self.github, &runner);
        self.base.insert("runner", Value::from_json(&runner.into()));
        self.base.insert("github", Value::from_json(&self.github.clone().into()));
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
        self.machine.extend(machine.image_environment());
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

    /// GitHub docs, "Enabling debug logging": a secret or a variable of this name.
    fn asks_for_debug(&self) -> bool {
        ["secrets", "vars"].iter().any(|context| match self.base.get(context) {
            Some(Value::Object(values)) => {
                values.get("ACTIONS_STEP_DEBUG").is_some_and(|value| &*value.as_text() == "true")
            }
            _ => false,
        })
    }

    /// The event's payload, as it lies in `GITHUB_EVENT_PATH`.
    pub(super) fn event(&self) -> (String, Vec<u8>) {
        let path = self.github.get("event_path").and_then(Tree::as_str).unwrap_or_default().to_owned();
        let event = self.github.get("event").cloned().unwrap_or_else(|| json!({}));
        (path, serde_json::to_vec_pretty(&event).unwrap_or_default())
    }

    /// `github.event`.
    pub(super) fn payload(&self) -> &serde_json::Value {
        self.github.get("event").unwrap_or(&serde_json::Value::Null)
    }

    /// A text of the `github` context; empty where it has none.
    pub(super) fn github_text(&self, key: &str) -> &str {
        self.github.get(key).and_then(Tree::as_str).unwrap_or_default()
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
        let mut contexts = self.base.clone();
        contexts.insert("github", self.github_for(place, action, status));
        contexts.insert(
            "env",
            self.env.iter().chain(&place.env).chain(env).map(|(k, v)| (k, v.as_str())).collect::<Object>(),
        );
        contexts.insert("steps", place.steps.clone());
        if let Some(inputs) = &place.inputs {
            contexts.insert("inputs", inputs.clone());
            // A composite action sees secrets only as inputs (GitHub docs, "Metadata syntax").
            contexts.insert("secrets", Object::new());
        }
        let id = if self.in_container { self.container_id.as_str() } else { "" };
        let container = json!({"id": id, "network": id});
        let mut job = self.object("job");
        job.insert("status", status.as_str());
        job.insert("container", Value::from_json(&container));
        job.insert("services", Value::from_json(&self.services.clone().into()));
        contexts.insert("job", job);
        Evaluator { contexts, status, machine: machine.into() }
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
        let ci = variables.get("CI").cloned();
        variables.extend(self.defaults.clone());
        variables.extend(ci.map(|value| ("CI".to_owned(), value)));
        if let Some((way, access)) = &self.actions_api {
            variables.extend(way.for_every_step(access));
        }
        variables.insert("GITHUB_ACTION".into(), action.to_owned());
        if let Some(path) = &place.action_path {
            variables.insert("GITHUB_ACTION_PATH".into(), path.clone());
        }
        let remote = place.remote.as_ref();
        variables.insert("GITHUB_ACTION_REPOSITORY".into(), remote.map(|r| r.repository.clone()).unwrap_or_default());
        variables.insert("GITHUB_ACTION_REF".into(), remote.map(|r| r.reference.clone()).unwrap_or_default());
        variables
    }

    /// A context as far as it is the same for all steps.
    fn object(&self, name: &str) -> Object {
        match self.base.get(name) {
            Some(Value::Object(object)) => Object::clone(object),
            _ => Object::new(),
        }
    }

    fn github_for(&self, place: &StepFrame, action: &str, status: JobStatus) -> Object {
        let mut github = self.object("github");
        github.insert("action", action);
        for (key, kind) in [("env", "set_env"), ("path", "add_path")] {
            github.insert(key, command_file(&self.temp, kind, &self.number()).as_str());
        }
        let remote = place.remote.as_ref();
        github.insert("action_repository", remote.map(|remote| remote.repository.as_str()).unwrap_or_default());
        github.insert("action_ref", remote.map(|remote| remote.reference.as_str()).unwrap_or_default());
        if let Some(path) = &place.action_path {
            github.insert("action_path", path.as_str());
            github.insert("action_status", status.as_str());
        }
        github
    }
}

fn runner(sandbox: SandboxKind, paths: &JobPaths) -> Map<String, serde_json::Value> {
    let os = if sandbox == SandboxKind::Host && cfg!(target_os = "macos") { "macOS" } else { "Linux" };
    let arch = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X64" };
    let values = [
        ("os", os),
        ("arch", arch),
        ("name", "longshore"),
        ("environment", "self-hosted"),
        ("tool_cache", "/opt/hostedtoolcache"),
    ];
    let mut runner: Map<_, _> = values.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    runner.insert("temp".into(), paths.temp.clone().into());
    runner.insert("workspace".into(), paths.workspace.clone().into());
    runner
}
