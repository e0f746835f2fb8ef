//! The temporary folder of a job's process: checkouts, bundles and archives on their way, each as large as a job may make it,
//! any number at a time. Looks how much all of it is.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Pid;
use tokio::time::{Instant, sleep};

use crate::disk_usage;

/// Between two counts, at least.
const PAUSE: Duration = Duration::from_secs(1);
/// Counting takes at most one part in so many of the time.
const SHARE: u32 = 10;
/// A process that has less gives nothing back that would help.
const WORTH_ENDING: u64 = 64 << 20;
/// How the names of such folders begin.
pub(super) const PREFIX: &str = "job-";

/// What a process may have of the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScratchLimits {
    /// Bytes of its files; 0: any number.
    pub(super) bytes: u64,
    /// Bytes that stay free on the disk: below them the process ends that has the most; 0: no such floor.
    pub(super) min_free: u64,
}

/// Waits until a process must end for what it has in its folder, with a name or open. Gives why.
pub(super) async fn watch(folder: PathBuf, process: Pid, limits: ScratchLimits) -> String {
    loop {
        sleep(PAUSE).await;
        let began = Instant::now();
        let folder = folder.clone();
        let looked = tokio::task::spawn_blocking(move || excess(&folder, process, limits)).await;
        if let Ok(Some(why)) = looked {
            return why;
        }
        sleep(began.elapsed() * SHARE).await;
    }
}

fn excess(folder: &Path, process: Pid, limits: ScratchLimits) -> Option<String> {
    let used = disk_usage::of_tree(folder).saturating_add(disk_usage::of_unlinked_by(process, folder));
    if limits.bytes > 0 && used > limits.bytes {
        let most = limits.bytes >> 20;
        return Some(format!("what it fetched and packed took more than the {most} MiB of limits.disk"));
    }
    if used < WORTH_ENDING || disk_usage::free_bytes(folder).is_none_or(|free| free >= limits.min_free) {
        return None;
    }
    let others = std::fs::read_dir(folder.parent()?)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path() != folder && entry.file_name().to_string_lossy().starts_with(PREFIX));
    let is_largest = others.into_iter().all(|other| disk_usage::of_tree(&other.path()) <= used);
    is_largest.then(|| {
        let (floor, used) = (limits.min_free >> 20, used >> 20);
        format!(
            "less than {floor} MiB are free on the disk of the worker's data folder, and what it fetched and packed took \
             the most: {used} MiB"
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    const MIB: usize = 1 << 20;

    /// No process has this number.
    const NOBODY: Pid = Pid::from_raw(i32::MAX).unwrap();

    fn fill(folder: &Path, mib: usize) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(mib.to_string()), vec![1; mib * MIB]).unwrap();
    }

    #[tokio::test]
    async fn attack_36_what_a_jobs_process_keeps_counts_together() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("job-a");
        (1..=3).for_each(|number| fill(&folder.join(number.to_string()), 2));
        let limits = |mib: u64| ScratchLimits { bytes: mib << 20, min_free: 0 };
        assert_eq!(excess(&folder, NOBODY, limits(8)), None);
        assert_eq!(excess(&folder, NOBODY, limits(0)), None);
        let why = watch(folder.clone(), NOBODY, limits(5)).await;
        assert!(why.contains("5 MiB of limits.disk"), "{why}");
        let mut unlinked = tempfile::tempfile_in(&folder).unwrap();
        std::io::Write::write_all(&mut unlinked, &vec![1; 4 * MIB]).unwrap();
        assert!(excess(&folder, rustix::process::getpid(), limits(8)).is_some());
    }

    #[test]
    fn attack_36_a_full_disk_ends_the_process_that_has_the_most_there() {
        let root = tempfile::tempdir().unwrap();
        let [small, large, least] = ["job-small", "job-large", "job-least"].map(|name| root.path().join(name));
        fill(&small, 70);
        fill(&large, 90);
        fill(&least, 1);
        let full = ScratchLimits { bytes: 0, min_free: u64::MAX };
        assert_eq!(excess(&small, NOBODY, full), None);
        assert!(excess(&large, NOBODY, full).is_some_and(|why| why.contains("took the most: 90 MiB")));
        fs::remove_dir_all(&large).unwrap();
        assert!(excess(&small, NOBODY, full).is_some());
        fs::remove_dir_all(&small).unwrap();
        assert_eq!(excess(&least, NOBODY, full), None, "it would not help");
    }
}
