//! Checkouts that would bring the code of somebody's pull request into a run that has the repository's own rights.
//!
//! Source of the rules: the README of actions/checkout, `allow-unsafe-pr-checkout`. Pure.

use serde_json::Value;

/// A checkout that would do so.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "refused: it would bring code of a pull request from another repository into a run of the event {event}, which has \
     this repository's secrets and rights. Check out what was merged, or, once you know what that code can do there, \
     set `allow-unsafe-pr-checkout: true`"
)]
pub struct UntrustedCheckout {
    event: String,
}

/// Whether a checkout may be done. `repository` and `reference` are its inputs, `own` is the run's repository, `payload`
/// that of its event. Inputs at their defaults always may: they mean the commit of the run.
pub fn check(
    event: &str,
    payload: &Value,
    own: &str,
    repository: &str,
    reference: &str,
) -> Result<(), UntrustedCheckout> {
    let requests: Vec<&Value> = match event {
        "pull_request_target" => vec![&payload["pull_request"]],
        "workflow_run" => {
            let run = &payload["workflow_run"];
            let by_request = run["event"].as_str().is_some_and(|event| event.starts_with("pull_request"));
            if by_request { vec![run] } else { Vec::new() }
        }
        _ => Vec::new(),
    };
    let elsewhere = !repository.is_empty() && !repository.eq_ignore_ascii_case(own);
    let refused = requests.into_iter().any(|request| {
        let head = request["head"]["repo"]["full_name"].as_str();
        let head = head.or_else(|| request["head_repository"]["full_name"].as_str());
        // Without a name it is a repository that is gone.
        if head.is_some_and(|head| head.eq_ignore_ascii_case(own)) {
            return false;
        }
        if elsewhere {
            return head.is_some_and(|head| head.eq_ignore_ascii_case(repository));
        }
        let commits = [&request["head"]["sha"], &request["merge_commit_sha"], &request["head_sha"]];
        let named = commits.iter().filter_map(|commit| commit.as_str()).any(|commit| is_same(commit, reference));
        named || is_request(reference)
    });
    if refused { Err(UntrustedCheckout { event: event.to_owned() }) } else { Ok(()) }
}

/// Whether a reference means this commit; a shortened id does as well.
fn is_same(commit: &str, reference: &str) -> bool {
    const SHORTEST: usize = 4;
    let start = commit.get(..reference.len());
    reference.len() >= SHORTEST && start.is_some_and(|start| start.eq_ignore_ascii_case(reference))
}

/// A ref of a request: `refs/pull/7/merge`, with or without `refs/`, and where Nostr clients push one, `refs/nostr/ID`.
fn is_request(reference: &str) -> bool {
    let short = reference.strip_prefix("refs/").unwrap_or(reference);
    let parts: Vec<&str> = short.split('/').collect();
    reference.starts_with("refs/nostr/") || matches!(parts.as_slice(), ["pull", _, "head" | "merge"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attack_15_the_head_of_a_foreign_pull_request_is_known_by_commit_ref_and_repository() {
        let head = "abcd0123".repeat(5);
        let payload = |head_repository: Option<&str>| {
            json!({
                "pull_request": {
                    "head": {"sha": head, "ref": "main", "repo": head_repository.map(|name| json!({"full_name": name}))},
                    "merge_commit_sha": "1".repeat(40),
                },
                "workflow_run": {
                    "event": "pull_request", "head_sha": head,
                    "head_repository": head_repository.map(|name| json!({"full_name": name})),
                },
            })
        };
        let stranger = payload(Some("eve/fork"));
        let allowed = |event: &str, payload: &Value, repository: &str, reference: &str| {
            check(event, payload, "us/own", repository, reference).is_ok()
        };
        for event in ["pull_request_target", "workflow_run"] {
            for (repository, reference) in [
                ("", head.as_str()),
                ("", "ABCD0123"),
                ("US/own", head.as_str()),
                ("", "refs/pull/7/merge"),
                ("", "refs/nostr/e1"),
                ("Eve/Fork", "x"),
            ] {
                assert!(!allowed(event, &stranger, repository, reference), "{event} {repository:?} {reference:?}");
                assert!(allowed(event, &payload(Some("Us/Own")), repository, reference), "our own branch");
                assert!(allowed("pull_request", &stranger, repository, reference), "no rights to lose");
            }
            assert!(!allowed(event, &payload(None), "", &head), "a repository that is gone");
            for (repository, reference) in [("", ""), ("", "main"), ("", "abc"), ("other/tool", &head)] {
                assert!(allowed(event, &stranger, repository, reference), "{event} {repository:?} {reference:?}");
            }
        }
        assert!(!allowed("pull_request_target", &stranger, "", &"1".repeat(40)), "the merge of it");
        let mut pushed = stranger;
        pushed["workflow_run"]["event"] = "push".into();
        assert!(allowed("workflow_run", &pushed, "", &head));
    }
}
