//! The variables that every step has, and the order in which the rest is laid over them.
//!
//! Source of the rules: GitHub docs, "Variables reference: default environment variables".

use indexmap::IndexMap;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

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
pub fn defaults(github: &Map<String, Value>, runner: &Map<String, Value>) -> IndexMap<String, String> {
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
pub fn complete(github: &mut Map<String, Value>) {
    let mut fill = |key: &str, value: &str| {
        let entry = github.entry(key).or_insert(Value::Null);
        if entry.is_null() {
            *entry = value.into();
        }
    };
    fill("server_url", "http://ci.localhost:4480");
    fill("api_url", "http://ci.localhost:4480/api/v3");
    fill("graphql_url", "http://ci.localhost:4480/api/graphql");
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

/// A number that stands for a name, always the same: GitHub's ids are numbers, and tools read them as such. It fits the
/// 53 bits that JavaScript counts exactly.
fn number(name: &str) -> String {
    let hash = Sha256::digest(name);
    let bits = hash.iter().take(8).fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
    (bits >> 11).to_string()
}

/// A search path: what steps added comes first, the newest before the others, then what the machine has.
pub fn search_path(added: &[String], machine: &str) -> String {
    let machine =
        if machine.is_empty() { "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" } else { machine };
    added.iter().rev().map(String::as_str).chain([machine]).collect::<Vec<_>>().join(":")
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
    fn later_paths_come_first() {
        assert_eq!(search_path(&["/a".into(), "/b".into()], "/bin"), "/b:/a:/bin");
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
