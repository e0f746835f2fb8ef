//! Whether an event starts a workflow (GitHub docs: "Workflow syntax", `on`).

mod glob;

use crate::plan::{Plan, Trigger};

use glob::Patterns;

/// Something that happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Event<'a> {
    /// `push`, `pull_request`, …
    pub name: &'a str,
    /// Full name of the ref it is about: `refs/heads/main`.
    pub reference: &'a str,
    /// Short name of the branch a pull request wants to go into.
    pub base_ref: Option<&'a str>,
    /// Paths it changes; `None` where they are not known: then they hold nothing back.
    pub changed_paths: Option<&'a [String]>,
    /// Activity type, such as `opened`; `None` where it is not known.
    pub action: Option<&'a str>,
}

/// Whether a workflow runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It does.
    Runs,
    /// It does not, for this reason.
    Not(String),
}

/// Whether `event` starts the workflow.
pub fn triggers(plan: &Plan, event: &Event<'_>) -> Decision {
    let Some(trigger) = plan.on.get(event.name) else {
        return Decision::Not(format!("the workflow is not for the event `{}`", event.name));
    };
    match refusal(trigger, event) {
        Some(reason) => Decision::Not(reason),
        None => Decision::Runs,
    }
}

fn refusal(trigger: &Trigger, event: &Event<'_>) -> Option<String> {
    activity(trigger, event).or_else(|| match event.name {
        "push" => pushed(trigger, event),
        "pull_request" | "pull_request_target" => {
            let base = event.base_ref?;
            named(trigger, "branches", base).or_else(|| paths(trigger, event))
        }
        "workflow_run" | "merge_group" => named(trigger, "branches", short(event.reference)),
        _ => None,
    })
}

/// Pull requests have three types where the workflow names none (GitHub docs: "Events that trigger workflows").
fn activity(trigger: &Trigger, event: &Event<'_>) -> Option<String> {
    let action = event.action?;
    let wanted = match (trigger.filters.get("types"), event.name) {
        (Some(types), _) => types.iter().any(|kind| kind == action),
        (None, "pull_request" | "pull_request_target") => ["opened", "synchronize", "reopened"].contains(&action),
        (None, _) => true,
    };
    (!wanted).then(|| format!("the workflow is not for the activity `{action}` of `{}`", event.name))
}

fn pushed(trigger: &Trigger, event: &Event<'_>) -> Option<String> {
    let has = |key: &str| trigger.filters.contains_key(key);
    let for_branches = has("branches") || has("branches-ignore");
    let for_tags = has("tags") || has("tags-ignore");
    if let Some(tag) = event.reference.strip_prefix("refs/tags/") {
        // Paths are not looked at for tags.
        return match (for_tags, for_branches) {
            (false, true) => Some("the workflow is for branches, and this is a tag".to_owned()),
            _ => named(trigger, "tags", tag),
        };
    }
    match (for_branches, for_tags) {
        (false, true) => Some("the workflow is for tags, and this is a branch".to_owned()),
        _ => named(trigger, "branches", short(event.reference)).or_else(|| paths(trigger, event)),
    }
}

fn short(reference: &str) -> &str {
    ["refs/heads/", "refs/tags/"].iter().find_map(|prefix| reference.strip_prefix(prefix)).unwrap_or(reference)
}

/// `branches` and `branches-ignore`, or the same for tags.
fn named(trigger: &Trigger, key: &str, name: &str) -> Option<String> {
    if let Some(wanted) = trigger.filters.get(key)
        && !Patterns::new(wanted).matches(name)
    {
        return Some(format!("`{name}` is not among `{key}`"));
    }
    let ignore = format!("{key}-ignore");
    let ignored = trigger.filters.get(&ignore)?;
    Patterns::new(ignored).matches(name).then(|| format!("`{name}` is among `{ignore}`"))
}

fn paths(trigger: &Trigger, event: &Event<'_>) -> Option<String> {
    let changed = event.changed_paths?;
    if let Some(wanted) = trigger.filters.get("paths") {
        let wanted = Patterns::new(wanted);
        if !changed.iter().any(|path| wanted.matches(path)) {
            return Some("no changed file is among `paths`".to_owned());
        }
    }
    let ignored = Patterns::new(trigger.filters.get("paths-ignore")?);
    let all = changed.iter().all(|path| ignored.matches(path));
    all.then(|| "every changed file is among `paths-ignore`".to_owned())
}
