//! `uses:` steps: which action is meant, its inputs, and composite actions.

mod action_loader;
mod artifact;
pub mod artifact_zip;
mod build_context;
mod cache;
mod checkout;
mod docker;
mod dockerignore;
mod image_build;
mod node;
mod node_program;
mod post_step;
mod pre_post;
mod workspace_tar;

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value};
use workflow::{
    expression::Object,
    plan::{Conclusion, Env, Step, StepAction},
};

use self::action_loader::own_repository;
pub(super) use self::{
    action_loader::{LoadedActions, PreStep},
    node_program::NodeProgram,
    post_step::PostStep,
};
use super::{
    step::{StepResult, StepScope},
    steps::{StepRunner, remember},
};
use crate::{
    dialect::step_contexts::{ActionFolder, JobStatus, StepFrame},
    fetch::ActionRef,
    github::{
        action::{self, Action, ActionRuns},
        contexts::github_context,
        uses::{self, Uses},
    },
    sandbox::Machine,
};

/// Composite actions inside composite actions (GitHub's runner has the same limit).
const DEPTH: usize = 10;
/// Longest action.yml, in bytes.
const ACTION_FILE: u64 = 1 << 20;

/// An action that lies in the machine.
#[derive(Clone)]
pub(super) struct LoadedAction {
    /// As written in `uses:`.
    uses: String,
    /// Its repository, as steps see it.
    root: String,
    /// Its folder in there.
    path: String,
    /// Both; empty: it is an image and nothing else.
    folder: String,
    action: Arc<Action>,
    /// Where it comes from; `None`: the workspace.
    remote: Option<ActionRef>,
}

impl LoadedAction {
    /// Reads the action at a path of a repository that lies in the machine at `root`.
    async fn read(
        machine: &dyn Machine,
        uses: &str,
        (root, path): (String, String),
        remote: Option<ActionRef>,
    ) -> Result<Self, String> {
        let folder = if path.is_empty() { root.clone() } else { format!("{root}/{path}") };
        let paths = ["action.yml", "action.yaml", "Dockerfile", "dockerfile"].map(|name| format!("{folder}/{name}"));
        let files = machine.read(&paths, ACTION_FILE).await.map_err(|error| format!("{uses}: {error}"))?;
        let Some((file, content)) = files.into_iter().next() else {
            let hint = if remote.is_none() { "; did the job run actions/checkout before?" } else { "" };
            return Err(format!("{uses}: there is no action.yml, action.yaml or Dockerfile in {folder}{hint}"));
        };
        let name = file.rsplit('/').next().unwrap_or_default();
        let action = Arc::new(match name.eq_ignore_ascii_case("dockerfile") {
            // A folder with nothing but a Dockerfile is an action, too.
            true => Action::image(name),
            false => action::parse(&file, &String::from_utf8_lossy(&content))?,
        });
        Ok(Self { uses: uses.to_owned(), root, path, folder, action, remote })
    }

    /// An action that is an image and nothing else.
    fn of_image(uses: &str) -> Self {
        let [root, path, folder] = <[String; 3]>::default();
        Self { uses: uses.to_owned(), root, path, folder, action: Arc::new(Action::image(uses)), remote: None }
    }

    /// Where a file that the action names lies in its repository, which actions of one repository share.
    fn file(&self, named: &str) -> Result<String, String> {
        let within = Some(named).filter(|named| !named.starts_with('/'));
        let file = within.and_then(|named| uses::inside(&format!("{}/{named}", self.path)));
        file.filter(|file| !file.is_empty())
            .ok_or_else(|| format!("{named} lies outside of the action's repository: name a path that stays inside it"))
    }

    /// Where the action's own steps and programs are evaluated.
    fn place(&self, env: IndexMap<String, String>, inputs: Option<Object>) -> StepFrame {
        let remote = self.remote.as_ref();
        let action = ActionFolder {
            path: self.folder.clone(),
            repository: remote.map(|remote| remote.repository.clone()).unwrap_or_default(),
            reference: remote.map(|remote| remote.reference.clone()).unwrap_or_default(),
        };
        StepFrame { steps: Object::new(), inputs, env, action: Some(action) }
    }
}

impl StepRunner<'_> {
    pub(super) async fn uses(
        &mut self,
        step: &Step,
        uses: &str,
        with: &Env,
        scope: &StepScope<'_>,
    ) -> Result<StepResult, String> {
        let given = self.given(with, scope).await?;
        let mut shown = format!("Run {uses}");
        for (name, value) in &given {
            shown.push_str(&format!("\n| {name}: {}", value.replace('\n', "\n|   ")));
        }
        self.env.job.log.notice(scope.index, &shown).await;
        match Uses::parse(uses)? {
            Uses::BuiltIn(name) => self.built_in(&name, step, &given, scope).await,
            Uses::Local(folder) => {
                let place = (self.env.machine.workspace(), folder);
                let loaded = LoadedAction::read(self.env.machine, uses, place, None).await?;
                self.act(step, loaded, &given, scope).await
            }
            Uses::OwnRepository(path) => {
                let around = scope.place.action.as_ref().map(|around| ActionRef {
                    repository: around.repository.clone(),
                    path: String::new(),
                    reference: around.reference.clone(),
                });
                let remote = own_repository(&self.env.job.attempt.order, around.as_ref(), path);
                let loaded = self.actions.load(self.env.job, self.env.machine, uses, &remote, scope.index).await?;
                self.act(step, loaded, &given, scope).await
            }
            Uses::Remote(remote) => {
                let loaded = self.actions.load(self.env.job, self.env.machine, uses, &remote, scope.index).await?;
                self.act(step, loaded, &given, scope).await
            }
            Uses::Image(_) => Box::pin(self.act(step, LoadedAction::of_image(uses), &given, scope)).await,
        }
    }

    /// The job's `github` context.
    fn github(&self) -> Map<String, Value> {
        github_context(&self.env.job.attempt.order, self.env.contexts.origin())
    }

    /// An action that the worker does itself.
    async fn built_in(
        &mut self,
        name: &str,
        step: &Step,
        given: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<StepResult, String> {
        let done = match name {
            "actions/cache" => match self.restore_cache(given, scope, false).await {
                Ok((end, saving)) => {
                    self.save_later(step, saving, scope).await;
                    Ok(end)
                }
                Err(problem) => Err(problem),
            },
            "actions/cache/restore" => self.restore_cache(given, scope, true).await.map(|(end, _)| end),
            "actions/cache/save" => self.save_given(given, scope).await,
            "actions/upload-artifact" => self.upload_artifact(given, scope).await,
            "actions/download-artifact" => self.download_artifact(given, scope).await,
            _ => return self.checkout(given, scope).await,
        };
        done.map_err(|problem| format!("{name}: {problem}"))
    }

    async fn act(
        &mut self,
        step: &Step,
        loaded: LoadedAction,
        given: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<StepResult, String> {
        if scope.depth >= DEPTH {
            return Err(format!("{}: actions use each other more than {DEPTH} deep", loaded.uses));
        }
        if !loaded.folder.is_empty() {
            self.warn_of_inputs(&loaded, given, scope).await;
        }
        let inputs = self.inputs(&loaded, given, scope).await?;
        match &loaded.action.runs {
            ActionRuns::Composite(steps) => self.composite(steps, &loaded, &inputs, scope).await,
            runs @ (ActionRuns::Node(_) | ActionRuns::Docker(_)) => {
                if let (Some(_), None) = (runs.pre(), &loaded.remote) {
                    let said = format!("{}: what a local action runs before the job is left out", loaded.uses);
                    self.env.warn(scope.index, &said).await;
                }
                let place = (scope.depth > 0).then(|| scope.place.clone());
                self.register(step, &loaded, &scope.key, scope.action.clone(), place, scope.depth).await;
                match runs {
                    ActionRuns::Node(node) => self.program(&loaded, &node.using, &node.main, &inputs, scope).await,
                    ActionRuns::Docker(docker) => self.contain(&loaded, docker, None, &inputs, scope).await,
                    ActionRuns::Composite(_) => Ok(StepResult::new(Conclusion::Skipped)),
                }
            }
        }
    }

    /// `with:`, evaluated.
    async fn given(&self, with: &Env, scope: &StepScope<'_>) -> Result<IndexMap<String, String>, String> {
        self.env.evaluator(scope).texts("with", with).await
    }

    /// `with:` of a step that uses an action, evaluated, over the action's defaults.
    async fn inputs_of(
        &self,
        step: &Step,
        loaded: &LoadedAction,
        scope: &StepScope<'_>,
    ) -> Result<IndexMap<String, String>, String> {
        let StepAction::Uses { with, .. } = &step.action else { return Ok(IndexMap::new()) };
        let given = self.given(with, scope).await?;
        self.inputs(loaded, &given, scope).await
    }

    async fn inputs(
        &self,
        loaded: &LoadedAction,
        given: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<IndexMap<String, String>, String> {
        let LoadedAction { uses, action, .. } = loaded;
        let evaluator = self.env.evaluator(scope);
        let mut inputs = IndexMap::new();
        for (name, input) in &action.inputs {
            let given = given.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            let value = match (given, &input.default) {
                (Some((_, value)), _) => value.clone(),
                (None, Some(default)) => {
                    evaluator.text(default).await.map_err(|error| format!("{uses}: input {name}: {error}"))?
                }
                (None, None) => String::new(),
            };
            inputs.insert(name.clone(), value);
        }
        for (name, value) in given {
            if !action.inputs.keys().any(|key| key.eq_ignore_ascii_case(name)) {
                inputs.insert(name.clone(), value.clone());
            }
        }
        Ok(inputs)
    }

    async fn warn_of_inputs(&mut self, loaded: &LoadedAction, given: &IndexMap<String, String>, scope: &StepScope<'_>) {
        let LoadedAction { uses, action, .. } = loaded;
        // A Docker action always takes them (GitHub docs, `steps[*].with.args` and `.entrypoint`).
        let is_docker = matches!(action.runs, ActionRuns::Docker(_));
        let of_docker =
            |name: &str| is_docker && ["args", "entrypoint"].iter().any(|key| key.eq_ignore_ascii_case(name));
        for name in given.keys().filter(|name| !of_docker(name)) {
            let said = match action.inputs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)) {
                None => Some(format!("{uses} declares no input {name}")),
                Some((_, input)) => input.deprecation.as_ref().map(|why| format!("input {name}: {why}")),
            };
            if let Some(said) = said {
                self.env.warn(scope.index, &said).await;
            }
        }
    }

    async fn composite(
        &mut self,
        steps: &[Step],
        loaded: &LoadedAction,
        inputs: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<StepResult, String> {
        let mut env = scope.place.env.clone();
        env.extend(scope.env.clone());
        let mut place = loaded.place(env, Some(context(inputs)));
        let mut status = JobStatus::Success;
        let mut end = StepResult::new(Conclusion::Success);
        for (index, step) in steps.iter().enumerate() {
            let name = step.id.clone().unwrap_or_else(|| format!("__step_{}", index + 1));
            let inner = StepScope {
                index: scope.index,
                key: format!("{}/{index}", scope.key),
                place: &place,
                env: IndexMap::new(),
                action: format!("{}_{name}", scope.action),
                status,
                deadline: scope.deadline,
                depth: scope.depth + 1,
            };
            let ran = Box::pin(self.step(step, inner)).await;
            match ran.conclusion {
                Conclusion::Failure => {
                    status = JobStatus::Failure;
                    if end.outcome == Conclusion::Success {
                        end.outcome = Conclusion::Failure;
                        end.exit_code = ran.end.exit_code;
                    }
                }
                Conclusion::Cancelled => end.outcome = Conclusion::Cancelled,
                Conclusion::Success | Conclusion::Skipped => {}
            }
            remember(&mut place, step.id.as_deref(), &ran);
        }
        let evaluator = self.env.contexts.evaluator(
            &place,
            &IndexMap::new(),
            &scope.action,
            self.env.status_of(status),
            self.env.machine,
        );
        for (name, text) in &loaded.action.outputs {
            end.outputs
                .insert(name.clone(), evaluator.text(text).await.map_err(|error| format!("output {name}: {error}"))?);
        }
        Ok(end)
    }
}

/// A text of a context; empty where it has none.
fn text<'c>(context: &'c Map<String, Value>, key: &str) -> &'c str {
    context.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Inputs as the context `inputs`.
fn context(inputs: &IndexMap<String, String>) -> Object {
    inputs.iter().map(|(name, value)| (name, value.as_str())).collect()
}
