//! What a job and the workflow it calls agree on: inputs, secrets, outputs (GitHub docs: `on.workflow_call`).

use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

use crate::dialect::job_context::{InstanceContext, JobContext, JobResult, RunContext};
use crate::dialect::job_instance::{JobKeyError, PassedSecrets};
use crate::expression::{self, Scope, Value};
use crate::plan::{Input, JobContent, Plan, Text, Tree, Trigger};
use crate::yaml::YamlNode;

use super::contexts::{self, EvalContext};
use super::report::Report;

/// The `inputs` context of the workflow that a job calls.
pub(crate) fn inputs(
    called: &Plan,
    job: &JobContext<'_>,
    instance: &InstanceContext<'_>,
) -> Result<Map<String, Json>, JobKeyError> {
    let (JobContent::Call { with, .. }, Some(trigger)) = (&job.job.work, trigger(called)) else {
        return Err(JobKeyError::new("uses", format_args!("{} can't be called by another workflow", called.path)));
    };
    let known = EvalContext::of_instance(job, instance);
    known.evaluate(|scope| given(trigger, with, scope)).map_err(|why| JobKeyError::new("with", why))
}

/// The secrets that a job hands to the workflow it calls.
pub(crate) fn secrets(
    job: &JobContext<'_>,
    instance: &InstanceContext<'_>,
    all: impl FnOnce() -> Map<String, Json>,
) -> PassedSecrets {
    let JobContent::Call { secrets: Some(mapping), .. } = &job.job.work else {
        return PassedSecrets::Named(Vec::new());
    };
    // `secrets: inherit`
    let Some(mapping) = mapping.as_object() else { return PassedSecrets::All };
    let mut known = EvalContext::of_instance(job, instance);
    known.insert("secrets", all());
    let one = |(name, tree): (&String, &Tree)| {
        let value = known.evaluate(|scope| expression::interpolate_tree(tree, scope)).ok()?;
        // A secret that is not there is empty, and an empty one is none.
        let text = Some(value.as_text().into_owned()).filter(|text| !text.is_empty())?;
        Some((name.clone(), text))
    };
    PassedSecrets::Named(mapping.iter().filter_map(one).collect())
}

/// The outputs of a called workflow, of what came of its jobs.
pub(crate) fn outputs(run: &RunContext<'_>, job: impl Fn(&str) -> JobResult) -> IndexMap<String, String> {
    let declared: Vec<_> = trigger(run.file).into_iter().flat_map(declared_outputs).collect();
    if declared.is_empty() {
        return IndexMap::new();
    }
    let jobs = run.file.jobs.keys().map(|id| (id.clone(), contexts::result(&job(id))));
    let mut known = EvalContext::of_run(run);
    known.insert("jobs", jobs.collect());
    let value = |(name, text): (&str, &Text)| {
        let value = known.evaluate(|scope| expression::interpolate_text(text, scope)).unwrap_or_default();
        (name.to_owned(), value)
    };
    declared.into_iter().map(value).collect()
}

/// What a workflow says about being called; `None`: it can't be.
fn trigger(called: &Plan) -> Option<&Trigger> {
    called.on.get("workflow_call")
}

/// `with:` evaluated where the job stands, else the defaults.
fn given(trigger: &Trigger, with: &IndexMap<String, Tree>, scope: &Scope<'_>) -> Result<Map<String, Json>, String> {
    let evaluated = |tree: &Tree, name: &str| {
        expression::interpolate_tree(tree, scope).map_err(|error| format!("input \"{name}\": {error}"))
    };
    let mut inputs = Map::new();
    for (name, input) in &trigger.inputs {
        let given = with.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        let value = match (given, &input.default) {
            (Some((_, tree)), _) => typed(name, input, &evaluated(tree, name)?)?,
            (None, Some(tree)) => typed(name, input, &evaluated(tree, name)?)?,
            (None, None) => match input.kind.as_str() {
                "boolean" => false.into(),
                "number" => 0.into(),
                _ => "".into(),
            },
        };
        inputs.insert(name.clone(), value);
    }
    Ok(inputs)
}

fn typed(name: &str, input: &Input, value: &Value) -> Result<Json, String> {
    let wrong = |wanted: &str, help: &str| {
        let found = match value {
            Value::String(text) => format!("the text \"{text}\""),
            other => other.kind_name().to_ascii_lowercase(),
        };
        Err(format!("input \"{name}\" takes {wanted}, not {found}{help}"))
    };
    match (input.kind.as_str(), value) {
        ("boolean", Value::Bool(_)) | ("number", Value::Number(_)) => Ok(value.to_json()),
        ("boolean", _) => wrong("a boolean", "; `fromJSON(…)` makes one of text"),
        ("number", _) => wrong("a number", "; `fromJSON(…)` makes one of text"),
        (_, Value::Array(_) | Value::Object(_)) => wrong("text", "; `toJSON(…)` makes it of anything"),
        _ => Ok(value.as_text().into()),
    }
}

/// Names and texts of `on.workflow_call.outputs`.
fn declared_outputs(trigger: &Trigger) -> impl Iterator<Item = (&str, &Text)> {
    let declared = trigger.call.get("outputs").and_then(Tree::as_object).into_iter().flatten();
    declared.filter_map(|(name, output)| match output.get("value") {
        Some(Tree::String(value)) => Some((name.as_str(), value)),
        _ => None,
    })
}

fn declared_secrets(trigger: &Trigger) -> impl Iterator<Item = (&str, bool)> {
    let declared = trigger.call.get("secrets").and_then(Tree::as_object).into_iter().flatten();
    declared.map(|(name, secret)| (name.as_str(), secret.get("required") == Some(&Tree::Bool(true))))
}

/// Holds a job that calls a workflow against what that workflow declares.
pub(super) fn check(job: &YamlNode, uses: &YamlNode, called: &Plan, report: &mut Report<'_>) {
    let place = &called.path;
    let Some(trigger) = trigger(called) else {
        let help = format!("add `workflow_call` to `on:` of {place}");
        return report.error_with_help(uses.span, format!("{place} can't be called by another workflow"), help);
    };
    let with = job.get("with").map(YamlNode::entries).unwrap_or_default();
    for (name, value) in with {
        let Some(text) = name.text() else { continue };
        match trigger.inputs.iter().find(|(known, _)| known.eq_ignore_ascii_case(text)) {
            Some((_, input)) => literal(text, input, value, report),
            None => undeclared("input", name, trigger.inputs.keys().map(String::as_str), place, report),
        }
    }
    for (name, _) in trigger.inputs.iter().filter(|(_, input)| input.required) {
        if !has(with, name) {
            report.error(uses.span, format!("{place} needs the input `{name}`: give it under `with:`"));
        }
    }
    let given = job.get("secrets");
    if given.and_then(YamlNode::text) == Some("inherit") {
        return;
    }
    let given = given.map(YamlNode::entries).unwrap_or_default();
    for (name, _) in given {
        let Some(text) = name.text() else { continue };
        if !declared_secrets(trigger).any(|(known, _)| known.eq_ignore_ascii_case(text)) {
            undeclared("secret", name, declared_secrets(trigger).map(|(name, _)| name), place, report);
        }
    }
    for (name, _) in declared_secrets(trigger).filter(|(_, required)| *required) {
        if !has(given, name) {
            let message = format!("{place} needs the secret `{name}`: give it under `secrets:`, or `secrets: inherit`");
            report.error(uses.span, message);
        }
    }
}

fn has(entries: &[(YamlNode, YamlNode)], name: &str) -> bool {
    entries.iter().any(|(key, _)| key.text().is_some_and(|text| text.eq_ignore_ascii_case(name)))
}

fn undeclared<'n>(
    what: &str,
    name: &YamlNode,
    known: impl Iterator<Item = &'n str>,
    place: &str,
    report: &mut Report<'_>,
) {
    let known: Vec<_> = known.map(|name| format!("`{name}`")).collect();
    let help = if known.is_empty() { "it declares none".to_owned() } else { format!("it has {}", known.join(", ")) };
    let text = name.text().unwrap_or_default();
    report.error_with_help(name.span, format!("{place} declares no {what} `{text}`"), help);
}

/// A value without an expression is of the input's type, or never will be.
fn literal(name: &str, input: &Input, value: &YamlNode, report: &mut Report<'_>) {
    let found = value.to_json();
    if found.as_str().is_some_and(|text| text.contains("${{")) {
        return;
    }
    let (fits, wanted) = match input.kind.as_str() {
        "boolean" => (found.is_boolean(), "`true` or `false`"),
        "number" => (found.is_number(), "a number"),
        _ => (!found.is_array() && !found.is_object(), "text"),
    };
    if !fits {
        report.error(value.span, format!("the input `{name}` takes {wanted}"));
    }
}
