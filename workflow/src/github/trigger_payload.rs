//! What `github.event` says of an event that was noticed, beyond what its commit tells (GitHub docs, "Webhook events and
//! payloads").

use serde_json::{Value, json};

use crate::dialect::trigger::{CommitDetails, EventDetails, PullRequestDetails, PullRequestSide, PushDetails};

use super::event_payload::NO_COMMIT;

/// Laid over the payload that [`event_payload`](super::event_payload) makes.
pub(crate) fn payload(details: &EventDetails) -> Value {
    match details {
        EventDetails::Push(push) => pushed(push),
        EventDetails::Schedule(cron) => json!({ "schedule": cron }),
        EventDetails::PullRequest(request) => pull_request(request),
    }
}

fn pull_request(request: &PullRequestDetails) -> Value {
    let labels: Vec<Value> = request.labels.iter().map(|name| json!({ "name": name })).collect();
    let mut payload = json!({
        "action": request.action,
        "number": request.number,
        "sender": { "login": request.sender },
        "pull_request": {
            "number": request.number,
            "state": if request.is_open { "open" } else { "closed" },
            "title": request.title,
            "body": if request.body.is_empty() { Value::Null } else { request.body.as_str().into() },
            "user": { "login": request.author },
            "labels": labels,
            "draft": request.is_draft,
            "merged": request.is_merged,
            "mergeable": request.merge_commit.is_some(),
            "merge_commit_sha": request.merge_commit,
            "head": side(&request.head),
            "base": side(&request.base),
        },
    });
    if let Some(count) = request.changed_files {
        payload["pull_request"]["changed_files"] = count.into();
    }
    if let Some(before) = &request.before {
        payload["before"] = before.as_str().into();
        payload["after"] = request.head.commit.as_str().into();
    }
    payload
}

fn side(side: &PullRequestSide) -> Value {
    let name = side.repository.rsplit('/').next().unwrap_or_default();
    json!({
        "ref": side.branch,
        "sha": side.commit,
        "label": format!("{}:{}", side.owner, side.branch),
        "user": { "login": side.owner },
        "repo": {
            "name": name,
            "full_name": side.repository,
            "owner": { "login": side.owner, "name": side.owner },
            "fork": side.is_fork,
        },
    })
}

fn pushed(push: &PushDetails) -> Value {
    let commits: Vec<Value> = push.commits.iter().map(commit).collect();
    let mut payload = json!({
        "before": push.before.as_deref().unwrap_or(NO_COMMIT),
        "after": push.after,
        "created": push.before.is_none(),
        "deleted": false,
        "forced": push.forced,
        "commits": commits,
    });
    // A tag object or a push of known commits brings none: what the ref stands for is told all the same.
    if let (Some(head), Some(payload)) = (commits.last(), payload.as_object_mut()) {
        payload.insert("head_commit".into(), head.clone());
    }
    payload
}

fn commit(commit: &CommitDetails) -> Value {
    let person = |[name, email]: &[String; 2]| json!({ "name": name, "email": email });
    json!({
        "id": commit.id,
        "tree_id": commit.tree,
        "distinct": true,
        "message": commit.message,
        "timestamp": commit.timestamp,
        "author": person(&commit.author),
        "committer": person(&commit.committer),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_request_says_who_wants_what_merged_into_what() {
        let side = |branch: &str, commit: &str, owner: &str| PullRequestSide {
            branch: branch.into(),
            commit: commit.into(),
            repository: format!("{owner}/hello"),
            owner: owner.into(),
            is_fork: owner == "npub1b",
        };
        let request = PullRequestDetails {
            number: 7,
            action: "synchronize",
            title: "A title".into(),
            author: "npub1b".into(),
            sender: "npub1b".into(),
            labels: vec!["bug".into()],
            is_draft: true,
            is_open: true,
            head: side("topic", "h", "npub1b"),
            base: side("main", "b", "npub1a"),
            before: Some("g".into()),
            merge_commit: Some("m".into()),
            changed_files: Some(3),
            ..PullRequestDetails::default()
        };
        let told = payload(&EventDetails::PullRequest(Box::new(request.clone())));
        for (pointer, expected) in [
            ("/action", json!("synchronize")),
            ("/number", json!(7)),
            ("/before", json!("g")),
            ("/after", json!("h")),
            ("/sender/login", json!("npub1b")),
            ("/pull_request/number", json!(7)),
            ("/pull_request/title", json!("A title")),
            ("/pull_request/body", json!(null)),
            ("/pull_request/state", json!("open")),
            ("/pull_request/draft", json!(true)),
            ("/pull_request/merged", json!(false)),
            ("/pull_request/user/login", json!("npub1b")),
            ("/pull_request/labels/0/name", json!("bug")),
            ("/pull_request/merge_commit_sha", json!("m")),
            ("/pull_request/changed_files", json!(3)),
            ("/pull_request/head/ref", json!("topic")),
            ("/pull_request/head/sha", json!("h")),
            ("/pull_request/head/repo/full_name", json!("npub1b/hello")),
            ("/pull_request/head/repo/fork", json!(true)),
            ("/pull_request/base/ref", json!("main")),
            ("/pull_request/base/sha", json!("b")),
            ("/pull_request/base/repo/owner/login", json!("npub1a")),
            ("/pull_request/base/repo/fork", json!(false)),
        ] {
            assert_eq!(told.pointer(pointer), Some(&expected), "{pointer}");
        }
        let closed = PullRequestDetails { is_open: false, is_merged: true, before: None, ..request };
        let told = payload(&EventDetails::PullRequest(Box::new(closed)));
        assert_eq!((&told["pull_request"]["state"], &told["pull_request"]["merged"]), (&json!("closed"), &json!(true)));
        assert!(told.get("before").is_none());
    }

    #[test]
    fn a_push_says_what_it_brought() {
        let made = |id: &str| CommitDetails {
            id: id.into(),
            message: format!("message of {id}"),
            author: ["Ann".into(), "ann@example.org".into()],
            ..CommitDetails::default()
        };
        let push = PushDetails {
            before: Some("a".into()),
            after: "c".into(),
            forced: true,
            commits: vec![made("b"), made("c")],
        };
        let told = payload(&EventDetails::Push(push.clone()));
        for (pointer, expected) in [
            ("/before", json!("a")),
            ("/after", json!("c")),
            ("/forced", json!(true)),
            ("/created", json!(false)),
            ("/commits/0/id", json!("b")),
            ("/commits/1/author/email", json!("ann@example.org")),
            ("/head_commit/id", json!("c")),
        ] {
            assert_eq!(told.pointer(pointer), Some(&expected), "{pointer}");
        }
        let created = payload(&EventDetails::Push(PushDetails { before: None, commits: Vec::new(), ..push }));
        assert_eq!((&created["before"], &created["created"]), (&json!(NO_COMMIT), &json!(true)));
        assert!(created.get("head_commit").is_none());
        assert_eq!(payload(&EventDetails::Schedule("0 3 * * *".into())), json!({"schedule": "0 3 * * *"}));
    }
}
