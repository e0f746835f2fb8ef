//! One mirror on the disk, which the processes of jobs share: any number read it, one at a time changes it, and it stays as
//! long as somebody has it open.
//!
//! Any of them may be killed at any moment. The kernel lets go of its locks then; what its git left half done is removed
//! by the next who changes the mirror.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;

use super::git::git;

/// The file that is locked by whoever changes a mirror.
const CHANGING: &str = "longshore-changing";
/// The file that tells that a mirror was made to its end.
const MADE: &str = "longshore-made";
/// The file of git that tells by its time when a mirror was used.
const HEAD: &str = "HEAD";
/// Names of mirrors that are on their way out.
const LEAVING: &str = "leaving-";
/// How often, and how far apart, a mirror is tried to be removed that is in use.
const REMOVALS: (u32, Duration) = (10, Duration::from_millis(50));
/// Packs beyond which git takes long to find an object. Nobody repacks a mirror: it is begun anew.
const PACKS: usize = 200;

/// A mirror that nobody else changes or removes.
pub(super) struct MirrorFolder {
    pub(super) path: PathBuf,
    /// Held, it is not removed.
    pub(super) in_use: Arc<File>,
    _changing: File,
}

impl MirrorFolder {
    /// Opens a mirror, which is made where it is not there. Waits for whoever changes it. `format`: of its objects.
    pub(super) async fn open(path: PathBuf, format: &str) -> anyhow::Result<Self> {
        let opening = tokio::task::spawn_blocking(move || lock(path));
        let mirror = opening.await?.context("folder of mirrors")?;
        if !mirror.path.join(MADE).exists() {
            // Does what is left to do where it was ended in the middle.
            git(&mirror.path, &["init", "--quiet", "--bare", "--template=", "--object-format", format]).await?;
            File::create(mirror.path.join(MADE)).context("folder of mirrors")?;
        }
        // Where that can't be written, it may go a little early.
        let _ = File::open(mirror.path.join(HEAD)).and_then(|head| head.set_modified(SystemTime::now()));
        Ok(mirror)
    }

    /// Bytes of its files.
    pub(super) fn bytes(&self) -> u64 {
        bytes(&self.path)
    }

    /// Whether it came in too many parts.
    pub(super) fn is_scattered(&self) -> bool {
        names(&self.path.join("objects/pack")).filter(|path| has_end(path, "pack")).count() > PACKS
    }
}

fn lock(path: PathBuf) -> io::Result<MirrorFolder> {
    loop {
        fs::create_dir_all(&path)?;
        let folder = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            folder => folder?,
        };
        folder.lock_shared()?;
        if !is_at(&folder, &path) {
            // It was removed in between.
            continue;
        }
        let changing = File::options().write(true).create(true).truncate(false).open(path.join(CHANGING))?;
        changing.lock()?;
        remove_leftovers(&path);
        return Ok(MirrorFolder { path, in_use: Arc::new(folder), _changing: changing });
    }
}

fn is_at(folder: &File, path: &Path) -> bool {
    let id = |data: fs::Metadata| (data.dev(), data.ino());
    folder.metadata().map(id).ok() == fs::metadata(path).map(id).ok()
}

/// Removes what a git that was killed left: with its lock files every change would fail for ever.
fn remove_leftovers(mirror: &Path) {
    let locks = [mirror.to_owned(), mirror.join("refs/longshore")];
    let locks = locks.iter().flat_map(|folder| names(folder)).filter(|path| has_end(path, "lock"));
    let parts = [mirror.join("objects"), mirror.join("objects/pack")];
    let parts = parts.iter().flat_map(|folder| names(folder)).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        ["tmp_", ".tmp-", "incoming-"].iter().any(|start| name.starts_with(start))
    });
    for path in locks.chain(parts) {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Ok(()) => tracing::info!("removed {}, which a git that was killed left", path.display()),
            Err(error) => tracing::warn!("{} can't be removed: {error}", path.display()),
        }
    }
}

fn names(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn has_end(path: &Path, end: &str) -> bool {
    path.extension().is_some_and(|found| found == end)
}

/// Removes a mirror. Returns whether it is gone: one that somebody has open stays.
pub(super) fn remove(mirror: &Path) -> io::Result<bool> {
    let folder = match File::open(mirror) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        folder => folder?,
    };
    match folder.try_lock() {
        Err(fs::TryLockError::WouldBlock) => return Ok(false),
        locked => locked?,
    }
    if is_at(&folder, mirror) {
        // Nobody finds half of one: it has another name before anything of it goes.
        let name = mirror.file_name().unwrap_or_default().to_string_lossy();
        let leaving = mirror.with_file_name(format!("{LEAVING}{:016x}-{name}", rand::random::<u64>()));
        fs::rename(mirror, &leaving)?;
        fs::remove_dir_all(leaving)?;
    }
    Ok(true)
}

/// The same for one that nobody is known to read: a program that is being started has every descriptor of its parent, and so
/// a reader's lock, for a moment.
pub(super) async fn remove_soon(mirror: &Path) -> io::Result<bool> {
    for _ in 0..REMOVALS.0 {
        if remove(mirror)? {
            return Ok(true);
        }
        tokio::time::sleep(REMOVALS.1).await;
    }
    remove(mirror)
}

/// Removes those that were unused longest, until the rest fits or is open.
pub(super) fn trim(folder: &Path, quota: u64) {
    if let Err(error) = try_trim(folder, quota) {
        tracing::warn!(%error, folder = %folder.display(), "mirrors could not be removed");
    }
}

fn try_trim(folder: &Path, quota: u64) -> io::Result<()> {
    let mut mirrors = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(LEAVING) {
            // An earlier process ended while it removed it, or another is about to.
            let _ = fs::remove_dir_all(&path);
        } else if name.ends_with(".git") {
            // One that is being made has none yet.
            let Ok(last) = fs::metadata(path.join(HEAD)).and_then(|head| head.modified()) else { continue };
            mirrors.push((last, bytes(&path), path));
        }
    }
    mirrors.sort();
    let mut total = mirrors.iter().fold(0_u64, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
    for (_, bytes, path) in mirrors {
        if total <= quota {
            break;
        }
        if remove(&path)? {
            total = total.saturating_sub(bytes);
        }
    }
    Ok(())
}

fn bytes(folder: &Path) -> u64 {
    let mut sum = 0;
    let mut open: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            match entry.metadata() {
                Ok(data) if data.is_dir() => open.push(entry.path()),
                Ok(data) => sum += data.len(),
                Err(_) => {}
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn attack_36_mirrors_that_were_unused_longest_go_until_the_rest_fits_however_lately_they_were_used() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = |name: &str, hours: u64| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.join("objects/pack")).unwrap();
            fs::write(path.join("objects/pack/p"), [0; 1000]).unwrap();
            let head = File::create(path.join(HEAD)).unwrap();
            head.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
        };
        for (name, hours) in [("a.git", 0), ("b.git", 9), ("c.git", 5), ("leaving-d.git", 1)] {
            mirror(name, hours);
        }
        fs::create_dir(folder.path().join("locks")).unwrap();
        let left = || {
            let mut left: Vec<_> = names(folder.path()).map(|path| path.file_name().unwrap().to_owned()).collect();
            left.sort();
            left
        };
        trim(folder.path(), 3000);
        assert_eq!(left(), ["a.git", "b.git", "c.git", "locks"]);
        trim(folder.path(), 2999);
        assert_eq!(left(), ["a.git", "c.git", "locks"]);
        let reading = MirrorFolder::open(folder.path().join("c.git"), "sha1").await.unwrap().in_use;
        trim(folder.path(), 0);
        assert_eq!(left(), ["c.git", "locks"], "a job may read it");
        drop(reading);
        // A process that another test starts has every descriptor of this one, and so the lock, until it is a program.
        for _ in 0..100 {
            trim(folder.path(), 0);
            if left() == ["locks"] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(left(), ["locks"]);
    }

    #[tokio::test]
    async fn one_at_a_time_changes_a_mirror_while_others_read_it_and_change_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| MirrorFolder::open(folder.path().join(name), "sha1");
        let first = open("a.git").await.unwrap();
        let soon = Duration::from_millis(300);
        assert!(timeout(soon, open("a.git")).await.is_err());
        // Any other: no name that an author chooses has another's lock.
        for number in 0..64 {
            open(&format!("{number}.git")).await.unwrap();
        }
        let reading = Arc::clone(&first.in_use);
        drop(first);
        let second = open("a.git").await.unwrap();
        assert!(!remove(&second.path).unwrap());
        let path = second.path.clone();
        drop((second, reading));
        // The one above that gave up still gets its turn.
        for _ in 0..100 {
            if remove(&path).unwrap() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!path.exists());
        open("a.git").await.unwrap();
    }
}
