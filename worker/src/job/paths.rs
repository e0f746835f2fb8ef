//! Paths in a job's machine.

/// A path as written in a workflow, below the workspace unless it is absolute.
pub(super) fn absolute(workspace: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{workspace}/{path}") }
}

/// A search path: what steps added comes first, the newest before the others, then what the machine has.
pub(super) fn search_path(added: &[String], machine: &str) -> String {
    let machine =
        if machine.is_empty() { "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" } else { machine };
    added.iter().rev().map(String::as_str).chain([machine]).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_paths_come_first() {
        assert_eq!(search_path(&["/a".into(), "/b".into()], "/bin"), "/b:/a:/bin");
    }
}
