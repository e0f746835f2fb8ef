//! The event a run starts with when somebody asks for it by hand, and its inputs.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::plan::{Input, Plan, Trigger};

/// The event a manual request stands for. `push`, `pull_request` and `schedule` are themselves, and `pull_request_target`
/// where the file declares it; anything else is `workflow_dispatch` where that is declared, or else the file's only event, or
/// else `push`.
pub(crate) fn start_event<'a>(plan: &'a Plan, trigger: Option<&'a str>) -> &'a str {
    match trigger {
        Some(named @ ("push" | "pull_request" | "schedule")) => named,
        Some(named @ "pull_request_target") if plan.on.contains_key(named) => named,
        _ if plan.on.contains_key("workflow_dispatch") => "workflow_dispatch",
        _ => match plan.on.keys().collect::<Vec<_>>().as_slice() {
            [only] => only,
            _ => "push",
        },
    }
}

/// The `inputs` context: what was given, else the defaults, each in its declared type.
///
/// # Errors
/// A value that its declaration does not allow, a name that is not declared, or a required input that nobody gave
/// (GitHub docs, `on.workflow_dispatch.inputs.<input_id>.required`).
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
        // A form would not let it pass. A checkbox always has an answer.
        if given.is_none() && input.required && input.default.is_none() && input.kind != "boolean" {
            return Err(format!("the workflow requires the input \"{name}\": give it"));
        }
        // A pressed button brings no answers: then the input is what GitHub's form would begin with.
        let value = given.unwrap_or_else(|| match default_input(input) {
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

/// The value of an input that the request does not set (GitHub docs: `on.workflow_dispatch.inputs`).
fn default_input(input: &Input) -> Value {
    match (&input.default, input.kind.as_str()) {
        (Some(default), _) => default.clone(),
        (None, "boolean") => Value::Bool(false),
        (None, "choice") => input.options.first().cloned().map_or_else(|| Value::String(String::new()), Value::String),
        (None, _) => Value::String(String::new()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::super::tests::plan_of;
    use super::*;

    #[test]
    fn a_manual_run_is_the_event_it_names_or_the_best_the_file_offers() {
        for (on, trigger, expected) in [
            ("[push, workflow_dispatch]", None, "workflow_dispatch"),
            ("[push, workflow_dispatch]", Some("manual"), "workflow_dispatch"),
            ("[push, workflow_dispatch]", Some("push"), "push"),
            ("[push]", Some("schedule"), "schedule"),
            ("[pull_request]", Some("manual"), "pull_request"),
            ("[pull_request, release]", Some("whatever"), "push"),
        ] {
            let plan = plan_of(&format!("on: {on}\njobs: {{a: {{runs-on: x}}}}"));
            assert_eq!(start_event(&plan, trigger), expected, "{on} {trigger:?}");
        }
    }

    #[test]
    fn inputs_are_at_their_defaults_with_their_types() {
        let plan = plan_of(
            "on: {workflow_dispatch: {inputs: {a: {default: x}, b: {type: boolean}, c: {type: choice, options: [p, q]}, \
             d: {type: number, default: 3}, e: {}}}}\njobs: {a: {runs-on: x}}",
        );
        let expected = json!({"a": "x", "b": false, "c": "p", "d": 3, "e": ""});
        assert_eq!(inputs(&plan.on["workflow_dispatch"], None).map(Value::Object), Ok(expected));
    }

    #[test]
    fn an_input_that_is_required_and_has_no_default_must_be_given() {
        let inputs_of = |keys: &str, given: &[(&str, &str)]| {
            let text = format!(
                "on: {{workflow_dispatch: {{inputs: {{a: {{required: true{keys}}}}}}}}}\njobs: {{a: {{runs-on: x}}}}"
            );
            let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            inputs(&plan_of(&text).on["workflow_dispatch"], Some(&given)).map(Value::Object)
        };
        for keys in ["", ", type: string", ", type: number", ", type: choice, options: [p, q]", ", type: environment"] {
            let why = "the workflow requires the input \"a\": give it".to_owned();
            assert_eq!(inputs_of(keys, &[]), Err(why), "{keys}");
        }
        assert_eq!(inputs_of("", &[("a", "x")]), Ok(json!({"a": "x"})));
        assert_eq!(inputs_of(", default: d", &[]), Ok(json!({"a": "d"})));
        assert_eq!(inputs_of(", type: boolean", &[]), Ok(json!({"a": false})));
    }
}
