//! A reference to a workflow file, of the run's own repository or of another.

use std::fmt;

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
