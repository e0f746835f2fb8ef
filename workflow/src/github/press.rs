//! What a press on a button means to a workflow that was not told of any event.

use serde_json::{Map, Value};

use crate::plan::{Input, Plan};

/// The event a run begins with.
#[derive(Debug, Clone, PartialEq)]
pub struct Pressed {
    /// Name of the event.
    pub event: String,
    /// The `inputs` context.
    pub inputs: Map<String, Value>,
}

/// The event a press stands for. `push`, `pull_request` and `schedule` are themselves; anything else is
/// `workflow_dispatch` where the file declares it, with its inputs at their defaults, or else the file's only event,
/// or else `push`.
pub fn event_for(plan: &Plan, trigger: Option<&str>) -> Pressed {
    let event = match trigger {
        Some(named @ ("push" | "pull_request" | "schedule")) => named,
        _ if plan.on.contains_key("workflow_dispatch") => "workflow_dispatch",
        _ => match plan.on.keys().collect::<Vec<_>>().as_slice() {
            [only] => only,
            _ => "push",
        },
    };
    let declared = plan.on.get(event).filter(|_| event == "workflow_dispatch");
    let inputs = declared.map(|trigger| trigger.inputs.iter().map(|(name, input)| (name.clone(), default(input))));
    Pressed { event: event.to_owned(), inputs: inputs.map(Iterator::collect).unwrap_or_default() }
}

/// An input's value where nobody gave one (GitHub docs: `on.workflow_dispatch.inputs`).
pub fn default(input: &Input) -> Value {
    match (&input.default, input.kind.as_str()) {
        (Some(default), _) => default.clone(),
        (None, "boolean") => Value::Bool(false),
        (None, "choice") => input.options.first().cloned().map_or_else(|| Value::String(String::new()), Value::String),
        (None, _) => Value::String(String::new()),
    }
}
