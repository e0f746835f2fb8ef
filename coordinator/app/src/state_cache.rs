//! The newest versions of active runs and groups that this process wrote, so that an event does not read the whole run
//! again, and need not wait for the commit of the event before it.
//!
//! The store is the truth: it refuses a version that does not follow the stored one, and whoever is refused forgets the
//! entry and reads again. An entry whose commit is under way is never dropped for room: until then the store would
//! show an older version.

use std::{collections::HashMap, sync::Arc};

use domain::{group::Group, run::RunState};
use parking_lot::Mutex;

/// Jobs of all cached runs together: about 1 KiB each, so at most some 100 MiB.
const MAX_JOBS: usize = 100_000;

/// Runs and groups by their keys. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct StateCache(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    runs: HashMap<String, Entry<RunState>>,
    groups: HashMap<String, Entry<Group>>,
    /// Jobs of the cached runs, each run counted as one more.
    jobs: usize,
    clock: u64,
}

#[derive(Debug)]
struct Entry<T> {
    newest: Arc<T>,
    /// Commits that are under way.
    commits: u32,
    /// Tells this entry from one of the same key that was forgotten before.
    lineage: u64,
    used: u64,
}

/// A new version of a run or group, and the one that it was computed from.
#[derive(Debug, Clone)]
pub(super) struct Written<T> {
    pub(super) before: Option<Arc<T>>,
    pub(super) after: Arc<T>,
    /// Set by [`StateCache::publish`].
    lineage: u64,
}

impl<T> Written<T> {
    /// A new version that was computed from `before`; `None`: it is the first.
    pub(super) fn new(before: Option<Arc<T>>, after: Arc<T>) -> Self {
        Self { before, after, lineage: 0 }
    }
}

/// What a unit of work writes.
#[derive(Debug, Clone, Default)]
pub(super) struct WriteSet {
    pub(super) runs: HashMap<String, Written<RunState>>,
    pub(super) groups: HashMap<String, Written<Group>>,
}

impl StateCache {
    /// The newest version of a run.
    pub(super) fn run(&self, id: &str) -> Option<Arc<RunState>> {
        let mut inner = self.0.lock();
        inner.clock += 1;
        let now = inner.clock;
        let entry = inner.runs.get_mut(id)?;
        entry.used = now;
        Some(entry.newest.clone())
    }

    /// The newest version of a group whose commit is under way.
    pub(super) fn group(&self, key: &str) -> Option<Arc<Group>> {
        self.0.lock().groups.get(key).map(|entry| entry.newest.clone())
    }

    /// Makes new versions the newest, all or none. False: another unit of work was faster, and this one must be computed
    /// again. Otherwise [`Self::finish`] must follow.
    pub(super) fn publish(&self, set: &mut WriteSet) -> bool {
        let mut inner = self.0.lock();
        if !set.runs.iter().all(|(key, written)| follows(&inner.runs, key, written))
            || !set.groups.iter().all(|(key, written)| follows(&inner.groups, key, written))
        {
            return false;
        }
        inner.clock += 1;
        let now = inner.clock;
        for (key, written) in &mut set.runs {
            let before = inner.runs.get(key).map_or(0, |entry| weight(&entry.newest));
            inner.jobs = inner.jobs - before + weight(&written.after);
            insert(&mut inner.runs, key, written, now);
        }
        for (key, written) in &mut set.groups {
            insert(&mut inner.groups, key, written, now);
        }
        inner.make_room();
        true
    }

    /// Ends a commit. What failed is forgotten at once: nothing may be computed from it. Runs that need no more events are
    /// forgotten too.
    pub(super) fn finish(&self, set: &WriteSet, committed: bool) {
        let mut inner = self.0.lock();
        for (key, written) in &set.runs {
            let over = matches!(written.after.phase, domain::run::RunPhase::Done { .. });
            if let Some(entry) = release(&mut inner.runs, key, written.lineage, committed, !over) {
                inner.jobs -= weight(&entry.newest);
            }
        }
        for (key, written) in &set.groups {
            // Between commits groups are read from the store.
            release(&mut inner.groups, key, written.lineage, committed, false);
        }
    }

    /// Forgets a run that turned out to be older than the stored one.
    pub(super) fn forget(&self, id: &str) {
        let mut inner = self.0.lock();
        if let Some(entry) = inner.runs.remove(id) {
            inner.jobs -= weight(&entry.newest);
        }
    }
}

impl Inner {
    fn make_room(&mut self) {
        while self.jobs > MAX_JOBS {
            let idle = self.runs.iter().filter(|(_, entry)| entry.commits == 0);
            let Some(oldest) = idle.min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone()) else { return };
            if let Some(entry) = self.runs.remove(&oldest) {
                self.jobs -= weight(&entry.newest);
            }
        }
    }
}

fn weight(state: &RunState) -> usize {
    1 + state.jobs.len()
}

/// Whether a version was computed from the newest that is known.
fn follows<T>(known: &HashMap<String, Entry<T>>, key: &str, written: &Written<T>) -> bool {
    match (known.get(key), &written.before) {
        (Some(entry), Some(before)) => Arc::ptr_eq(&entry.newest, before),
        (Some(_), None) => false,
        (None, _) => true,
    }
}

fn insert<T>(known: &mut HashMap<String, Entry<T>>, key: &str, written: &mut Written<T>, now: u64) {
    let newest = written.after.clone();
    let entry = known.entry(key.to_owned()).or_insert_with(|| Entry {
        newest: newest.clone(),
        commits: 0,
        lineage: now,
        used: now,
    });
    entry.newest = newest;
    entry.commits += 1;
    entry.used = now;
    written.lineage = entry.lineage;
}

/// Counts a commit off, and returns the entry if that removed it.
fn release<T>(
    known: &mut HashMap<String, Entry<T>>,
    key: &str,
    lineage: u64,
    committed: bool,
    keep: bool,
) -> Option<Entry<T>> {
    let entry = known.get_mut(key).filter(|entry| entry.lineage == lineage)?;
    entry.commits = entry.commits.saturating_sub(1);
    if committed && (keep || entry.commits > 0) { None } else { known.remove(key) }
}
