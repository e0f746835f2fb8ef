//! How much room files take.

use std::{path::Path, time::SystemTime};

/// Room that a file, or all files below a folder, take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes.
    pub bytes: u64,
    /// When one of them was written last.
    pub written_at: SystemTime,
}

impl DiskUsage {
    /// Looks at every file; what goes meanwhile counts nothing.
    pub fn of(path: &Path) -> Self {
        let mut usage = Self { bytes: 0, written_at: SystemTime::UNIX_EPOCH };
        let mut left = vec![path.to_owned()];
        while let Some(path) = left.pop() {
            let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
            if found.is_dir() {
                left.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
                continue;
            }
            usage.bytes += found.len();
            usage.written_at = found.modified().map_or(usage.written_at, |at| at.max(usage.written_at));
        }
        usage
    }
}
