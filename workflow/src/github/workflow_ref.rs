//! References to workflow files: where they may lie, and what a job's `uses:` refers to (GitHub docs:
//! `jobs.<job_id>.uses`).

use crate::dialect::workflow_ref::{RemoteRepository, WorkflowRef};

/// Folders that may hold workflow files: GitHub's, and those of Nostr and Gitea clients.
pub(crate) const WORKFLOW_FOLDERS: [&str; 5] =
    [".github/workflows", ".ngit/workflows", ".ngit/act/workflows", ".gitea/workflows", ".hive/workflows"];

/// Parses the form that the [`Display`](std::fmt::Display) of a reference writes.
///
/// # Errors
/// The text does not refer to a workflow file; the message is meant for the author.
pub(super) fn from_name(name: &str) -> Result<WorkflowRef, String> {
    check_path(name).map(WorkflowRef::local).or_else(|_| resolve(&WorkflowRef::local(""), name))
}

/// What `uses:` in a file refers to. `./` and `$/` mean the repository of this file, at the same commit.
///
/// # Errors
/// It does not refer to a workflow file; the message says what to write instead.
pub fn resolve(file: &WorkflowRef, uses: &str) -> Result<WorkflowRef, String> {
    if let Some(path) = uses.strip_prefix("./") {
        return Ok(WorkflowRef { remote: file.remote.clone(), path: check_path(path)?.to_owned() });
    }
    if let Some(path) = self_reference(uses)? {
        return Ok(WorkflowRef { remote: file.remote.clone(), path: check_path(&path)?.to_owned() });
    }
    let wrong = || {
        format!(
            "`{uses}` names no workflow: write `$/.github/workflows/FILE` or \
             `owner/repository/.github/workflows/FILE@ref`"
        )
    };
    let (place, reference) = uses.rsplit_once('@').ok_or_else(wrong)?;
    let (repository, path) = split_uses(place).ok_or_else(wrong)?;
    let plain = |part: &str| !part.is_empty() && !part.chars().any(|c| c.is_control() || c.is_whitespace());
    if !plain(reference) || !plain(&repository) {
        return Err(wrong());
    }
    let path = check_path(&path)?.to_owned();
    Ok(WorkflowRef { remote: Some(RemoteRepository { repository, reference: reference.to_owned() }), path })
}

/// The path that `$/path` names in the repository of the file that it stands in, at the commit that runs (GitHub docs,
/// `jobs.<job_id>.steps[*].uses`). `None`: it is written otherwise.
///
/// # Errors
/// It names nothing, or a version; the message says what to write instead.
pub fn self_reference(uses: &str) -> Result<Option<String>, String> {
    let Some(path) = uses.strip_prefix("$/") else { return Ok(None) };
    let path = path.trim_matches('/');
    if path.is_empty() {
        return Err(format!("`{uses}` names nothing: write a path of this repository behind `$/`"));
    }
    if path.contains('@') {
        let help = "`$/` is this repository at the commit that runs: leave out what follows `@`";
        return Err(format!("`{uses}` can't name a version; {help}"));
    }
    Ok(Some(path.to_owned()))
}

/// Checks that a path may be one of a workflow file, and returns it.
///
/// # Errors
/// It is absolute, leaves the repository, lies outside [`WORKFLOW_FOLDERS`], or is no YAML file.
pub(crate) fn check_path(path: &str) -> Result<&str, String> {
    if path.starts_with('/') || path.contains('\\') || path.contains('\0') {
        return Err(format!("the workflow path \"{path}\" must be relative to the repository, with / between folders"));
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("the workflow path \"{path}\" must name a file inside the repository, without \"..\""));
    }
    let folder = path.rsplit_once('/').map(|(folder, _)| folder).unwrap_or_default();
    if !WORKFLOW_FOLDERS.contains(&folder) {
        return Err(format!("the workflow path \"{path}\" must lie in one of {}", WORKFLOW_FOLDERS.join(", ")));
    }
    if !(path.ends_with(".yml") || path.ends_with(".yaml")) {
        return Err(format!("the workflow path \"{path}\" must end in .yml or .yaml"));
    }
    Ok(path)
}

/// Splits the part of `uses:` before `@` into repository and path. Besides `owner/repo[/path]` the repository may be
/// one announced on Nostr (NIP-34): `npub1…/repo[/path]`, `naddr1…[/path]` or `nostr://…[//path]`.
pub fn split_uses(place: &str) -> Option<(String, String)> {
    let owned = |(repository, path): (&str, &str)| (repository.to_owned(), path.to_owned());
    if let Some(rest) = place.strip_prefix("nostr://") {
        // Slashes separate relays there, so two of them come before the path.
        let (repository, path) = rest.split_once("//").unwrap_or((rest, ""));
        return Some((format!("nostr://{repository}"), path.to_owned()));
    }
    if place.starts_with("naddr1") {
        return Some(owned(place.split_once('/').unwrap_or((place, ""))));
    }
    let mut parts = place.splitn(3, ['/', '\\']);
    let (owner, repository) = (parts.next()?, parts.next()?);
    let named = !owner.is_empty() && !repository.is_empty() && !owner.contains(':');
    named.then(|| (format!("{owner}/{repository}"), parts.next().unwrap_or_default().replace('\\', "/")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_call_names_its_file_as_seen_from_the_file_it_stands_in() {
        let own = WorkflowRef::local(".github/workflows/ci.yml");
        let other = resolve(&own, "o/r/.github/workflows/a.yml@v1").unwrap();
        let nostr = resolve(&own, "nostr://npub1abc/relay.example/r//.ngit/workflows/a.yaml@main").unwrap();
        for (within, uses, expected) in [
            (&own, "./.github/workflows/b.yml", ".github/workflows/b.yml"),
            (&own, "o/r/.github/workflows/a.yml@v1", "o/r/.github/workflows/a.yml@v1"),
            (&other, "./.github/workflows/b.yml", "o/r/.github/workflows/b.yml@v1"),
            (&own, "$/.github/workflows/b.yml", ".github/workflows/b.yml"),
            (&own, "$//.github/workflows/b.yml", ".github/workflows/b.yml"),
            (&other, "$/.github/workflows/b.yml", "o/r/.github/workflows/b.yml@v1"),
            (&nostr, "./.ngit/workflows/b.yml", "nostr://npub1abc/relay.example/r//.ngit/workflows/b.yml@main"),
        ] {
            let named = resolve(within, uses).unwrap();
            assert_eq!(named.to_string(), expected);
            assert_eq!(from_name(expected).unwrap(), named);
        }
    }

    #[test]
    fn attack_12_no_call_leaves_the_folders_of_workflows() {
        let own = WorkflowRef::local(".github/workflows/ci.yml");
        for uses in [
            "./../x.yml",
            "./.github/workflows/../../x.yml",
            "./.github/workflows/deep/x.yml",
            "./.github/workflows/x.sh",
            "./x.yml",
            "$/x.yml",
            "$/",
            "$/.github/workflows/x.yml@v1",
            "$/.github/workflows/deep/x.yml",
            "$/.github/workflows/../../x.yml",
            "o/r/x.yml@v1",
            "o/r/.github/workflows/x.yml",
            "o/r/.github/workflows/x.yml@",
            "o/r/.github/workflows/x.yml@a b",
            "o/.github/workflows/x.yml@v1",
        ] {
            assert!(resolve(&own, uses).is_err(), "{uses}");
        }
    }
}
