//! What a workflow sees of the event that started it: `github.event`.

use serde_json::{Map, Value, json};

use crate::dialect::run_start::Subject;
use crate::git_ref;
use crate::plan::Trigger;

/// The id that stands for "no commit before" in a push.
pub(super) const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

/// `github.event`, as far as it can be known here (GitHub docs: webhook events and payloads).
pub(super) fn payload(event: &str, subject: &Subject, trigger: Option<&Trigger>, inputs: &Map<String, Value>) -> Value {
    let (message, author) = subject.description.clone().unwrap_or_default();
    let sender = json!({ "login": subject.actor, "type": "User" });
    let repository = json!({
        "name": subject.repository.rsplit('/').next().unwrap_or_default(),
        "full_name": subject.repository,
        "owner": { "login": subject.owner, "name": subject.owner },
        "default_branch": default_branch(subject),
        "private": false,
    });
    let commit = json!({
        "id": subject.commit, "message": message, "distinct": true,
        "author": { "name": author }, "committer": { "name": author },
    });
    let tag = subject.reference.strip_prefix("refs/tags/");
    let mut payload = match event {
        "push" => {
            // How many commits came at once is not known: the last one did.
            let before = subject.parent.as_deref().filter(|_| tag.is_none());
            json!({
                "ref": subject.reference, "before": before.unwrap_or(NO_COMMIT), "after": subject.commit, "base_ref": null,
                "created": before.is_none(), "deleted": false, "forced": false,
                "head_commit": commit, "commits": [commit], "pusher": { "name": subject.actor },
            })
        }
        "pull_request" | "pull_request_target" => {
            let number = request_number(&subject.reference);
            json!({
                "action": "synchronize",
                "number": number,
                "pull_request": {
                    "number": number,
                    "head": { "ref": short_reference(subject), "sha": subject.commit, "repo": repository },
                    "base": { "ref": default_branch(subject), "sha": subject.default_tip, "repo": repository },
                    "title": message.lines().next().unwrap_or_default(),
                    "body": null, "labels": [],
                    "user": sender, "draft": false, "merged": false, "state": "open",
                },
            })
        }
        "release" => json!({
            "action": "published",
            "release": {
                "tag_name": tag.unwrap_or(short_reference(subject)),
                "name": tag.unwrap_or(short_reference(subject)),
                "target_commitish": subject.commit,
                "body": message,
                "draft": false,
                // Semantic versions: what follows a hyphen is not final.
                "prerelease": tag.is_some_and(|tag| tag.contains('-')),
                "author": sender,
            },
        }),
        "create" => json!({
            "ref": short_reference(subject),
            "ref_type": if tag.is_some() { "tag" } else { "branch" },
            "master_branch": default_branch(subject),
            "pusher_type": "user",
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

/// `github.ref_name`.
pub(super) fn short_reference(subject: &Subject) -> &str {
    let name = &subject.reference;
    name.strip_prefix("refs/pull/").unwrap_or_else(|| git_ref::short_name(name))
}

/// The default branch's short name.
pub(super) fn default_branch(subject: &Subject) -> &str {
    let name = subject.default_branch.as_deref().unwrap_or("main");
    git_ref::branch(name).unwrap_or(name)
}

/// The number in `refs/pull/7/merge`.
fn request_number(reference: &str) -> Option<u64> {
    reference.strip_prefix("refs/pull/")?.split('/').next()?.parse().ok()
}

/// `github.event.inputs` holds text, whatever type an input has (GitHub docs: `on.workflow_dispatch.inputs`).
fn text(value: &Value) -> Value {
    match value {
        Value::String(_) => value.clone(),
        Value::Null => "".into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(event: &str, reference: &str) -> Value {
        let subject = Subject {
            repository: "npub1x/hello".into(),
            commit: "c".repeat(40),
            reference: reference.into(),
            description: Some(("title\n\nbody".into(), "Ann".into())),
            parent: Some("b".repeat(40)),
            default_tip: Some("d".repeat(40)),
            ..Subject::default()
        };
        payload(event, &subject, None, &Map::new())
    }

    #[test]
    fn payloads_say_what_the_ref_tells() {
        for (event, reference, pointer, expected) in [
            ("push", "refs/heads/main", "/created", json!(false)),
            ("push", "refs/heads/main", "/before", json!("b".repeat(40))),
            ("push", "refs/tags/v1", "/before", json!(NO_COMMIT)),
            ("pull_request", "refs/pull/7/merge", "/pull_request/base/sha", json!("d".repeat(40))),
            ("push", "refs/tags/v1", "/created", json!(true)),
            ("push", "refs/tags/v1", "/ref", json!("refs/tags/v1")),
            ("push", "refs/heads/main", "/head_commit/author/name", json!("Ann")),
            ("pull_request", "refs/pull/7/merge", "/number", json!(7)),
            ("pull_request", "refs/heads/topic", "/number", json!(null)),
            ("pull_request", "refs/heads/topic", "/pull_request/title", json!("title")),
            ("pull_request_target", "refs/heads/topic", "/pull_request/head/repo/full_name", json!("npub1x/hello")),
            ("release", "refs/tags/v1.2", "/release/tag_name", json!("v1.2")),
            ("release", "refs/tags/v1.2", "/release/prerelease", json!(false)),
            ("release", "refs/tags/v2.0-rc1", "/release/prerelease", json!(true)),
            ("release", "refs/tags/v1.2", "/action", json!("published")),
            ("create", "refs/tags/v1.2", "/ref_type", json!("tag")),
            ("create", "refs/heads/topic", "/ref", json!("topic")),
            ("label", "refs/heads/main", "/repository/name", json!("hello")),
        ] {
            let payload = of(event, reference);
            assert_eq!(payload.pointer(pointer), Some(&expected), "{event} of {reference}: {pointer}");
        }
    }
}
