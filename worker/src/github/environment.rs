//! The variables that every step has, and what is missing in the `github` context.
//!
//! Source of the rules: GitHub docs, "Variables reference: default environment variables".

use indexmap::IndexMap;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use workflow::github::ORIGIN;

/// Keys of the `github` context that are also variables, upper-cased behind `GITHUB_`.
const FROM_CONTEXT: &[&str] = &[
    "action",
    "action_path",
    "action_ref",
    "action_repository",
    "actor",
    "actor_id",
    "api_url",
    "base_ref",
    "event_name",
    "event_path",
    "graphql_url",
    "head_ref",
    "job",
    "ref",
    "ref_name",
    "ref_protected",
    "ref_type",
    "repository",
    "repository_id",
    "repository_owner",
    "repository_owner_id",
    "retention_days",
    "run_attempt",
    "run_id",
    "run_number",
    "server_url",
    "sha",
    "triggering_actor",
    "workflow",
    "workflow_ref",
    "workflow_sha",
    "workspace",
];

/// The default variables, from the `github` and `runner` contexts.
pub(super) fn defaults(github: &Map<String, Value>, runner: &Map<String, Value>) -> IndexMap<String, String> {
    let mut variables = IndexMap::new();
    variables.insert("CI".to_owned(), "true".to_owned());
    variables.insert("GITHUB_ACTIONS".to_owned(), "true".to_owned());
    for key in FROM_CONTEXT {
        if let Some(value) = github.get(*key) {
            variables.insert(format!("GITHUB_{}", key.to_ascii_uppercase()), text(value));
        }
    }
    for (key, value) in runner {
        variables.insert(format!("RUNNER_{}", key.to_ascii_uppercase()), text(value));
    }
    variables
}

/// Fills what the request left open in the `github` context, so that URLs and names are never empty.
pub(super) fn complete(github: &mut Map<String, Value>) {
    let mut fill = |key: &str, value: &str| {
        let entry = github.entry(key).or_insert(Value::Null);
        if entry.is_null() {
            *entry = value.into();
        }
    };
    fill("server_url", ORIGIN);
    fill("api_url", &format!("{ORIGIN}/api/v3"));
    fill("graphql_url", &format!("{ORIGIN}/api/graphql"));
    fill("retention_days", "90");
    fill("ref_protected", "false");
    fill("token", "");
    for (key, name) in
        [("actor_id", "actor"), ("repository_id", "repository"), ("repository_owner_id", "repository_owner")]
    {
        let id = github.get(name).and_then(Value::as_str).map(number);
        let entry = github.entry(key).or_insert(Value::Null);
        if let (true, Some(id)) = (entry.is_null(), id) {
            *entry = id.into();
        }
    }
}

/// Puts another address in place of the usual one, at which a job's programs reach its services.
pub(super) fn relocate(value: &mut Value, origin: &str) {
    match value {
        Value::String(text) => {
            let rest = text.strip_prefix(ORIGIN).filter(|rest| rest.is_empty() || rest.starts_with('/'));
            if let Some(rest) = rest {
                *text = format!("{origin}{rest}");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| relocate(item, origin)),
        Value::Object(map) => map.values_mut().for_each(|value| relocate(value, origin)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A number that stands for a name, always the same: GitHub's ids are numbers, and tools read them as such. It fits the
/// 53 bits that JavaScript counts exactly.
fn number(name: &str) -> String {
    let hash = Sha256::digest(name);
    let bits = hash.iter().take(8).fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
    (bits >> 11).to_string()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn addresses_follow_the_services_wherever_they_stand() {
        let mut github = serde_json::json!({
            "api_url": format!("{ORIGIN}/api/v3"), "server_url": ORIGIN, "sha": "abc", "run_id": 7,
            "event": {"repository": {"html_url": format!("{ORIGIN}/o/r")}, "urls": [format!("{ORIGIN}0/x")]},
        });
        relocate(&mut github, "http://127.0.0.1:5");
        let expected = serde_json::json!({
            "api_url": "http://127.0.0.1:5/api/v3", "server_url": "http://127.0.0.1:5", "sha": "abc", "run_id": 7,
            "event": {"repository": {"html_url": "http://127.0.0.1:5/o/r"}, "urls": [format!("{ORIGIN}0/x")]},
        });
        assert_eq!(github, expected);
    }

    #[test]
    fn contexts_become_variables() {
        let github = serde_json::json!({"sha": "abc", "run_id": 7, "event": {}, "head_ref": null});
        let runner = serde_json::json!({"os": "Linux"});
        let variables = defaults(github.as_object().unwrap(), runner.as_object().unwrap());
        let get = |name: &str| variables.get(name).map(String::as_str);
        assert_eq!(get("GITHUB_SHA"), Some("abc"));
        assert_eq!(get("GITHUB_RUN_ID"), Some("7"));
        assert_eq!(get("GITHUB_HEAD_REF"), Some(""));
        assert_eq!(get("GITHUB_EVENT"), None);
        assert_eq!(get("RUNNER_OS"), Some("Linux"));
    }
}
