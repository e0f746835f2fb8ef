//! The programs of Nostr git that stand outside of this project, built once by `tests/clients.sh`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// Folder with `ngit`, git's helper for `nostr://` and `ngit-grasp`.
#[derive(Debug, Clone)]
pub struct Programs(PathBuf);

impl Programs {
    /// Those of a folder.
    ///
    /// # Errors
    /// One of them is not there.
    pub fn of(folder: &Path) -> Result<Self> {
        for name in ["ngit", "git-remote-nostr", "ngit-grasp"] {
            ensure!(
                folder.join(name).is_file(),
                "{name} is not in {}: `make clients` builds it there",
                folder.display()
            );
        }
        Ok(Self(std::fs::canonicalize(folder)?))
    }

    /// The folder, to be first on a `PATH`.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// One of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
