//! Where workflow files lie, and which of them a job's `uses:` names (GitHub docs: `jobs.<job_id>.uses`).

use std::fmt;

/// Where workflow files may lie: GitHub's folder and those of Nostr and Gitea clients.
pub const FOLDERS: [&str; 5] =
    [".github/workflows", ".ngit/workflows", ".ngit/act/workflows", ".gitea/workflows", ".hive/workflows"];

/// A workflow file, as a run knows it. Its [`Display`](fmt::Display) is the name under which the run keeps it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Another repository; `None`: the run's own, at the run's commit.
    pub origin: Option<Origin>,
    /// Path in the repository.
    pub path: String,
}

/// A repository that is not the run's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// As written, `owner/repo` or a Nostr address.
    pub repository: String,
    /// Branch, tag or commit, as written.
    pub reference: String,
}

impl Place {
    /// A file of the run's own repository.
    pub fn own(path: &str) -> Self {
        Self { origin: None, path: path.to_owned() }
    }

    /// The file that a run keeps under this name.
    ///
    /// # Errors
    /// It is the name of none.
    pub fn kept(name: &str) -> Result<Self, String> {
        check(name).map(Self::own).or_else(|_| Self::own("").named(name))
    }

    /// What `uses:` means in this file: `./` is the same repository at the same commit.
    ///
    /// # Errors
    /// It can't name a workflow; the text says what to write.
    pub fn named(&self, uses: &str) -> Result<Self, String> {
        if let Some(path) = uses.strip_prefix("./") {
            return Ok(Self { origin: self.origin.clone(), path: check(path)?.to_owned() });
        }
        let wrong = || {
            format!(
                "`{uses}` names no workflow: write `./.github/workflows/FILE` or \
                 `owner/repository/.github/workflows/FILE@ref`"
            )
        };
        let (place, reference) = uses.rsplit_once('@').ok_or_else(wrong)?;
        let (repository, path) = split(place).ok_or_else(wrong)?;
        let plain = |part: &str| !part.is_empty() && !part.chars().any(|c| c.is_control() || c.is_whitespace());
        if !plain(reference) || !plain(&repository) {
            return Err(wrong());
        }
        let path = check(&path)?.to_owned();
        Ok(Self { origin: Some(Origin { repository, reference: reference.to_owned() }), path })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            None => out.write_str(&self.path),
            Some(Origin { repository, reference }) => {
                let slash = if repository.starts_with("nostr://") { "//" } else { "/" };
                write!(out, "{repository}{slash}{}@{reference}", self.path)
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}", self.repository, self.reference)
    }
}

/// A path where a workflow file may lie.
///
/// # Errors
/// It is absolute, leaves the repository, or lies outside [`FOLDERS`].
pub fn check(path: &str) -> Result<&str, String> {
    if path.starts_with('/') || path.contains('\\') || path.contains('\0') {
        return Err(format!("the workflow path \"{path}\" must be relative to the repository, with / between folders"));
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("the workflow path \"{path}\" must name a file inside the repository, without \"..\""));
    }
    let folder = path.rsplit_once('/').map(|(folder, _)| folder).unwrap_or_default();
    if !FOLDERS.contains(&folder) {
        return Err(format!("the workflow path \"{path}\" must lie in one of {}", FOLDERS.join(", ")));
    }
    if !(path.ends_with(".yml") || path.ends_with(".yaml")) {
        return Err(format!("the workflow path \"{path}\" must end in .yml or .yaml"));
    }
    Ok(path)
}

/// Repository and path of what stands before `@` in a `uses:`. Beside `owner/repo[/path]` the repository may be
/// announced on Nostr (NIP-34): `npub1…/repo[/path]`, `naddr1…[/path]` or `nostr://…[//path]`.
pub fn split(place: &str) -> Option<(String, String)> {
    let owned = |(repository, path): (&str, &str)| (repository.to_owned(), path.to_owned());
    if let Some(rest) = place.strip_prefix("nostr://") {
        // Slashes part relays there, so the path comes behind two.
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
        let own = Place::own(".github/workflows/ci.yml");
        let other = own.named("o/r/.github/workflows/a.yml@v1").unwrap();
        let nostr = own.named("nostr://npub1abc/relay.example/r//.ngit/workflows/a.yaml@main").unwrap();
        for (within, uses, expected) in [
            (&own, "./.github/workflows/b.yml", ".github/workflows/b.yml"),
            (&own, "o/r/.github/workflows/a.yml@v1", "o/r/.github/workflows/a.yml@v1"),
            (&other, "./.github/workflows/b.yml", "o/r/.github/workflows/b.yml@v1"),
            (&nostr, "./.ngit/workflows/b.yml", "nostr://npub1abc/relay.example/r//.ngit/workflows/b.yml@main"),
        ] {
            let named = within.named(uses).unwrap();
            assert_eq!(named.to_string(), expected);
            assert_eq!(Place::kept(expected).unwrap(), named);
        }
    }

    #[test]
    fn attack_12_no_call_leaves_the_folders_of_workflows() {
        let own = Place::own(".github/workflows/ci.yml");
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
            assert!(own.named(uses).is_err(), "{uses}");
        }
    }
}
