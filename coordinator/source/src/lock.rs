//! The lock file of actions: which commit each moving `uses:` of a repository stands for. Pure.
//!
//! `.github/actions.lock` has a line `owner/repo@ref COMMIT` for each action of another repository; `#` begins a
//! comment. Where the file is there, every branch and tag must be in it, and one that stands for another commit now
//! fails the job: a tag that moved may carry anything. A `uses:` with a full commit id locks itself.

use std::collections::BTreeMap;

use super::address::is_object_id;

/// Path of the lock file in a repository.
pub const PATH: &str = ".github/actions.lock";
/// Longest lock file, in bytes.
pub const LIMIT: usize = 1 << 20;

/// What a lock file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    commits: BTreeMap<String, String>,
}

/// Why the lock file does not let an action run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// A line that cannot be read.
    #[error("{PATH}:{0}: write `owner/repo@ref COMMIT`, the commit with all its digits")]
    Line(usize),
    /// Not in the file.
    #[error("{PATH} does not have {name}; if you trust it, add the line `{name} {commit}`")]
    Missing {
        /// `owner/repo@ref`.
        name: String,
        /// What it stands for now.
        commit: String,
    },
    /// Another commit than when it was locked.
    #[error(
        "{name} moved: {PATH} has {locked}, now it is {found}; look at what changed before you put the new commit there"
    )]
    Moved {
        /// `owner/repo@ref`.
        name: String,
        /// The commit in the file.
        locked: String,
        /// What it stands for now.
        found: String,
    },
}

impl Lock {
    /// Reads a lock file.
    pub fn read(text: &str) -> Result<Self, LockError> {
        let mut commits = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some(name), Some(commit), None) if name.contains('@') && is_object_id(commit) => {
                    commits.insert(key(name), commit.to_ascii_lowercase());
                }
                _ => return Err(LockError::Line(index + 1)),
            }
        }
        Ok(Self { commits })
    }

    /// The commit that `repository@reference` was locked to.
    pub fn commit(&self, repository: &str, reference: &str) -> Option<&str> {
        self.commits.get(&key(&format!("{repository}@{reference}"))).map(String::as_str)
    }

    /// Checks that `repository@reference` still stands for the commit that was locked.
    pub fn check(&self, repository: &str, reference: &str, commit: &str) -> Result<(), LockError> {
        let name = format!("{repository}@{reference}");
        match self.commits.get(&key(&name)) {
            Some(locked) if locked == commit => Ok(()),
            Some(locked) => Err(LockError::Moved { name, locked: locked.clone(), found: commit.to_owned() }),
            None if is_object_id(reference) => Ok(()),
            None => Err(LockError::Missing { name, commit: commit.to_owned() }),
        }
    }
}

/// Names of repositories do not depend on case; those of refs do.
fn key(name: &str) -> String {
    match name.rsplit_once('@') {
        Some((repository, reference)) => format!("{}@{reference}", repository.to_ascii_lowercase()),
        None => name.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    #[test]
    fn attack_64_a_tag_that_moved_after_it_was_locked_is_refused() {
        let lock = Lock::read(&format!("# ours\nActions/Cache@v4 {ONE} # July\n\na/b@main {TWO}")).unwrap();
        assert_eq!(lock.check("actions/cache", "v4", ONE), Ok(()));
        let moved = lock.check("actions/cache", "v4", TWO).unwrap_err();
        assert!(matches!(&moved, LockError::Moved { locked, .. } if locked == ONE), "{moved}");
        for (reference, missing) in [("v5", true), ("V4", true), (ONE, false)] {
            assert_eq!(lock.check("actions/cache", reference, ONE).is_err(), missing, "{reference}");
        }
        for text in ["a/b@v1", "a/b@v1 1234567", &format!("a/b {ONE}"), &format!("a/b@v1 {ONE} x")] {
            assert_eq!(Lock::read(text), Err(LockError::Line(1)), "{text}");
        }
    }
}
