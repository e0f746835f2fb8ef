//! Keeps mirrors small: lets commits of runs go, packs what was fetched, and removes whole mirrors.
//!
//! All of it is done under the lock of a mirror, so never while something is fetched into it. Readers go on: git finds
//! objects again in the new pack, and one that lost its last ref is there for an hour more.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    RepositoryMirrors, SourceError,
    git::{GitError, HEAD, Mirror},
};

/// A mirror that was used since is not removed: a worker may be reading from it.
const IN_USE: Duration = Duration::from_secs(3600);
/// A mirror is packed no more often than this.
const PACKED_EVERY: Duration = Duration::from_secs(24 * 3600);
/// The file of a mirror that tells by its time when the mirror was packed.
const PACKED: &str = "longshore-packed";

/// The folder of the mirror that is being removed.
const REMOVING: &str = "removing";

/// A mirror on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMirror {
    /// Name of its folder.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
    /// When it was used last.
    pub used_at: SystemTime,
}

/// Removes lock files of git in a mirror whose lock is ours: a git that was killed, as the plan is that it fetched for was
/// put off, left them, and every change of refs would fail for ever.
pub(super) fn remove_stale_locks(mirror: &Path) {
    let (mut folders, mut refs) = (vec![mirror.join("refs/longshore"), mirror.join("refs/fetched")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ if entry.path().extension().is_some_and(|end| end == "lock") => refs.push(entry.path()),
                _ => {}
            }
        }
    }
    let own = ["packed-refs.lock", "shallow.lock", "gc.pid"].map(|name| mirror.join(name));
    for path in refs.into_iter().chain(own) {
        match std::fs::remove_file(&path) {
            Ok(()) => tracing::warn!("removed {}, which a git that was killed left", path.display()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("{} can't be removed: {error}", path.display()),
        }
    }
}

impl RepositoryMirrors {
    /// Name of the mirror of a repository.
    pub fn mirror_name(repository: &str) -> String {
        Mirror::name(repository)
    }

    /// Mirrors on this machine, the one that was unused longest first.
    pub fn mirrors(&self) -> Vec<StoredMirror> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found: Vec<StoredMirror> = entries
            .filter_map(|entry| {
                let (name, path) = (entry.file_name().into_string().ok()?, entry.path());
                let used_at = modified(&path.join(HEAD)).filter(|_| name != REMOVING)?;
                Some(StoredMirror { name, path, used_at })
            })
            .collect();
        found.sort_by(|one, other| one.used_at.cmp(&other.used_at).then_with(|| one.name.cmp(&other.name)));
        found
    }

    /// Lets the commit of a run that goes be collected, unless `is_shared` says that another run has it: that is asked
    /// while no run of the repository is given a commit.
    ///
    /// # Errors
    /// The mirror can't be written, or it can't be found out now; nothing is lost then.
    pub async fn forget(
        &self,
        repository: &str,
        commit: &str,
        is_shared: impl Future<Output = Result<bool, store::StoreError>>,
    ) -> Result<(), SourceError> {
        let name = Mirror::name(repository);
        let lock = self.repository_lock(&name);
        let _held = lock.lock().await;
        let not_now = |error: &dyn std::fmt::Display| SourceError::NotYet(error.to_string());
        let path = self.folder.join(&name);
        if !path.join(HEAD).exists() || is_shared.await.map_err(|error| not_now(&error))? {
            return Ok(());
        }
        remove_stale_locks(&path);
        self.stored(&name).forget(commit).await.map_err(|error| not_now(&error))?;
        // What no ref keeps any more goes with the next packing.
        match std::fs::remove_file(path.join(PACKED)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(not_now(&error)),
            _ => Ok(()),
        }
    }

    /// Packs a mirror that was used or had commits let go since it was packed. Returns whether it was: one that is being
    /// fetched into comes another time.
    ///
    /// # Errors
    /// git failed, or took too long.
    pub async fn pack(&self, mirror: &StoredMirror) -> Result<bool, SourceError> {
        let lock = self.repository_lock(&mirror.name);
        let Ok(_held) = lock.try_lock() else { return Ok(false) };
        let marker = mirror.path.join(PACKED);
        if modified(&marker).is_some_and(|packed| packed >= mirror.used_at || age(packed) < PACKED_EVERY) {
            return Ok(false);
        }
        remove_stale_locks(&mirror.path);
        // First: one that can't be packed is not tried again at once.
        let marked = std::fs::File::create(&marker).map_err(|error| error.to_string());
        let packed = self.stored(&mirror.name).pack().await.map_err(|error: GitError| error.to_string());
        marked.and(packed).map_err(|error| SourceError::NotYet(format!("{}: {error}", mirror.path.display())))?;
        Ok(true)
    }

    /// Removes a mirror. Returns whether it was: one that is or was in use just now stays.
    ///
    /// # Errors
    /// Its files can't be removed.
    pub async fn remove_mirror(&self, mirror: &StoredMirror) -> std::io::Result<bool> {
        let lock = self.repository_lock(&mirror.name);
        let Ok(_held) = lock.try_lock() else { return Ok(false) };
        if modified(&mirror.path.join(HEAD)).is_none_or(|used| age(used) < IN_USE) {
            return Ok(false);
        }
        // Aside first: a crash must not leave half of a mirror. What it leaves goes with the next removal.
        let aside = self.folder.join(REMOVING);
        match tokio::fs::remove_dir_all(&aside).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        tokio::fs::rename(&mirror.path, &aside).await?;
        tokio::fs::remove_dir_all(&aside).await?;
        Ok(true)
    }

    fn stored(&self, name: &str) -> Mirror {
        Mirror::stored(self.folder.join(name), (&self.settings).into())
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|found| found.modified()).ok()
}

fn age(then: SystemTime) -> Duration {
    then.elapsed().unwrap_or_default()
}

#[cfg(test)]
mod tests;
