//! What lies around a file that is checked alone: the rest of its repository, and the pool that would run it.

/// A file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepositoryFile {
    /// Its text.
    Text(String),
    /// There is none at this path.
    Missing,
    /// Nobody looked.
    Unknown,
}

/// What whoever checks a file can look at. By default nothing is known.
pub trait Surroundings {
    /// A file of the repository; `path` is relative to its root.
    fn file(&self, path: &str) -> RepositoryFile {
        let _ = path;
        RepositoryFile::Unknown
    }

    /// `action.yml` in a folder of another repository, where it was fetched before; an empty `folder` is the root.
    fn fetched_action(&self, repository: &str, folder: &str, reference: &str) -> Option<String> {
        let _ = (repository, folder, reference);
        None
    }

    /// Labels that workers have besides GitHub's.
    fn worker_labels(&self) -> &[String] {
        &[]
    }
}

/// Nothing is known of what lies around.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSurroundings;

impl Surroundings for NoSurroundings {}
