//! Keeps the mirrors of a worker within their quota: those go first that no job used for longest.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// A mirror that was used since may be read by a job's checkout.
const IN_USE: Duration = Duration::from_secs(3600);
/// Names of mirrors that are on their way out.
const LEAVING: &str = "leaving-";

/// Notes that a mirror is used now.
pub(super) fn used(mirror: &Path) {
    // Where that can't be written, it may go a little early.
    let _ = fs::File::open(mirror.join("HEAD")).and_then(|head| head.set_modified(SystemTime::now()));
}

/// Removes mirrors until the rest fits, or is in use.
pub(super) fn trim(folder: &Path, quota: u64) {
    if let Err(error) = try_trim(folder, quota, IN_USE) {
        tracing::warn!(%error, folder = %folder.display(), "mirrors could not be removed");
    }
}

fn try_trim(folder: &Path, quota: u64, in_use: Duration) -> io::Result<()> {
    let mut mirrors = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(LEAVING) {
            // An earlier process ended while it removed it.
            fs::remove_dir_all(&path)?;
        } else if name.ends_with(".git") {
            // One that is being made has none yet.
            let Ok(last) = fs::metadata(path.join("HEAD")).and_then(|head| head.modified()) else { continue };
            mirrors.push((last, bytes(&path), path));
        }
    }
    mirrors.sort();
    let mut total = mirrors.iter().fold(0_u64, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
    for (last, bytes, path) in mirrors {
        let is_used = last.elapsed().is_ok_and(|ago| ago < in_use);
        if total <= quota || is_used {
            return Ok(());
        }
        remove(&path)?;
        total = total.saturating_sub(bytes);
    }
    Ok(())
}

/// Nobody finds half of one: it has another name before anything of it goes.
fn remove(mirror: &Path) -> io::Result<()> {
    let name = mirror.file_name().unwrap_or_default().to_string_lossy();
    let leaving = mirror.with_file_name(format!("{LEAVING}{name}"));
    fs::rename(mirror, &leaving)?;
    fs::remove_dir_all(leaving)
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
    use super::*;

    #[test]
    fn mirrors_that_were_unused_longest_go_until_the_rest_fits() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = |name: &str, hours: u64| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.join("objects/pack")).unwrap();
            fs::write(path.join("objects/pack/p"), [0; 1000]).unwrap();
            let head = fs::File::create(path.join("HEAD")).unwrap();
            head.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
        };
        for (name, hours) in [("a.git", 2), ("b.git", 9), ("c.git", 5), ("leaving-d.git", 1)] {
            mirror(name, hours);
        }
        fs::create_dir(folder.path().join("locks")).unwrap();
        let left = || {
            let mut left: Vec<_> = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            left.sort();
            left
        };
        trim(folder.path(), 3000);
        assert_eq!(left(), ["a.git", "b.git", "c.git", "locks"]);
        trim(folder.path(), 2999);
        assert_eq!(left(), ["a.git", "c.git", "locks"]);
        used(&folder.path().join("c.git"));
        trim(folder.path(), 0);
        assert_eq!(left(), ["c.git", "locks"], "a job may read it");
    }
}
