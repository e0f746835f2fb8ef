//! Hears of changes to the files of a checkout, but for those that git ignores.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use git2::Repository;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{sync::mpsc, time::sleep};

/// How long files may go on changing before they are looked at: one save of an editor is several changes.
const QUIET: std::time::Duration = std::time::Duration::from_millis(150);

/// The files of a work tree.
pub(super) struct TreeWatcher {
    tree: WatchedTree,
    moved: mpsc::Receiver<()>,
    watcher: RecommendedWatcher,
    /// Something changed that was not looked at.
    is_dirty: bool,
}

impl TreeWatcher {
    /// Watches from now on; what lies in `excluded` does not count.
    ///
    /// # Errors
    /// The folders are more than the system allows to watch.
    pub(super) fn new(root: &Path, excluded: Option<PathBuf>) -> Result<Self> {
        let tree = WatchedTree { root: std::fs::canonicalize(root)?, excluded };
        let (notify, moved) = mpsc::channel(1);
        let (filter, repository) = (tree.clone(), Repository::open(root)?);
        let watcher = notify::recommended_watcher(move |event| {
            if filter.is_change(&repository, &event) {
                // Full: that something changed is known already.
                let _ = notify.try_send(());
            }
        })?;
        let mut made = Self { tree, moved, watcher, is_dirty: false };
        made.watch_folders()?;
        Ok(made)
    }

    /// Waits until files changed and stay as they are for a moment. Dropped before, nothing is missed.
    pub(super) async fn changed(&mut self) -> Result<()> {
        while !self.is_dirty {
            self.moved.recv().await.context("the files are not watched any more")?;
            self.is_dirty = true;
        }
        loop {
            sleep(QUIET).await;
            if self.moved.try_recv().is_err() {
                break;
            }
        }
        // New folders are watched before what lies in them is looked at.
        self.watch_folders()?;
        self.is_dirty = false;
        Ok(())
    }

    fn watch_folders(&mut self) -> Result<()> {
        let repository = Repository::open(&self.tree.root)?;
        for folder in self.tree.folders(&repository) {
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Err(error) if matches!(error.kind, notify::ErrorKind::MaxFilesWatch) => {
                    return Err(error)
                        .context("--watch: more folders than may be watched; raise fs.inotify.max_user_watches");
                }
                // It is gone already.
                _ => {}
            }
        }
        Ok(())
    }
}

/// Which files count.
#[derive(Debug, Clone)]
struct WatchedTree {
    root: PathBuf,
    excluded: Option<PathBuf>,
}

impl WatchedTree {
    /// Every folder whose files may count.
    fn folders(&self, repository: &Repository) -> Vec<PathBuf> {
        let mut found = vec![self.root.clone()];
        let mut seen = 0;
        while let Some(folder) = found.get(seen).cloned() {
            seen += 1;
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            found.extend(folders.map(|entry| entry.path()).filter(|path| self.counts(repository, path)));
        }
        found
    }

    fn counts(&self, repository: &Repository, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(&self.root) else { return false };
        let is_of_git = below.components().any(|part| part.as_os_str() == ".git");
        let is_excluded = self.excluded.as_ref().is_some_and(|excluded| path.starts_with(excluded));
        !is_of_git && !is_excluded && !repository.is_path_ignored(below).unwrap_or(false)
    }

    fn is_change(&self, repository: &Repository, event: &notify::Result<notify::Event>) -> bool {
        match event {
            // Looking at files is an event as well: by it we would look for ever.
            Ok(event) if event.kind.is_access() => false,
            Ok(event) => event.need_rescan() || event.paths.iter().any(|path| self.counts(repository, path)),
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]
    use std::{fs, time::Duration};

    use super::*;

    async fn hears(watcher: &mut TreeWatcher, change: impl FnOnce()) -> bool {
        change();
        tokio::time::timeout(QUIET * 5, watcher.changed()).await.is_ok_and(|heard| heard.is_ok())
    }

    #[tokio::test]
    async fn what_git_ignores_is_no_change_and_what_is_in_a_new_folder_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        Repository::init(&root).unwrap();
        fs::write(root.join(".gitignore"), "target/\n*.tmp\n").unwrap();
        fs::create_dir_all(root.join("target/deep")).unwrap();
        fs::create_dir_all(root.join("out")).unwrap();
        fs::write(root.join("a"), "1").unwrap();
        let mut watcher = TreeWatcher::new(&root, Some(root.join("out"))).unwrap();
        let write = |name: &str| fs::write(root.join(name), "2").unwrap();
        for (name, is_change) in
            [("a", true), ("a.tmp", false), ("target/deep/x", false), ("out/x", false), (".git/x", false)]
        {
            assert_eq!(hears(&mut watcher, || write(name)).await, is_change, "{name}");
        }
        assert!(hears(&mut watcher, || fs::create_dir(root.join("new")).unwrap()).await);
        assert!(hears(&mut watcher, || write("new/b")).await);
        assert!(hears(&mut watcher, || fs::remove_file(root.join("a")).unwrap()).await);
        assert!(!hears(&mut watcher, || drop(fs::read(root.join("new/b")))).await, "a look is no change");
    }

    #[tokio::test]
    async fn a_change_that_nobody_waited_for_to_the_end_is_not_missed() {
        let folder = tempfile::tempdir().unwrap();
        Repository::init(folder.path()).unwrap();
        let mut watcher = TreeWatcher::new(folder.path(), None).unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        assert!(tokio::time::timeout(QUIET / 3, watcher.changed()).await.is_err());
        tokio::time::timeout(Duration::from_secs(10), watcher.changed()).await.unwrap().unwrap();
    }
}
