//! The event a run starts with when somebody asks for it by hand, and the defaults of its inputs.

use serde_json::{Map, Value};

use crate::plan::{Input, Plan};

/// The event a run starts with.
#[derive(Debug, Clone, PartialEq)]
pub struct StartEvent {
    /// Name of the event.
    pub event: String,
    /// The `inputs` context.
    pub inputs: Map<String, Value>,
}

/// The event a manual request stands for. `push`, `pull_request` and `schedule` are themselves; anything else is
/// `workflow_dispatch` where the file declares it, with its inputs at their defaults, or else the file's only event,
/// or else `push`.
pub fn start_event(plan: &Plan, trigger: Option<&str>) -> StartEvent {
    let event = match trigger {
        Some(named @ ("push" | "pull_request" | "schedule")) => named,
        _ if plan.on.contains_key("workflow_dispatch") => "workflow_dispatch",
        _ => match plan.on.keys().collect::<Vec<_>>().as_slice() {
            [only] => only,
            _ => "push",
        },
    };
    let declared = plan.on.get(event).filter(|_| event == "workflow_dispatch");
    let inputs =
        declared.map(|trigger| trigger.inputs.iter().map(|(name, input)| (name.clone(), default_input(input))));
    StartEvent { event: event.to_owned(), inputs: inputs.map(Iterator::collect).unwrap_or_default() }
}

/// The value of an input that the request does not set (GitHub docs: `on.workflow_dispatch.inputs`).
pub fn default_input(input: &Input) -> Value {
    match (&input.default, input.kind.as_str()) {
        (Some(default), _) => default.clone(),
        (None, "boolean") => Value::Bool(false),
        (None, "choice") => input.options.first().cloned().map_or_else(|| Value::String(String::new()), Value::String),
        (None, _) => Value::String(String::new()),
    }
}

#[cfg(test)]
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
            assert_eq!(start_event(&plan, trigger).event, expected, "{on} {trigger:?}");
        }
    }

    #[test]
    fn inputs_are_at_their_defaults_with_their_types() {
        let plan = plan_of(
            "on: {workflow_dispatch: {inputs: {a: {default: x}, b: {type: boolean}, c: {type: choice, options: [p, q]}, \
             d: {type: number, default: 3}, e: {}}}}\njobs: {a: {runs-on: x}}",
        );
        let expected = json!({"a": "x", "b": false, "c": "p", "d": 3, "e": ""});
        assert_eq!(Value::Object(start_event(&plan, None).inputs), expected);
        assert!(start_event(&plan, Some("push")).inputs.is_empty());
    }
}
