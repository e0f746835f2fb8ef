//! What `permissions:` of one place lets another ask for (GitHub docs: "Reuse workflows", permissions can only be kept
//! or lowered along a chain of calls).

use crate::plan::Tree;

/// What holds where nothing is written (GitHub docs: default permissions of `GITHUB_TOKEN`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultPermissions {
    /// Everything but `id-token`.
    Permissive,
    /// `contents` and `packages`, to read.
    Restricted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Level {
    None,
    Read,
    Write,
}

/// The permissions of a token, by the names of GitHub docs, `permissions`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Permissions([Level; SCOPES.len()]);

const SCOPES: [&str; 20] = [
    "actions",
    "artifact-metadata",
    "attestations",
    "checks",
    "code-quality",
    "contents",
    "copilot-requests",
    "deployments",
    "discussions",
    "drives",
    "id-token",
    "issues",
    "models",
    "packages",
    "pages",
    "pull-requests",
    "repository-projects",
    "security-events",
    "statuses",
    "vulnerability-alerts",
];

impl Permissions {
    pub(super) fn by_default(policy: DefaultPermissions) -> Self {
        Self(SCOPES.map(|scope| match (policy, scope) {
            (DefaultPermissions::Permissive, "id-token") => Level::None,
            (DefaultPermissions::Permissive, _) => Level::Write,
            (DefaultPermissions::Restricted, "contents" | "packages") => Level::Read,
            (DefaultPermissions::Restricted, _) => Level::None,
        }))
    }

    /// What is written; what is not named has none.
    pub(super) fn written(tree: &Tree) -> Self {
        let level = |text: Option<&str>| match text {
            Some("write" | "write-all") => Level::Write,
            Some("read" | "read-all") => Level::Read,
            _ => Level::None,
        };
        match tree {
            Tree::Object(entries) => Self(SCOPES.map(|scope| level(entries.get(scope).and_then(Tree::as_str)))),
            other => Self(SCOPES.map(|_| level(other.as_str()))),
        }
    }

    /// What is asked for beyond what is allowed: `(asked, allowed)`, each as `actions: write, …`.
    pub(super) fn beyond(&self, allowed: &Self) -> Option<(String, String)> {
        let over: Vec<_> =
            SCOPES.iter().zip(self.0.iter().zip(&allowed.0)).filter(|(_, (asked, allowed))| asked > allowed).collect();
        let list = |of: fn(&(&&str, (&Level, &Level))) -> String| over.iter().map(of).collect::<Vec<_>>().join(", ");
        (!over.is_empty()).then(|| {
            (
                list(|(scope, (asked, _))| format!("{scope}: {}", asked.as_str())),
                list(|(scope, (_, allowed))| format!("{scope}: {}", allowed.as_str())),
            )
        })
    }
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}
