//! The newest versions of active runs and groups that this process wrote, so that an event does not read the whole run
//! again, and need not wait for the commit of the event before it.
//!
//! The store is the truth: it refuses a version that does not follow the stored one. It compares numbers alone, so nothing
//! is read from it while versions that were computed from a failed one are still on their way there: an entry of which a
//! commit failed is not used any more, and goes with the last of its commits.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use domain::{
    group::Group,
    id::RunId,
    run::{RunPhase, RunState},
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use workflow::plan::Plan;

/// Jobs of all cached runs and their plans' weights together: about 1 KiB each, so at most some 100 MiB.
const MAX_JOBS: usize = 100_000;

/// Runs and groups by their keys. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct StateCache(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// Told whenever a commit has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    runs: HashMap<RunId, Entry<RunState>>,
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
    /// The newest version whose commit has ended well.
    committed: u64,
    /// A commit failed: nothing may be computed from it.
    failed: bool,
    /// Tells this entry from an earlier one of the same key.
    lineage: Lineage,
    used: u64,
}

/// Identifies an entry.
type Lineage = u64;

/// A version as it was read.
#[derive(Debug)]
pub(super) struct Snapshot<T> {
    pub(super) state: Arc<T>,
    /// The entry that it is of; `None`: it was read from the store.
    pub(super) lineage: Option<Lineage>,
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), lineage: self.lineage }
    }
}

impl<T> Snapshot<T> {
    /// What the store has.
    pub(super) fn stored(state: T) -> Self {
        Self { state: Arc::new(state), lineage: None }
    }
}

/// A new version of a run or group, and the one that it was computed from.
#[derive(Debug)]
pub(super) struct Written<T> {
    /// `None`: it is the first.
    pub(super) before: Option<Snapshot<T>>,
    pub(super) after: Arc<T>,
}

impl<T> Written<T> {
    /// The new version, as the rest of its unit of work reads it.
    pub(super) fn snapshot(&self) -> Snapshot<T> {
        let lineage = self.before.as_ref().and_then(|before| before.lineage);
        Snapshot { state: self.after.clone(), lineage }
    }
}

/// What a unit of work writes.
#[derive(Debug, Default)]
pub(super) struct WriteSet {
    pub(super) runs: HashMap<RunId, Written<RunState>>,
    pub(super) groups: HashMap<String, Written<Group>>,
}

impl StateCache {
    /// The newest version of a run. `None`: the store has it.
    pub(super) async fn run(&self, id: &RunId) -> Option<Snapshot<RunState>> {
        self.usable(|inner| {
            inner.clock += 1;
            let now = inner.clock;
            inner.runs.get_mut(id).map(|entry| {
                entry.used = now;
                entry.snapshot()
            })
        })
        .await
    }

    /// The newest version of a group whose commit is under way. `None`: the store has it.
    pub(super) async fn group(&self, key: &str) -> Option<Snapshot<Group>> {
        self.usable(|inner| inner.groups.get(key).map(Entry::snapshot)).await
    }

    /// What `look` finds, once it is no entry of which a commit failed.
    async fn usable<T>(&self, mut look: impl FnMut(&mut Inner) -> Option<Option<Snapshot<T>>>) -> Option<Snapshot<T>> {
        loop {
            let ended = self.0.ended.notified();
            match look(&mut self.0.inner.lock()) {
                None => return None,
                Some(Some(snapshot)) => return Some(snapshot),
                Some(None) => {}
            }
            ended.await;
        }
    }

    /// Makes new versions the newest, all or none. False: another unit of work was faster, and this one must be computed
    /// again. Otherwise [`Self::finish`] must follow.
    pub(super) fn publish(&self, set: &WriteSet) -> bool {
        let mut inner = self.0.inner.lock();
        if !set.runs.iter().all(|(key, written)| follows(&inner.runs, key, written))
            || !set.groups.iter().all(|(key, written)| follows(&inner.groups, key, written))
        {
            return false;
        }
        inner.clock += 1;
        let now = inner.clock;
        for (key, written) in &set.runs {
            let before = inner.runs.get(key).map_or(0, |entry| weight(&entry.newest));
            inner.jobs = inner.jobs - before + weight(&written.after);
            insert(&mut inner.runs, key, written, now);
        }
        for (key, written) in &set.groups {
            insert(&mut inner.groups, key, written, now);
        }
        inner.make_room();
        true
    }

    /// Ends a commit.
    pub(super) fn finish(&self, set: &WriteSet, committed: bool) {
        let mut inner = self.0.inner.lock();
        for (key, written) in &set.runs {
            let committed = committed.then_some(written.after.version);
            // Runs that have ended need no more events.
            let keep = |state: &RunState| !matches!(state.phase, RunPhase::Done { .. });
            if let Some(entry) = end_commit(&mut inner.runs, key, committed, keep) {
                inner.jobs -= weight(&entry.newest);
            }
        }
        for (key, written) in &set.groups {
            // Between commits groups are read from the store.
            end_commit(&mut inner.groups, key, committed.then_some(written.after.version), |_| false);
        }
        drop(inner);
        self.0.ended.notify_waiters();
    }

    /// Waits for the end of the commit that wrote a version of a run. False: it failed, or its end is not known any more.
    pub(super) async fn is_committed(&self, id: &RunId, lineage: Lineage, version: u64) -> bool {
        loop {
            let ended = self.0.ended.notified();
            match self.0.inner.lock().runs.get(id).filter(|entry| entry.lineage == lineage) {
                None => return false,
                Some(entry) if entry.committed >= version => return true,
                Some(_) => {}
            }
            ended.await;
        }
    }

    /// Forgets a run that turned out to be older than the stored one.
    pub(super) fn forget(&self, id: &RunId) {
        let mut inner = self.0.inner.lock();
        let Some(entry) = inner.runs.get_mut(id) else { return };
        entry.failed = true;
        if entry.commits == 0
            && let Some(entry) = inner.runs.remove(id)
        {
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

impl<T> Entry<T> {
    /// Its newest version, unless a commit of it failed.
    fn snapshot(&self) -> Option<Snapshot<T>> {
        (!self.failed).then(|| Snapshot { state: self.newest.clone(), lineage: Some(self.lineage) })
    }
}

fn weight(state: &RunState) -> usize {
    let plans = state.planned.iter().flat_map(|planned| planned.called.values().chain([&planned.plan]));
    1 + state.jobs.len() + plans.map(Plan::weight).sum::<usize>()
}

/// Whether a version was computed from the newest there is. What was read from the store is compared there.
fn follows<K: Clone + Eq + Hash, T>(known: &HashMap<K, Entry<T>>, key: &K, written: &Written<T>) -> bool {
    match (known.get(key), &written.before) {
        (Some(entry), Some(before)) => !entry.failed && Arc::ptr_eq(&entry.newest, &before.state),
        (Some(_), None) => false,
        (None, before) => before.as_ref().is_none_or(|before| before.lineage.is_none()),
    }
}

fn insert<K: Clone + Eq + Hash, T>(known: &mut HashMap<K, Entry<T>>, key: &K, written: &Written<T>, now: u64) {
    let newest = written.after.clone();
    let first = || Entry { newest: newest.clone(), commits: 0, committed: 0, failed: false, lineage: now, used: now };
    let entry = known.entry(key.clone()).or_insert_with(first);
    entry.newest = newest;
    entry.commits += 1;
    entry.used = now;
}

/// Counts a commit off, and returns the entry if that removed it. `committed`: the version, unless it failed.
fn end_commit<K: Clone + Eq + Hash, T>(
    known: &mut HashMap<K, Entry<T>>,
    key: &K,
    committed: Option<u64>,
    keep: impl Fn(&T) -> bool,
) -> Option<Entry<T>> {
    let entry = known.get_mut(key)?;
    entry.commits = entry.commits.saturating_sub(1);
    match committed {
        Some(version) => entry.committed = entry.committed.max(version),
        None => entry.failed = true,
    }
    let is_over = entry.commits == 0 && (entry.failed || !keep(&entry.newest));
    if is_over { known.remove(key) } else { None }
}

#[cfg(test)]
mod tests;
