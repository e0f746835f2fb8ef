//! What the contexts of a file, its jobs and their steps have, as far as the file says.
//!
//! Source: GitHub docs, "Contexts reference".

use std::sync::Arc;

use crate::dialect::surroundings::{RepositoryFile, Surroundings};
use crate::expression::{self, ContextTypes, ObjectType, StaticType, type_check};
use crate::yaml::{YamlNode, YamlValue};

use super::actions::shape_of;
use super::walk::{event, is_dynamic, jobs, names_event, of_this_repository};

/// The contexts at one place.
#[derive(Clone)]
pub(super) struct Contexts {
    github: StaticType,
    pub(super) inputs: StaticType,
    secrets: StaticType,
    runner: StaticType,
    pub(super) needs: StaticType,
    pub(super) matrix: StaticType,
    strategy: StaticType,
    job: StaticType,
    steps: Arc<ObjectType>,
    pub(super) jobs: StaticType,
}

impl ContextTypes for Contexts {
    fn context(&self, name: &str) -> StaticType {
        match name {
            "github" => self.github.clone(),
            "inputs" => self.inputs.clone(),
            "secrets" => self.secrets.clone(),
            "runner" => self.runner.clone(),
            "needs" => self.needs.clone(),
            "matrix" => self.matrix.clone(),
            "strategy" => self.strategy.clone(),
            "job" => self.job.clone(),
            "steps" => StaticType::Object(Arc::clone(&self.steps)),
            "jobs" => self.jobs.clone(),
            "env" | "vars" => ObjectType::open(StaticType::Text).into(),
            _ => StaticType::Any,
        }
    }
}

const OF_GITHUB: [&str; 41] = [
    "action",
    "action_path",
    "action_ref",
    "action_repository",
    "action_status",
    "actor",
    "actor_id",
    "api_url",
    "artifact_cache_size_limit",
    "base_ref",
    "env",
    "event_name",
    "event_path",
    "graphql_url",
    "head_ref",
    "job",
    "job_workflow_sha",
    "output",
    "path",
    "ref",
    "ref_name",
    "ref_type",
    "repository",
    "repository_id",
    "repository_owner",
    "repository_owner_id",
    "repository_visibility",
    "repositoryUrl",
    "retention_days",
    "run_attempt",
    "run_id",
    "run_number",
    "secret_source",
    "server_url",
    "sha",
    "state",
    "step_summary",
    "token",
    "triggering_actor",
    "workflow",
    "workspace",
];

impl Contexts {
    /// Of a whole file.
    pub(super) fn of_file(root: &YamlNode) -> Self {
        let absent = |remedy| StaticType::from(ObjectType::default().with_remedy(remedy));
        Self {
            github: github(root),
            inputs: inputs(root),
            secrets: secrets(root),
            runner: texts(&["name", "os", "arch", "temp", "tool_cache", "debug", "environment", "workspace"]).into(),
            needs: absent("name the job in `needs:`"),
            matrix: absent("this job has no matrix"),
            strategy: ObjectType::closed([
                ("fail-fast", StaticType::Bool),
                ("job-index", StaticType::Number),
                ("job-total", StaticType::Number),
                ("max-parallel", StaticType::Number),
            ])
            .into(),
            job: StaticType::Any,
            steps: Arc::new(no_steps()),
            jobs: StaticType::Any,
        }
    }

    /// Takes up what a job says of itself.
    pub(super) fn enter_job(&mut self, job: &YamlNode, all: &ObjectType) {
        let mut needs = ObjectType::default().with_remedy("name the job in `needs:`");
        for need in super::walk::listed(job.get("needs")).iter().filter_map(YamlNode::text) {
            let found = all.names().find(|id| id.eq_ignore_ascii_case(need)).and_then(|id| all.get(id));
            needs.insert(need, found.cloned().unwrap_or_default());
        }
        self.needs = needs.into();
        self.matrix = matrix(job, self);
        self.job = self::job(job);
        self.steps = Arc::new(no_steps());
    }

    /// A step that has run.
    pub(super) fn after_step(&mut self, step: &YamlNode, around: &dyn Surroundings) {
        let Some(id) = step.get("id").and_then(YamlNode::text) else { return };
        let uses = step.get("uses").and_then(YamlNode::text);
        let known = uses.and_then(|uses| shape_of(uses, around)).and_then(|shape| shape.outputs);
        let outputs = match known {
            Some(names) => texts(&names.iter().map(String::as_str).collect::<Vec<_>>()),
            None => ObjectType::open(StaticType::Text),
        };
        let mut kind = texts(&["outcome", "conclusion"]);
        kind.insert("outputs", outputs.into());
        Arc::make_mut(&mut self.steps).insert(id, kind.into());
    }
}

fn no_steps() -> ObjectType {
    ObjectType::default().with_remedy("only steps of this job that come before have an entry, by their `id`")
}

fn texts(names: &[&str]) -> ObjectType {
    ObjectType::closed(names.iter().map(|name| (*name, StaticType::Text)))
}

fn github(root: &YamlNode) -> StaticType {
    let mut kind = texts(&OF_GITHUB);
    kind.insert("ref_protected", StaticType::Bool);
    kind.insert("workflow_ref", StaticType::Text);
    kind.insert("workflow_sha", StaticType::Text);
    let mut event = ObjectType::open(StaticType::Any);
    // A called workflow has the event of its caller.
    if let (Some(trigger), false) = (event_inputs(root), names_event(root, "workflow_call")) {
        let names = trigger.entries().iter().filter_map(|(name, _)| name.text());
        let remedy = "declare it below `workflow_dispatch`";
        event.insert("inputs", texts(&names.collect::<Vec<_>>()).with_remedy(remedy).into());
    }
    kind.insert("event", event.into());
    kind.into()
}

fn event_inputs(root: &YamlNode) -> Option<&YamlNode> {
    event(root, "workflow_dispatch")?.get("inputs")
}

fn inputs(root: &YamlNode) -> StaticType {
    let remedy = "declare it under `inputs:` of `workflow_dispatch` or `workflow_call`";
    let mut kind = ObjectType::default().with_remedy(remedy);
    let called = event(root, "workflow_call").and_then(|trigger| trigger.get("inputs"));
    for (declared, untyped) in [(event_inputs(root), StaticType::Text), (called, StaticType::Any)] {
        for (name, input) in declared.map(YamlNode::entries).unwrap_or_default() {
            kind.join(name.text().unwrap_or_default(), input_type(input, &untyped));
        }
    }
    kind.into()
}

/// The kind of a declared input; `untyped` where it names none.
pub(super) fn input_type(input: &YamlNode, untyped: &StaticType) -> StaticType {
    match input.get("type").and_then(YamlNode::text) {
        Some("string" | "choice" | "environment") => StaticType::Text,
        Some("boolean") => StaticType::Bool,
        Some("number") => StaticType::Number,
        Some(_) => StaticType::Any,
        None => untyped.clone(),
    }
}

/// A called workflow that says which secrets it takes has no others, unless its caller hands on all.
fn secrets(root: &YamlNode) -> StaticType {
    let only_called = root.get("on").is_some_and(|on| on.entries().len() == 1);
    let declared = event(root, "workflow_call")
        .and_then(|trigger| super::walk::key(trigger, "secrets").zip(trigger.get("secrets")));
    match declared {
        Some((_, declared)) if only_called => {
            let names = declared.entries().iter().filter_map(|(name, _)| name.text());
            let names: Vec<&str> =
                names.chain(["GITHUB_TOKEN", "ACTIONS_STEP_DEBUG", "ACTIONS_RUNNER_DEBUG"]).collect();
            let remedy =
                "declare it under `secrets:` of `workflow_call`: only callers with `secrets: inherit` give others";
            texts(&names).with_remedy(remedy).into()
        }
        _ => ObjectType::open(StaticType::Text).into(),
    }
}

fn job(job: &YamlNode) -> StaticType {
    let mut service = texts(&["id", "network"]);
    service.insert("ports", ObjectType::open(StaticType::Text).into());
    let mut services = match job.get("services") {
        Some(written) if is_dynamic(written) => ObjectType::open(service.clone().into()),
        _ => ObjectType::default(),
    };
    services = services.with_remedy("declare it under `services:`");
    for (name, _) in job.get("services").map(YamlNode::entries).unwrap_or_default() {
        services.insert(name.text().unwrap_or_default(), service.clone().into());
    }
    let mut kind = texts(&["status", "workflow_ref", "workflow_sha", "workflow_repository", "workflow_file_path"]);
    kind.insert("check_run_id", StaticType::Number);
    kind.insert("container", texts(&["id", "network"]).into());
    kind.insert("services", services.into());
    kind.into()
}

/// What each job gives to those that need it, by its id.
pub(super) fn results(root: &YamlNode, around: &dyn Surroundings) -> ObjectType {
    let mut all = ObjectType::default().with_remedy("name a job of this file");
    for (id, job) in jobs(root) {
        let outputs = match job.get("uses").and_then(YamlNode::text) {
            Some(uses) => outputs_of_call(uses, around),
            None => {
                let names = job.get("outputs").map(YamlNode::entries).unwrap_or_default();
                let names: Vec<&str> = names.iter().filter_map(|(name, _)| name.text()).collect();
                texts(&names).with_remedy("declare it under `outputs:` of that job")
            }
        };
        let kind = ObjectType::closed([("result", StaticType::Text), ("outputs", outputs.into())]);
        all.insert(id.text().unwrap_or_default(), kind.into());
    }
    all
}

fn outputs_of_call(uses: &str, around: &dyn Surroundings) -> ObjectType {
    let text = of_this_repository(uses).map_or(RepositoryFile::Unknown, |path| around.file(path));
    let RepositoryFile::Text(text) = text else { return ObjectType::open(StaticType::Text) };
    let stream = crate::yaml::read(&text, crate::github::LIMITS, crate::yaml::MergeKeys::Keep);
    let [root] = stream.documents.as_slice() else { return ObjectType::open(StaticType::Text) };
    let outputs = event(root, "workflow_call").and_then(|trigger| trigger.get("outputs"));
    let names = outputs.map(YamlNode::entries).unwrap_or_default();
    let names: Vec<&str> = names.iter().filter_map(|(name, _)| name.text()).collect();
    texts(&names).with_remedy("declare it under `outputs:` of `workflow_call` in the called workflow")
}

fn matrix(job: &YamlNode, contexts: &Contexts) -> StaticType {
    let absent = ObjectType::default().with_remedy("this job has no matrix");
    let Some(strategy) = job.get("strategy") else { return absent.into() };
    let Some(matrix) = strategy.get("matrix") else {
        return if strategy.text().is_some() { StaticType::Any } else { absent.into() };
    };
    if matrix.text().is_some() {
        return StaticType::Any;
    }
    let mut kind = ObjectType::default().with_remedy("give the matrix such a key");
    for (name, values) in matrix.entries() {
        let Some(name) = name.text().filter(|name| !matches!(*name, "include" | "exclude")) else { continue };
        if name.contains("${{") {
            return StaticType::Any;
        }
        let value = match value(values, contexts) {
            StaticType::List(item) => item.as_ref().clone(),
            _ => StaticType::Any,
        };
        kind.join(name, value);
    }
    match matrix.get("include") {
        Some(include) if include.text().is_some() => kind.others = Some(StaticType::Any),
        Some(include) => {
            for cell in include.items() {
                if cell.text().is_some() {
                    kind.others = Some(StaticType::Any);
                }
                for (name, node) in cell.entries() {
                    kind.join(name.text().unwrap_or_default(), value(node, contexts));
                }
            }
        }
        None => {}
    }
    kind.into()
}

/// The kind of a value as written; expressions have the kind that they give.
fn value(node: &YamlNode, contexts: &Contexts) -> StaticType {
    match &node.value {
        YamlValue::Scalar(scalar) if scalar.text.contains("${{") => {
            let text = scalar.text.trim();
            match expression::expressions(text).as_slice() {
                [(_, one)] if text.starts_with("${{") && text.ends_with("}}") => type_check(one, contexts).0,
                _ => StaticType::Text,
            }
        }
        YamlValue::Scalar(scalar) => StaticType::of_json(&scalar.resolve()),
        YamlValue::Sequence(items) | YamlValue::Tagged(_, items) => {
            StaticType::list_of(items.iter().map(|item| value(item, contexts)))
        }
        YamlValue::Mapping(entries)
            if entries.iter().any(|(name, _)| name.text().is_some_and(|name| name.contains("${{"))) =>
        {
            StaticType::Any
        }
        YamlValue::Mapping(entries) => {
            ObjectType::closed(entries.iter().filter_map(|(name, node)| Some((name.text()?, value(node, contexts)))))
                .into()
        }
    }
}
