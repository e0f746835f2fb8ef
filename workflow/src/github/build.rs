//! Makes the plan of a tree that passed every check.

use std::collections::HashMap;

use indexmap::IndexMap;

use crate::expression;
use crate::leg_filter::LegFilter;
use crate::plan::{
    Concurrency, Control, ControlAction, Defaults, Dialect, Env, EnvSource, Input, Job, JobContent, Plan, QueueMode,
    Step, StepAction, StepEntry, Strategy, Text, Tree, Trigger,
};
use crate::yaml::{YamlNode, YamlValue};

/// The plan. What is missing or has a shape that the checks refuse counts as not written.
pub(super) fn plan(path: &str, root: &YamlNode) -> Plan {
    let ids: Vec<&str> =
        root.get("jobs").map(YamlNode::entries).unwrap_or_default().iter().filter_map(|(id, _)| id.text()).collect();
    Plan {
        dialect: Dialect::Github,
        path: path.to_owned(),
        name: text(root.get("name")).filter(|name| !name.is_empty()).unwrap_or_else(|| path.to_owned()),
        run_name: text(root.get("run-name")).filter(|name| !name.is_empty()),
        on: root.get("on").map(triggers).unwrap_or_default(),
        env: env(root.get("env")),
        defaults: defaults(root.get("defaults")),
        concurrency: root.get("concurrency").and_then(concurrency),
        permissions: tree(root.get("permissions")),
        jobs: mapped(root.get("jobs"), |node| job(node, &ids)),
    }
}

fn triggers(on: &YamlNode) -> IndexMap<String, Trigger> {
    match &on.value {
        YamlValue::Mapping(_) => mapped(Some(on), trigger),
        _ => texts(Some(on)).into_iter().map(|event| (event, Trigger::default())).collect(),
    }
}

fn trigger(node: &YamlNode) -> Trigger {
    let filters = node.entries().iter().filter_map(|(key, value)| {
        let name = key.text().filter(|name| !matches!(*name, "inputs" | "outputs" | "secrets"))?;
        Some((name.to_owned(), texts(Some(value))))
    });
    let call = ["outputs", "secrets"].into_iter().filter_map(|key| Some((key.to_owned(), node.get(key)?.to_json())));
    let call: serde_json::Map<_, _> = call.collect();
    Trigger {
        filters: filters.collect(),
        inputs: mapped(node.get("inputs"), input),
        cron: node.items().iter().filter_map(|item| text(item.get("cron"))).collect(),
        call: if call.is_empty() { Tree::Null } else { Tree::Object(call) },
    }
}

fn input(node: &YamlNode) -> Input {
    Input {
        kind: text(node.get("type")).unwrap_or_else(|| "string".to_owned()),
        required: node.get("required").is_some_and(|required| required.to_json() == Tree::Bool(true)),
        default: tree(node.get("default")),
        options: texts(node.get("options")),
    }
}

fn job(node: &YamlNode, ids: &[&str]) -> Job {
    // Ids are compared without case; the plan names each job in one way.
    let declared =
        |need: String| ids.iter().find(|id| id.eq_ignore_ascii_case(&need)).map_or(need, |id| (*id).to_owned());
    let strategy = node.get("strategy");
    let strategy_key = |key| strategy.and_then(|strategy| tree(strategy.get(key)));
    Job {
        name: text(node.get("name")).filter(|name| !name.is_empty()),
        needs: texts(node.get("needs")).into_iter().map(declared).collect(),
        condition: condition(node),
        runs_on: tree(node.get("runs-on")).unwrap_or_default(),
        strategy: Strategy {
            matrix: strategy_key("matrix"),
            fail_fast: strategy_key("fail-fast"),
            max_parallel: strategy_key("max-parallel"),
            legs: LegFilter::default(),
        },
        env: env(node.get("env")),
        defaults: defaults(node.get("defaults")),
        outputs: mapped(node.get("outputs"), scalar_text),
        timeout_minutes: tree(node.get("timeout-minutes")),
        continue_on_error: tree(node.get("continue-on-error")),
        container: tree(node.get("container")),
        services: tree(node.get("services")),
        concurrency: node.get("concurrency").and_then(concurrency),
        permissions: tree(node.get("permissions")),
        environment: tree(node.get("environment")),
        work: match text(node.get("uses")) {
            Some(uses) => JobContent::Call {
                uses,
                with: mapped(node.get("with"), YamlNode::to_json),
                secrets: tree(node.get("secrets")),
            },
            None => JobContent::Steps(steps(node.get("steps").map(YamlNode::items).unwrap_or_default())),
        },
    }
}

/// The entries of `steps:`. Which step an id means is known by the places of those before.
fn steps(nodes: &[YamlNode]) -> Vec<StepEntry> {
    let mut entries = Vec::new();
    let mut places = HashMap::new();
    for node in nodes {
        if let Some(group) = node.get("parallel") {
            let first = entries.len();
            for member in group.items() {
                places.extend(text(member.get("id")).map(|id| (id, entries.len())));
                entries.push(StepEntry::Step(Box::new(Step { background: true, ..step(member) })));
            }
            let members = ControlAction::Wait((first..entries.len()).collect());
            entries.push(StepEntry::Control(control(node, "Wait for parallel steps", members)));
            continue;
        }
        let entry = if let Some(wait) = node.get("wait") {
            let ids = texts(Some(wait));
            let waited = ids.iter().filter_map(|id| places.get(id).copied()).collect();
            StepEntry::Control(control(node, "Wait", ControlAction::Wait(waited)))
        } else if node.get("wait-all").is_some() {
            StepEntry::Control(control(node, "Wait for all", ControlAction::WaitAll))
        } else if let Some(place) = text(node.get("cancel")).and_then(|id| places.get(&id).copied()) {
            StepEntry::Control(control(node, "Cancel", ControlAction::Cancel(place)))
        } else {
            StepEntry::Step(Box::new(step(node)))
        };
        places.extend(text(node.get("id")).map(|id| (id, entries.len())));
        entries.push(entry);
    }
    entries
}

fn control(node: &YamlNode, name: &str, control: ControlAction) -> Control {
    Control {
        id: text(node.get("id")),
        name: text(node.get("name")).filter(|name| !name.is_empty()).unwrap_or_else(|| name.to_owned()),
        continue_on_error: tree(node.get("continue-on-error")),
        control,
        line: line(node),
    }
}

fn line(node: &YamlNode) -> u32 {
    u32::try_from(node.span.line).unwrap_or(u32::MAX)
}

fn step(node: &YamlNode) -> Step {
    Step {
        id: text(node.get("id")),
        name: text(node.get("name")).filter(|name| !name.is_empty()),
        condition: condition(node),
        env: env(node.get("env")),
        continue_on_error: tree(node.get("continue-on-error")),
        timeout_minutes: tree(node.get("timeout-minutes")),
        background: node.get("background").is_some_and(|node| node.to_json() == Tree::Bool(true)),
        action: match text(node.get("uses")) {
            Some(uses) => StepAction::Uses { uses, with: env_map(node.get("with")) },
            None => StepAction::Run {
                script: text(node.get("run")).unwrap_or_default(),
                shell: text(node.get("shell")),
                working_directory: text(node.get("working-directory")),
            },
        },
        line: line(node),
    }
}

fn condition(node: &YamlNode) -> Option<String> {
    text(node.get("if")).filter(|condition| !condition.trim().is_empty())
}

fn concurrency(node: &YamlNode) -> Option<Concurrency> {
    if let YamlValue::Scalar(_) = node.value {
        let group = scalar_text(node);
        return (!group.is_empty()).then_some(Concurrency {
            group,
            cancel_in_progress: Tree::Bool(false),
            queue: QueueMode::Single,
        });
    }
    Some(Concurrency {
        group: text(node.get("group"))?,
        cancel_in_progress: tree(node.get("cancel-in-progress")).unwrap_or(Tree::Bool(false)),
        queue: match node.get("queue").and_then(YamlNode::text) {
            Some("max") => QueueMode::Max,
            _ => QueueMode::Single,
        },
    })
}

fn defaults(node: Option<&YamlNode>) -> Defaults {
    let run = node.and_then(|node| node.get("run"));
    let key = |key| run.and_then(|run| text(run.get(key)));
    Defaults { shell: key("shell"), working_directory: key("working-directory") }
}

fn env(node: Option<&YamlNode>) -> EnvSource {
    match node {
        Some(YamlNode { value: YamlValue::Scalar(scalar), .. }) if scalar.text.contains("${{") => {
            EnvSource::Expression(scalar.text.clone())
        }
        node => EnvSource::Map(env_map(node)),
    }
}

fn env_map(node: Option<&YamlNode>) -> Env {
    mapped(node, scalar_text)
}

fn mapped<T>(node: Option<&YamlNode>, value: impl Fn(&YamlNode) -> T) -> IndexMap<String, T> {
    let entries = node.map(YamlNode::entries).unwrap_or_default();
    entries.iter().filter_map(|(key, node)| Some((key.text()?.to_owned(), value(node)))).collect()
}

/// A value as it is, nothing as `None`.
fn tree(node: Option<&YamlNode>) -> Option<Tree> {
    node.map(YamlNode::to_json).filter(|tree| !tree.is_null())
}

fn text(node: Option<&YamlNode>) -> Option<Text> {
    node.filter(|node| matches!(node.value, YamlValue::Scalar(_)) && !node.is_null()).map(scalar_text)
}

/// Text as GitHub makes it of a number, a boolean or nothing.
fn scalar_text(node: &YamlNode) -> Text {
    match &node.value {
        YamlValue::Scalar(scalar) => expression::Value::from_json(&scalar.resolve()).as_text().into_owned(),
        _ => String::new(),
    }
}

fn texts(node: Option<&YamlNode>) -> Vec<String> {
    match node {
        Some(YamlNode { value: YamlValue::Sequence(items), .. }) => items.iter().map(scalar_text).collect(),
        node => text(node).into_iter().collect(),
    }
}
