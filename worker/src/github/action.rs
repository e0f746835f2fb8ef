//! Reads `action.yml`: what an action takes, gives and runs.

use indexmap::IndexMap;
use serde_json::{Map, Value};
use workflow::{
    plan::{EnvSource, Step, StepAction, Tree},
    yaml::{self, MergeKeys, YamlNode as Yaml},
};

/// An action.
#[derive(Debug)]
pub struct Action {
    /// Declared inputs and their defaults.
    pub inputs: IndexMap<String, ActionInput>,
    /// Declared outputs; only composite actions give them a value here.
    pub outputs: IndexMap<String, String>,
    /// What it runs.
    pub runs: ActionRuns,
}

impl Action {
    /// One that is an image and says nothing else: `docker://…` or a Dockerfile.
    pub fn image(image: &str) -> Self {
        let runs = ActionRuns::Docker(DockerAction { image: image.to_owned(), ..DockerAction::default() });
        Self { inputs: IndexMap::new(), outputs: IndexMap::new(), runs }
    }
}

/// A declared input.
#[derive(Debug, Default)]
pub struct ActionInput {
    /// `default:`, which may hold expressions.
    pub default: Option<String>,
    /// `deprecationMessage:`.
    pub deprecation: Option<String>,
}

/// `runs:`.
#[derive(Debug)]
pub enum ActionRuns {
    /// `using: composite`.
    Composite(Vec<Step>),
    /// `using: node…`.
    Node(NodeAction),
    /// `using: docker`.
    Docker(DockerAction),
}

impl ActionRuns {
    /// What runs before the job's steps.
    pub fn pre(&self) -> Option<&ActionHook> {
        match self {
            Self::Composite(_) => None,
            Self::Node(node) => node.pre.as_ref(),
            Self::Docker(docker) => docker.pre.as_ref(),
        }
    }

    /// What runs after the job's steps.
    pub fn post(&self) -> Option<&ActionHook> {
        match self {
            Self::Composite(_) => None,
            Self::Node(node) => node.post.as_ref(),
            Self::Docker(docker) => docker.post.as_ref(),
        }
    }
}

/// A Docker action: an image and what is run in it.
#[derive(Debug, Clone, Default)]
pub struct DockerAction {
    /// `docker://…`, or a Dockerfile relative to the action's folder.
    pub image: String,
    /// In place of the image's.
    pub entrypoint: Option<String>,
    /// In place of the image's command; they may hold expressions.
    pub args: Vec<String>,
    /// They may hold expressions.
    pub env: IndexMap<String, String>,
    /// `pre-entrypoint:`.
    pub pre: Option<ActionHook>,
    /// `post-entrypoint:`.
    pub post: Option<ActionHook>,
}

/// A JavaScript action's programs, relative to its folder.
#[derive(Debug, Clone)]
pub struct NodeAction {
    /// `using:`, e.g. `node20`.
    pub using: String,
    /// `pre:`, which only actions of other repositories run: files of the workspace come with the steps.
    pub pre: Option<ActionHook>,
    /// `main:`.
    pub main: String,
    /// `post:`.
    pub post: Option<ActionHook>,
}

/// A program around an action.
#[derive(Debug, Clone)]
pub struct ActionHook {
    /// The program, relative to the action's folder; of a Docker action, the entrypoint.
    pub file: String,
    /// `pre-if:` or `post-if:`.
    pub condition: String,
}

/// Reads the text of an `action.yml`. The error says where what is to be changed.
pub fn parse(path: &str, text: &str) -> Result<Action, String> {
    let stream = yaml::read(text, yaml::YamlLimits::default(), MergeKeys::Keep);
    if let Some(problem) = stream.problems.first() {
        return Err(format!("{path}:{}:{}: {}", problem.span.line, problem.span.column, problem.message));
    }
    let root = stream.documents.first().map(Yaml::to_json).unwrap_or_default();
    let root = root.as_object().ok_or_else(|| format!("{path}: it is no mapping"))?;
    read(root).map_err(|problem| format!("{path}: {problem}"))
}

/// Makes an action of its file's content. The error says what to change.
fn read(root: &Map<String, Value>) -> Result<Action, String> {
    let runs = root.get("runs").and_then(Value::as_object).ok_or("it has no `runs:` mapping")?;
    let using = runs.get("using").and_then(Value::as_str).ok_or("`runs.using` is missing")?;
    let entries = |key: &str| root.get(key).and_then(Value::as_object).into_iter().flatten();
    Ok(Action {
        inputs: entries("inputs").map(|(name, input)| (name.clone(), read_input(input))).collect(),
        outputs: entries("outputs")
            .filter_map(|(name, output)| Some((name.clone(), scalar(output.get("value")?))))
            .collect(),
        runs: read_runs(using, runs)?,
    })
}

fn read_runs(using: &str, runs: &Map<String, Value>) -> Result<ActionRuns, String> {
    let using = using.to_ascii_lowercase();
    if using == "composite" {
        let steps = runs.get("steps").and_then(Value::as_array).ok_or("`runs.steps` is missing")?;
        let steps = steps
            .iter()
            .enumerate()
            .map(|(index, step)| read_step(step).map_err(|error| format!("step {}: {error}", index + 1)));
        return Ok(ActionRuns::Composite(steps.collect::<Result<_, _>>()?));
    }
    let text = |key: &str| runs.get(key).filter(|value| !value.is_null()).map(scalar);
    let hook = |file: &str, condition: &str| {
        let condition = text(condition).unwrap_or_else(|| "always()".to_owned());
        text(file).map(|file| ActionHook { file, condition })
    };
    if using.strip_prefix("node").is_some_and(|version| version.parse::<u32>().is_ok()) {
        let main = text("main").ok_or("`runs.main` is missing")?;
        let (pre, post) = (hook("pre", "pre-if"), hook("post", "post-if"));
        return Ok(ActionRuns::Node(NodeAction { using, pre, main, post }));
    }
    if using == "docker" {
        return Ok(ActionRuns::Docker(DockerAction {
            image: text("image").ok_or("`runs.image` is missing: a Dockerfile or docker://IMAGE")?,
            entrypoint: text("entrypoint"),
            args: runs.get("args").and_then(Value::as_array).into_iter().flatten().map(scalar).collect(),
            env: mapping(runs.get("env")),
            pre: hook("pre-entrypoint", "pre-if"),
            post: hook("post-entrypoint", "post-if"),
        }));
    }
    Err(format!("`runs.using: {using}` is not known: use composite, docker or node20"))
}

fn read_input(input: &Value) -> ActionInput {
    ActionInput {
        default: input.get("default").filter(|default| !default.is_null()).map(scalar),
        deprecation: input.get("deprecationMessage").map(scalar),
    }
}

fn read_step(step: &Tree) -> Result<Step, String> {
    let step = step.as_object().ok_or("it is no mapping")?;
    let text = |key: &str| step.get(key).filter(|value| !value.is_null()).map(scalar);
    // GitHub docs, workflow syntax: `jobs.<job_id>.steps[*].background`.
    if let Some(key) =
        ["background", "wait", "wait-all", "cancel", "parallel"].iter().find(|key| step.contains_key(**key))
    {
        return Err(format!("`{key}:` has no place in a composite action; only steps of a job run beside each other"));
    }
    let action = match (text("run"), text("uses")) {
        (Some(script), None) => StepAction::Run {
            script,
            shell: Some(text("shell").ok_or("`shell:` is missing, which a composite action's `run:` needs")?),
            working_directory: text("working-directory"),
        },
        (None, Some(uses)) => StepAction::Uses { uses, with: mapping(step.get("with")) },
        _ => return Err("it needs either `run:` or `uses:`".into()),
    };
    let env = match step.get("env") {
        Some(Value::String(expression)) => EnvSource::Expression(expression.clone()),
        _ => EnvSource::Map(mapping(step.get("env"))),
    };
    Ok(Step {
        id: text("id"),
        name: text("name"),
        condition: text("if"),
        env,
        continue_on_error: step.get("continue-on-error").cloned(),
        timeout_minutes: None,
        background: false,
        action,
        line: 0,
    })
}

fn mapping(value: Option<&Value>) -> IndexMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(name, value)| (name.clone(), scalar(value))).collect()
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn actions_are_read_or_refused_with_what_to_do() {
        let read = |json: Value| super::read(json.as_object().unwrap());
        let action = read(serde_json::json!({
            "inputs": {"a": {"default": 5}, "b": null},
            "outputs": {"o": {"value": "${{ steps.x.outputs.o }}"}},
            "runs": {"using": "composite", "steps": [{"run": "true", "shell": "bash", "if": true}]},
        }))
        .unwrap();
        assert_eq!(action.inputs["a"].default.as_deref(), Some("5"));
        assert!(matches!(action.runs, ActionRuns::Composite(steps) if steps[0].condition.as_deref() == Some("true")));
        for (runs, part) in [
            (serde_json::json!({"using": "docker"}), "image"),
            (serde_json::json!({"using": "ruby"}), "not known"),
            (serde_json::json!({"using": "composite", "steps": [{"run": "true"}]}), "shell"),
            (serde_json::json!({"using": "composite", "steps": [{"wait-all": null}]}), "`wait-all:`"),
            (serde_json::json!({"using": "node20"}), "main"),
        ] {
            let error = read(serde_json::json!({"runs": runs})).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
