//! The contexts of a job's steps and the variables made of them (GitHub docs, "Contexts reference").

use std::{collections::BTreeMap, sync::Arc};

use indexmap::IndexMap;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value as Json, json};
use workflow::{
    expression::{Object, Value},
    github::TOKEN_SECRET,
    plan::JobOrder,
};

use super::{command_files::command_file, environment};
use crate::{
    dialect::step_contexts::{StepContexts, StepFrame, StepView},
    sandbox::{JobPaths, SandboxKind},
};

/// Names of the contexts of a step (GitHub docs, "Contexts reference").
const NAMES: &[&str] =
    &["github", "env", "vars", "job", "steps", "runner", "secrets", "strategy", "matrix", "needs", "inputs"];

/// Default variables that `env` may change: `CI`, as on GitHub, and where GitHub's API is, which here may be another.
const OVERRIDABLE: [&str; 3] = ["CI", "GITHUB_API_URL", "GITHUB_GRAPHQL_URL"];

/// What all steps of a job share.
#[derive(Clone)]
pub(super) struct GithubContexts {
    base: Object,
    /// The same for all steps; only `action` and what belongs to it differs.
    github: Map<String, Json>,
    /// Default variables made of it.
    defaults: IndexMap<String, String>,
    temp: String,
}

/// The `github` context of a job, complete but for what differs between its steps. `origin`: as in
/// [`StepContexts::located`].
pub(crate) fn github_context(order: &JobOrder, origin: Option<&str>) -> Map<String, Json> {
    let mut github = order.contexts.get("github").and_then(Json::as_object).cloned().unwrap_or_default();
    github.insert("job".into(), order.id.clone().into());
    environment::complete(&mut github);
    relocate(&mut github, origin);
    github
}

fn relocate(github: &mut Map<String, Json>, origin: Option<&str>) {
    if let Some(origin) = origin {
        github.values_mut().for_each(|value| environment::relocate(value, origin));
    }
}

/// The job's secrets, and its own token under each name that stands for it. A secret that was given counts before it
/// (GitHub docs, "`GITHUB_TOKEN`": `github.token` and `secrets.GITHUB_TOKEN` are one).
fn with_token<'s>(
    given: &'s BTreeMap<String, SecretString>,
    names: &'s [String],
    token: Option<&'s SecretString>,
) -> BTreeMap<&'s str, &'s str> {
    let mut secrets: BTreeMap<&str, &str> =
        given.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
    if let Some(own) = given.iter().find(|(name, _)| name.eq_ignore_ascii_case(TOKEN_SECRET)) {
        secrets.insert(TOKEN_SECRET, own.1.expose_secret());
    }
    if let Some(token) = token {
        for name in std::iter::once(TOKEN_SECRET).chain(names.iter().map(String::as_str)) {
            secrets.entry(name).or_insert(token.expose_secret());
        }
    }
    secrets
}

impl GithubContexts {
    pub(super) fn new(
        order: &JobOrder,
        secrets: &BTreeMap<String, SecretString>,
        token: Option<&SecretString>,
    ) -> Self {
        let secrets = with_token(secrets, &order.token_secrets, token);
        let mut github = github_context(order, None);
        let token = secrets.get(TOKEN_SECRET).copied().unwrap_or_default();
        github.insert("token".into(), token.into());
        let mut base = Object::new();
        for name in NAMES {
            let value = order.contexts.get(*name).map(Value::from_json).filter(|value| !matches!(value, Value::Null));
            base.insert(name, value.unwrap_or_else(|| Object::new().into()));
        }
        base.insert("secrets", secrets.into_iter().collect::<Object>());
        base.insert("github", Value::from_json(&github.clone().into()));
        Self { base, github, defaults: IndexMap::new(), temp: String::new() }
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

    /// A context as far as it is the same for all steps.
    fn object(&self, name: &str) -> Object {
        match self.base.get(name) {
            Some(Value::Object(object)) => Object::clone(object),
            _ => Object::new(),
        }
    }

    fn github_for(&self, step: &StepView<'_>) -> Object {
        let mut github = self.object("github");
        github.insert("action", step.name);
        for (key, kind) in [("env", "set_env"), ("path", "add_path")] {
            github.insert(key, command_file(&self.temp, kind, step.number).as_str());
        }
        let action = step.frame.action.as_ref();
        github.insert("action_repository", action.map(|action| action.repository.as_str()).unwrap_or_default());
        github.insert("action_ref", action.map(|action| action.reference.as_str()).unwrap_or_default());
        if let Some(action) = action {
            github.insert("action_path", action.path.as_str());
            github.insert("action_status", step.status.as_str());
        }
        github
    }
}

impl StepContexts for GithubContexts {
    fn located(&self, sandbox: SandboxKind, paths: &JobPaths, origin: Option<&str>) -> Arc<dyn StepContexts> {
        let mut made = self.clone();
        relocate(&mut made.github, origin);
        made.github.insert("workspace".into(), paths.workspace.clone().into());
        made.github.insert("event_path".into(), format!("{}/_github_workflow/event.json", paths.temp).into());
        made.temp.clone_from(&paths.temp);
        let mut runner = runner(sandbox, paths);
        if self.asks_for_debug() {
            runner.insert("debug".into(), "1".into());
        }
        made.defaults = environment::defaults(&made.github, &runner);
        made.base.insert("runner", Value::from_json(&runner.into()));
        made.base.insert("github", Value::from_json(&made.github.clone().into()));
        Arc::new(made)
    }

    fn of_job(&self) -> &Object {
        &self.base
    }

    fn of_step(&self, step: &StepView<'_>) -> Object {
        let mut contexts = self.base.clone();
        contexts.insert("github", self.github_for(step));
        contexts.insert("env", step.env.clone());
        contexts.insert("steps", step.frame.steps.clone());
        if let Some(inputs) = &step.frame.inputs {
            contexts.insert("inputs", inputs.clone());
            // A composite action sees secrets only as inputs (GitHub docs, "Metadata syntax").
            contexts.insert("secrets", Object::new());
        }
        let container = json!({"id": step.container, "network": step.container});
        let mut job = self.object("job");
        job.insert("status", step.status.as_str());
        job.insert("container", Value::from_json(&container));
        job.insert("services", Value::from_json(&step.services.clone().into()));
        contexts.insert("job", job);
        contexts
    }

    fn set_variables(&self, variables: &mut IndexMap<String, String>, frame: &StepFrame, name: &str) {
        let kept: Vec<_> =
            OVERRIDABLE.iter().filter_map(|name| Some(((*name).to_owned(), variables.get(*name)?.clone()))).collect();
        variables.extend(self.defaults.clone());
        variables.extend(kept);
        variables.insert("GITHUB_ACTION".into(), name.to_owned());
        let action = frame.action.clone();
        if let Some(action) = &action {
            variables.insert("GITHUB_ACTION_PATH".into(), action.path.clone());
        }
        let action = action.unwrap_or_default();
        variables.insert("GITHUB_ACTION_REPOSITORY".into(), action.repository);
        variables.insert("GITHUB_ACTION_REF".into(), action.reference);
    }

    /// As it lies in `GITHUB_EVENT_PATH`.
    fn event_file(&self) -> Option<(String, Vec<u8>)> {
        let path = self.github.get("event_path").and_then(Json::as_str).unwrap_or_default().to_owned();
        let event = self.github.get("event").cloned().unwrap_or_else(|| json!({}));
        Some((path, serde_json::to_vec_pretty(&event).unwrap_or_default()))
    }
}

fn runner(sandbox: SandboxKind, paths: &JobPaths) -> Map<String, Json> {
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
