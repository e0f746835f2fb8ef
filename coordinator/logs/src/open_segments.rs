//! The segments that are open for writing.
//!
//! The worker of a lost attempt never closes its segment, so idle segments are closed here; the next append opens and
//! hashes the file again.

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use domain::id::RunId;

use super::{Key, segment::Segment};

/// A segment that was not used for this long is closed.
const IDLE: Duration = Duration::from_secs(600);
/// Idle segments are looked for this often, when another one is opened.
const SWEEP: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct OpenSegments(Mutex<Table>);

#[derive(Debug)]
struct Table {
    segments: HashMap<Key, Entry>,
    swept: Instant,
}

#[derive(Debug)]
struct Entry {
    segment: Arc<Mutex<Segment>>,
    used: Instant,
}

impl OpenSegments {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Table { segments: HashMap::new(), swept: now }))
    }

    /// The segment of an attempt, opened from `path` where it is not open. Waits for the disk.
    pub(super) fn get(&self, key: Key, path: &Path, now: Instant) -> anyhow::Result<Arc<Mutex<Segment>>> {
        if let Some(entry) = self.0.lock().segments.get_mut(&key) {
            entry.used = now;
            return Ok(Arc::clone(&entry.segment));
        }
        let opened = Segment::open(path)?;
        let mut table = self.0.lock();
        if now.saturating_duration_since(table.swept) >= SWEEP {
            table.swept = now;
            // One that is held is being written: a second writer of the same file would overwrite it.
            table.segments.retain(|_, entry| {
                Arc::strong_count(&entry.segment) > 1 || now.saturating_duration_since(entry.used) < IDLE
            });
        }
        // Another thread may have opened it meanwhile: a file must have one writer, for its offset.
        let entry =
            table.segments.entry(key).or_insert_with(|| Entry { segment: Arc::new(Mutex::new(opened)), used: now });
        Ok(Arc::clone(&entry.segment))
    }

    pub(super) fn close(&self, key: &Key) {
        self.0.lock().segments.remove(key);
    }

    pub(super) fn close_run(&self, run: &RunId) {
        self.0.lock().segments.retain(|(of, _, _), _| of != run);
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().segments.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;

    #[test]
    fn a_segment_that_nobody_writes_is_closed_and_one_that_is_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let open = OpenSegments::new(start);
        let get = |job: &str, after| {
            open.get(("run".into(), job.into(), 1), &folder.path().join(job), start + Duration::from_secs(after))
                .unwrap()
        };
        get("lost", 0).lock().append(0, b"abc").unwrap();
        let held = get("held", 0);
        get("written", 0);
        get("written", 550);
        get("new", 601);
        assert_eq!(open.len(), 3, "the lost one is closed");
        assert!(Arc::ptr_eq(&held, &get("held", 602)));
        assert_eq!(get("lost", 603).lock().append(3, b"def").unwrap(), 6, "it is opened again where it ended");
    }
}
