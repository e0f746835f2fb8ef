//! References to workflow files: where they may lie, and what a job's `uses:` refers to (GitHub docs:
//! `jobs.<job_id>.uses`).

use std::fmt;

/// Folders that may hold workflow files: GitHub's, and those of Nostr and Gitea clients.
pub const WORKFLOW_FOLDERS: [&str; 5] =
    [".github/workflows", ".ngit/workflows", ".ngit/act/workflows", ".gitea/workflows", ".hive/workflows"];

/// A reference to a workflow file. A run stores it as text, in the form of its [`Display`](fmt::Display).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkflowRef {
    /// The repository that holds the file; `None`: the run's own, at the run's commit.
    pub remote: Option<RemoteRepository>,
    /// Path in the repository.
    pub path: String,
}

/// A repository other than the run's own, at a ref.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteRepository {
    /// As written, `owner/repo` or a Nostr address.
    pub repository: String,
    /// Branch, tag or commit, as written.
    pub reference: String,
}

impl WorkflowRef {
    /// A file of the run's own repository.
    pub fn local(path: &str) -> Self {
        Self { remote: None, path: path.to_owned() }
    }

    /// Parses the form that [`Display`](fmt::Display) writes.
    ///
    /// # Errors
    /// The text does not refer to a workflow file; the message is meant for the author.
    pub fn from_name(name: &str) -> Result<Self, String> {
        check_path(name).map(Self::local).or_else(|_| Self::local("").resolve(name))
    }

    /// What `uses:` in this file refers to. `./` means the repository of this file, at the same commit.
    ///
    /// # Errors
    /// It does not refer to a workflow file; the message says what to write instead.
    pub fn resolve(&self, uses: &str) -> Result<Self, String> {
        if let Some(path) = uses.strip_prefix("./") {
            return Ok(Self { remote: self.remote.clone(), path: check_path(path)?.to_owned() });
        }
        let wrong = || {
            format!(
                "`{uses}` names no workflow: write `./.github/workflows/FILE` or \
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
        Ok(Self { remote: Some(RemoteRepository { repository, reference: reference.to_owned() }), path })
    }
}

impl fmt::Display for WorkflowRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.remote {
            None => out.write_str(&self.path),
            Some(RemoteRepository { repository, reference }) => {
                let slash = if repository.starts_with("nostr://") { "//" } else { "/" };
                write!(out, "{repository}{slash}{}@{reference}", self.path)
            }
        }
    }
}

impl fmt::Display for RemoteRepository {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}", self.repository, self.reference)
    }
}

/// Checks that a path may be one of a workflow file, and returns it.
///
/// # Errors
/// It is absolute, leaves the repository, lies outside [`WORKFLOW_FOLDERS`], or is no YAML file.
pub fn check_path(path: &str) -> Result<&str, String> {
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
        let other = own.resolve("o/r/.github/workflows/a.yml@v1").unwrap();
        let nostr = own.resolve("nostr://npub1abc/relay.example/r//.ngit/workflows/a.yaml@main").unwrap();
        for (within, uses, expected) in [
            (&own, "./.github/workflows/b.yml", ".github/workflows/b.yml"),
            (&own, "o/r/.github/workflows/a.yml@v1", "o/r/.github/workflows/a.yml@v1"),
            (&other, "./.github/workflows/b.yml", "o/r/.github/workflows/b.yml@v1"),
            (&nostr, "./.ngit/workflows/b.yml", "nostr://npub1abc/relay.example/r//.ngit/workflows/b.yml@main"),
        ] {
            let named = within.resolve(uses).unwrap();
            assert_eq!(named.to_string(), expected);
            assert_eq!(WorkflowRef::from_name(expected).unwrap(), named);
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
            "o/r/x.yml@v1",
            "o/r/.github/workflows/x.yml",
            "o/r/.github/workflows/x.yml@",
            "o/r/.github/workflows/x.yml@a b",
            "o/.github/workflows/x.yml@v1",
        ] {
            assert!(own.resolve(uses).is_err(), "{uses}");
        }
    }
}
