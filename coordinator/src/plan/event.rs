//! What a workflow sees of the event that started it: `github.event` and `inputs`.

use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use workflow::{github::press::default, plan::Trigger};

use super::Subject;

/// The id that stands for "no commit before" in a push.
const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

/// `github.event`, as far as it can be known here (GitHub docs: webhook events and payloads).
pub(super) fn payload(event: &str, subject: &Subject, trigger: Option<&Trigger>, inputs: &Map<String, Value>) -> Value {
    let (message, author) = subject.description.clone().unwrap_or_default();
    let sender = json!({ "login": subject.actor, "type": "User" });
    let repository = json!({
        "name": subject.repository.rsplit('/').next().unwrap_or_default(),
        "full_name": subject.repository,
        "owner": { "login": subject.owner, "name": subject.owner },
        "default_branch": subject.default_branch(),
        "private": false,
    });
    let commit = json!({
        "id": subject.commit, "message": message, "distinct": true,
        "author": { "name": author }, "committer": { "name": author },
    });
    let mut payload = match event {
        "push" => json!({
            "ref": subject.reference, "before": NO_COMMIT, "after": subject.commit,
            "created": false, "deleted": false, "forced": false,
            "head_commit": commit, "commits": [commit], "pusher": { "name": subject.actor },
        }),
        "pull_request" | "pull_request_target" => json!({
            "action": "synchronize",
            "pull_request": {
                "head": { "ref": subject.short_reference(), "sha": subject.commit },
                "base": { "ref": subject.default_branch() },
                "title": message.lines().next().unwrap_or_default(),
                "user": sender, "draft": false, "merged": false, "state": "open",
            },
        }),
        "schedule" => json!({
            "schedule": trigger.and_then(|trigger| trigger.cron.first()),
        }),
        "workflow_dispatch" => json!({
            "ref": subject.reference,
            "inputs": inputs.iter().map(|(name, value)| (name.clone(), text(value))).collect::<Map<_, _>>(),
        }),
        _ => json!({}),
    };
    if let Some(payload) = payload.as_object_mut() {
        payload.insert("repository".into(), repository);
        payload.insert("sender".into(), sender);
    }
    payload
}

/// `github.event.inputs` holds text, whatever type an input has (GitHub docs: `on.workflow_dispatch.inputs`).
fn text(value: &Value) -> Value {
    match value {
        Value::String(_) => value.clone(),
        Value::Null => "".into(),
        other => other.to_string().into(),
    }
}

/// The `inputs` context: what was given, else the defaults, each in its declared type.
///
/// # Errors
/// A value that its declaration does not allow, or a name that is not declared.
pub(super) fn inputs(
    trigger: &Trigger,
    given: Option<&IndexMap<String, String>>,
) -> Result<Map<String, Value>, String> {
    if let Some(name) =
        given.into_iter().flatten().map(|(name, _)| name).find(|name| !trigger.inputs.contains_key(*name))
    {
        let known: Vec<&str> = trigger.inputs.keys().map(String::as_str).collect();
        return Err(format!("the workflow declares no input \"{name}\"; it declares: {}", known.join(", ")));
    }
    let mut inputs = Map::new();
    for (name, input) in &trigger.inputs {
        let given = given.and_then(|given| given.get(name)).cloned();
        // A pressed button brings no answers: then the input is what GitHub's form would begin with.
        let value = given.unwrap_or_else(|| match default(input) {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => other.to_string(),
        });
        let wrong = |wanted: &str| format!("input \"{name}\" must be {wanted}, it is \"{value}\"");
        let typed = match input.kind.as_str() {
            "boolean" => match value.as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                _ => return Err(wrong("true or false")),
            },
            "number" if value.is_empty() => Value::Null,
            "number" => value.parse::<serde_json::Number>().map(Value::Number).map_err(|_| wrong("a number"))?,
            "choice" if !input.options.contains(&value) => {
                return Err(wrong(&format!("one of {}", input.options.join(", "))));
            }
            _ => Value::String(value),
        };
        inputs.insert(name.clone(), typed);
    }
    Ok(inputs)
}
