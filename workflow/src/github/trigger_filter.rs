//! Whether an event starts a workflow (GitHub docs: "Workflow syntax", `on`).

use crate::dialect::trigger::{TriggerDecision, TriggerEvent};
use crate::git_ref;
use crate::name_pattern::NamePatterns;
use crate::plan::{Plan, Trigger};

/// Whether `event` starts the workflow.
pub(crate) fn decide(plan: &Plan, event: &TriggerEvent<'_>) -> TriggerDecision {
    let Some(trigger) = plan.on.get(event.name) else {
        return TriggerDecision::Ignored(format!("the workflow is not for the event `{}`", event.name));
    };
    match refusal(trigger, event) {
        Some(reason) => TriggerDecision::Ignored(reason),
        None => TriggerDecision::Starts,
    }
}

fn refusal(trigger: &Trigger, event: &TriggerEvent<'_>) -> Option<String> {
    activity(trigger, event).or_else(|| match event.name {
        "push" => pushed(trigger, event),
        "pull_request" | "pull_request_target" => {
            let base = event.base_ref?;
            named(trigger, "branches", base).or_else(|| paths(trigger, event))
        }
        "workflow_run" | "merge_group" => named(trigger, "branches", git_ref::short_name(event.reference)),
        _ => None,
    })
}

/// Pull requests have three types where the workflow names none (GitHub docs: "Events that trigger workflows").
fn activity(trigger: &Trigger, event: &TriggerEvent<'_>) -> Option<String> {
    let action = event.action?;
    let wanted = match (trigger.filters.get("types"), event.name) {
        (Some(types), _) => types.iter().any(|kind| kind == action),
        (None, "pull_request" | "pull_request_target") => ["opened", "synchronize", "reopened"].contains(&action),
        (None, _) => true,
    };
    (!wanted).then(|| format!("the workflow is not for the activity `{action}` of `{}`", event.name))
}

fn pushed(trigger: &Trigger, event: &TriggerEvent<'_>) -> Option<String> {
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
        _ => named(trigger, "branches", git_ref::short_name(event.reference)).or_else(|| paths(trigger, event)),
    }
}

/// `branches` and `branches-ignore`, or the same for tags.
fn named(trigger: &Trigger, key: &str, name: &str) -> Option<String> {
    if let Some(wanted) = trigger.filters.get(key)
        && !NamePatterns::new(wanted).matches(name)
    {
        return Some(format!("`{name}` is not among `{key}`"));
    }
    let ignore = format!("{key}-ignore");
    let ignored = trigger.filters.get(&ignore)?;
    NamePatterns::new(ignored).matches(name).then(|| format!("`{name}` is among `{ignore}`"))
}

fn paths(trigger: &Trigger, event: &TriggerEvent<'_>) -> Option<String> {
    let changed = event.changed_paths?;
    if let Some(wanted) = trigger.filters.get("paths") {
        let wanted = NamePatterns::new(wanted);
        if !changed.iter().any(|path| wanted.matches(path)) {
            return Some("no changed file is among `paths`".to_owned());
        }
    }
    let ignored = NamePatterns::new(trigger.filters.get("paths-ignore")?);
    let all = changed.iter().all(|path| ignored.matches(path));
    all.then(|| "every changed file is among `paths-ignore`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan_of;
    use super::*;

    fn runs(on: &str, event: &TriggerEvent<'_>) -> bool {
        decide(&plan_of(&format!("on: {on}\njobs: {{a: {{runs-on: x}}}}")), event) == TriggerDecision::Starts
    }

    #[test]
    fn pushes_are_held_against_branches_tags_and_paths() {
        let src = ["src/main.rs".to_owned()];
        let docs = ["src/a.md".to_owned(), "README.md".to_owned()];
        let filtered = "{push: {branches: [main, 'release/**', '!release/old-*'], paths: ['src/**', '!src/**/*.md'], tags-ignore: ['**']}}";
        for (on, reference, paths, expected) in [
            ("push", "refs/heads/x", Some(&docs[..]), true),
            ("release", "refs/heads/x", None, false),
            (filtered, "refs/heads/main", Some(&src[..]), true),
            (filtered, "refs/heads/main", None, true),
            (filtered, "refs/heads/release/1", Some(&src[..]), true),
            (filtered, "refs/heads/release/old-1", Some(&src[..]), false),
            (filtered, "refs/heads/main", Some(&docs[..]), false),
            (filtered, "refs/tags/v1", Some(&src[..]), false),
            ("{push: {branches: [main]}}", "refs/tags/v1", None, false),
            ("{push: {tags: ['v*']}}", "refs/heads/main", None, false),
            ("{push: {tags: ['v*']}}", "refs/tags/v1", None, true),
            ("{push: {tags: ['v*'], paths: [a]}}", "refs/tags/v1", Some(&docs[..]), true),
            ("{push: {branches-ignore: [main]}}", "refs/heads/main", None, false),
            ("{push: {branches-ignore: [main]}}", "refs/heads/x", None, true),
            ("{push: {paths-ignore: ['**.md']}}", "refs/heads/x", Some(&docs[..]), false),
            ("{push: {paths-ignore: ['**.md']}}", "refs/heads/x", Some(&src[..]), true),
        ] {
            let event = TriggerEvent { name: "push", reference, changed_paths: paths, ..TriggerEvent::default() };
            assert_eq!(runs(on, &event), expected, "{on} {reference} {paths:?}");
        }
    }

    #[test]
    fn pull_requests_are_held_against_their_base_and_activity() {
        for (on, action, expected) in [
            ("pull_request", Some("opened"), true),
            ("pull_request", Some("labeled"), false),
            ("pull_request", None, true),
            ("{pull_request: {types: [labeled]}}", Some("labeled"), true),
            ("{pull_request: {types: labeled}}", Some("opened"), false),
            ("{pull_request: {branches: [main]}}", Some("opened"), true),
            ("{pull_request: {branches: [dev]}}", Some("opened"), false),
        ] {
            let event = TriggerEvent {
                name: "pull_request",
                reference: "refs/pull/1/merge",
                base_ref: Some("main"),
                action,
                ..TriggerEvent::default()
            };
            assert_eq!(runs(on, &event), expected, "{on} {action:?}");
        }
    }

    #[test]
    fn a_refusal_says_why() {
        let plan = plan_of("on: {push: {branches: [main]}}\njobs: {a: {runs-on: x}}");
        let event = TriggerEvent { name: "push", reference: "refs/heads/dev", ..TriggerEvent::default() };
        assert_eq!(decide(&plan, &event), TriggerDecision::Ignored("`dev` is not among `branches`".to_owned()));
    }
}
