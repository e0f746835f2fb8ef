//! How a run begins: its inputs, the `github` context as far as it holds for all its jobs, and its name.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::dialect::run_start::{RunNumbers, RunStart, RunTrigger, Subject};
use crate::expression::{self, EvaluationLimits, NoHostFunctions, Object, Scope};
use crate::plan::Plan;

use super::event_payload::{default_branch, short_reference};
use super::{display_name, event_payload, workflow_dispatch};

/// Where `github.server_url` and the like point: the services inside a job.
pub const ORIGIN: &str = "http://ci.localhost:4480";

/// What holds for the whole run.
///
/// # Errors
/// Inputs that the workflow does not allow, or a wrong `run-name`.
pub(crate) fn start(
    plan: &Plan,
    subject: &Subject,
    trigger: &RunTrigger,
    numbers: RunNumbers,
) -> Result<RunStart, String> {
    let event = trigger.event.as_str();
    let declared = plan.on.get(event);
    let inputs = match declared {
        Some(declared) if event == "workflow_dispatch" => workflow_dispatch::inputs(declared, trigger.inputs.as_ref())?,
        _ => Map::new(),
    };
    let mut payload = event_payload::payload(event, subject, declared, &inputs);
    if let Some(over) = &trigger.payload {
        merge(&mut payload, over.clone());
        if event.starts_with("pull_request") && payload["number"].is_null() {
            payload["number"] = payload["pull_request"]["number"].clone();
        } else if event.starts_with("pull_request") && payload["pull_request"]["number"].is_null() {
            payload["pull_request"]["number"] = payload["number"].clone();
        }
    }
    let mut context = github_context(plan, &as_pull_request(subject, event, &payload), event, payload, numbers);
    let title = title(plan, &context, &inputs, trigger)?;
    if let Some(definition) = &subject.definition {
        // Whoever trusts what stands at a ref must not take it for that.
        let place = format!("{}/{}@nostr:{definition}", subject.repository, plan.path);
        context.insert("workflow_ref".into(), place.into());
        context.insert("workflow_sha".into(), definition.clone().into());
    }
    Ok(RunStart { inputs, context, title })
}

/// Where the payload of a pull request has its number, that is the ref of the run (GitHub docs, "Events that trigger
/// workflows": `refs/pull/PULL_REQUEST_NUMBER/merge`).
fn as_pull_request<'s>(subject: &'s Subject, event: &str, payload: &Value) -> Cow<'s, Subject> {
    match payload["number"].as_u64().or_else(|| payload["pull_request"]["number"].as_u64()) {
        Some(number) if event == "pull_request" && !subject.reference.starts_with("refs/pull/") => {
            Cow::Owned(Subject { reference: format!("refs/pull/{number}/merge"), ..subject.clone() })
        }
        _ => Cow::Borrowed(subject),
    }
}

/// `run-name:` evaluated; `None` where there is none.
fn title(
    plan: &Plan,
    github: &Map<String, Value>,
    inputs: &Map<String, Value>,
    trigger: &RunTrigger,
) -> Result<Option<String>, String> {
    let Some(written) = &plan.run_name else { return Ok(None) };
    let mut contexts = Object::new();
    contexts.insert("github", expression::Value::from_json(&github.clone().into()));
    contexts.insert("inputs", expression::Value::from_json(&inputs.clone().into()));
    let vars = trigger.vars.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    contexts.insert("vars", vars.collect::<Object>());
    let scope = Scope { contexts: &contexts, functions: &NoHostFunctions, limits: EvaluationLimits::default() };
    let name = expression::interpolate_text(written, &scope).map_err(|error| format!("run-name: {error}"))?;
    Ok(Some(display_name::one_line(&name)).filter(|name| !name.is_empty()))
}

/// The `github` context as far as it holds for the whole run (GitHub docs: contexts, github).
fn github_context(
    plan: &Plan,
    subject: &Subject,
    event: &str,
    payload: Value,
    numbers: RunNumbers,
) -> Map<String, Value> {
    // Where the payload names the branches of a pull request, it counts.
    let side = |side: &str, other: &str| match payload["pull_request"][side]["ref"].as_str() {
        Some(name) => name.to_owned(),
        None if event.starts_with("pull_request") => other.to_owned(),
        None => String::new(),
    };
    let head_ref = side("head", short_reference(subject));
    let base_ref = side("base", default_branch(subject));
    let context = json!({
        "actor": subject.actor,
        "triggering_actor": subject.actor,
        "repository": subject.repository,
        "repository_owner": subject.owner,
        "repositoryUrl": format!("{ORIGIN}/{}.git", subject.repository),
        "event_name": event,
        "sha": subject.commit,
        "ref": subject.reference,
        "ref_name": short_reference(subject),
        "ref_type": if subject.reference.starts_with("refs/tags/") { "tag" } else { "branch" },
        "ref_protected": false,
        "head_ref": head_ref,
        "base_ref": base_ref,
        "run_id": numbers.serial.to_string(),
        "run_number": numbers.number.to_string(),
        "run_attempt": numbers.attempt.to_string(),
        "retention_days": "90",
        "workflow": plan.name,
        "workflow_ref": format!("{}/{}@{}", subject.repository, plan.path, subject.reference),
        "workflow_sha": subject.commit,
        "server_url": ORIGIN,
        "api_url": format!("{ORIGIN}/api/v3"),
        "graphql_url": format!("{ORIGIN}/api/graphql"),
        "secret_source": "Actions",
    });
    let mut context = match context {
        Value::Object(context) => context,
        _ => Map::new(),
    };
    context.insert("event".into(), payload);
    context
}

/// Lays one JSON value over another, mappings entry by entry.
fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                match under.get_mut(&name) {
                    Some(known) => merge(known, value),
                    None => {
                        under.insert(name, value);
                    }
                }
            }
        }
        (under, over) => *under = over,
    }
}
