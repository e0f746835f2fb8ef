//! What `github.event` says of an event that was noticed, beyond what its commit tells (GitHub docs, "Webhook events and
//! payloads").

use serde_json::{Value, json};

use crate::dialect::trigger::{CommitDetails, EventDetails, PushDetails};

use super::event_payload::NO_COMMIT;

/// Laid over the payload that [`event_payload`](super::event_payload) makes.
pub(crate) fn payload(details: &EventDetails) -> Value {
    match details {
        EventDetails::Push(push) => pushed(push),
        EventDetails::Schedule(cron) => json!({ "schedule": cron }),
    }
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
