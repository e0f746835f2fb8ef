//! Paths in a job's machine.

/// A path as written in a workflow, below the workspace unless it is absolute.
pub(super) fn absolute(workspace: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{workspace}/{path}") }
}
