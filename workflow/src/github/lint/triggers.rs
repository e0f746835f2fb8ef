//! Events that never come, and declarations of inputs that contradict themselves.

use std::collections::HashMap;

use serde_json::Value as Json;

use crate::github::report::Report;
use crate::yaml::{YamlNode, YamlValue};

use super::walk::{event, is_dynamic, listed};
use super::{cron, patterns};

/// Events that mean nothing without a declaration, and what it has to name.
const NEED_MORE: [(&str, &str, &str); 2] =
    [("schedule", "cron", "- cron: '30 5 * * 1-5'"), ("workflow_run", "workflows", "workflows: [NAME]")];

pub(super) fn check(root: &YamlNode, report: &mut Report<'_>) {
    let Some(on) = root.get("on") else { return };
    let named = on.entries().iter().map(|(name, trigger)| (name, Some(trigger)));
    for (name, trigger) in listed(Some(on)).iter().map(|name| (name, None)).chain(named) {
        without_declaration(name, trigger, report);
    }
    for (name, trigger) in on.entries() {
        patterns::check(trigger, report);
        for (filter, patterns) in trigger.entries() {
            if matches!(&patterns.value, YamlValue::Sequence(items) if items.is_empty()) {
                let (event, filter) = (name.text().unwrap_or_default(), filter.text().unwrap_or_default());
                let message = format!("`{filter}` of `{event}` names nothing");
                report.warning_with(patterns.span, message, Some("leave the key out, or name something".to_owned()));
            }
        }
    }
    event(root, "schedule").into_iter().for_each(|schedule| cron::check(schedule, report));
    for (event, check) in [
        ("workflow_dispatch", dispatch_input as fn(&_, &_, &mut _)),
        ("workflow_call", call_input as fn(&_, &_, &mut _)),
    ] {
        let inputs = self::event(root, event).and_then(|trigger| trigger.get("inputs"));
        for (name, input) in inputs.map(YamlNode::entries).unwrap_or_default() {
            check(name, input, report);
        }
    }
    let outputs = event(root, "workflow_call").and_then(|trigger| trigger.get("outputs"));
    for (name, output) in outputs.map(YamlNode::entries).unwrap_or_default() {
        if let Some(value) = output.get("value").filter(|value| value.text().is_some_and(str::is_empty)) {
            let name = name.text().unwrap_or_default();
            report.warning(value.span, format!("the output `{name}` has no value: it is always empty"));
        }
    }
}

fn without_declaration(name: &YamlNode, trigger: Option<&YamlNode>, report: &mut Report<'_>) {
    let Some((event, needed, example)) = NEED_MORE.iter().find(|(event, ..)| name.text() == Some(event)) else {
        return;
    };
    let declared = match trigger {
        Some(trigger) if *event == "schedule" => !trigger.items().is_empty(),
        Some(trigger) => trigger.get(needed).is_some(),
        None => false,
    };
    if !declared {
        let message = format!("`{event}` starts nothing: it names no `{needed}`");
        report.warning_with(name.span, message, Some(format!("write `{event}:` with `{example}` below it")));
    }
}

fn kind(input: &YamlNode) -> Option<&str> {
    input.get("type").and_then(YamlNode::text)
}

fn dispatch_input(name: &YamlNode, input: &YamlNode, report: &mut Report<'_>) {
    let text = name.text().unwrap_or_default();
    let kind = kind(input);
    let Some(options) = input.get("options") else { return };
    if kind != Some("choice") {
        let message = format!("`options` of `{text}` have no effect: its type is `{}`", kind.unwrap_or("string"));
        return report.warning_with(name.span, message, Some("write `type: choice`".to_owned()));
    }
    if options.items().is_empty() {
        report.warning(options.span, format!("`options` of `{text}` names nothing"));
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    for option in options.items() {
        let value = option.text().unwrap_or_default();
        if value.is_empty() {
            report.warning(option.span, format!("an option of `{text}` is empty"));
        } else if let Some(line) = seen.insert(value.to_owned(), option.span.line) {
            report.warning(option.span, format!("the option `{value}` is already there, in line {line}"));
        }
    }
    let default = input.get("default").filter(|default| !options.items().is_empty() && !is_dynamic(default));
    if let Some((default, value)) =
        default.and_then(|node| Some((node, node.text()?))).filter(|(_, value)| !seen.contains_key(*value))
    {
        let message = format!("the default of `{text}` is none of its options: `{value}`");
        let near = crate::spelling::suggestion(value, seen.keys().map(String::as_str));
        report.warning_with(default.span, message, near);
    }
}

fn call_input(name: &YamlNode, input: &YamlNode, report: &mut Report<'_>) {
    let text = name.text().unwrap_or_default();
    let Some(default) = input.get("default") else { return };
    if input.get("required").is_some_and(|required| required.to_json() == Json::Bool(true)) {
        let message = format!("the default of `{text}` is never used: callers must give the input");
        return report.warning_with(default.span, message, Some("leave out `default` or `required`".to_owned()));
    }
    if is_dynamic(default) {
        return;
    }
    let value = default.to_json();
    let (fits, wanted) = match kind(input) {
        Some("number") => (value.is_number(), "a number"),
        Some("boolean") => (value.is_boolean(), "`true` or `false`"),
        _ => return,
    };
    if !fits {
        let shown = default.text().unwrap_or_default();
        report.warning(default.span, format!("the default of `{text}` must be {wanted}, not `{shown}`"));
    }
}
