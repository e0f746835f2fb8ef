//! One hand at a time for each key: a row of work that is added anew while it is done is claimed a second time.

use std::{collections::HashSet, hash::Hash};

use parking_lot::Mutex;

/// Keys that are locked.
#[derive(Debug)]
pub(super) struct KeyedLocks<K>(Mutex<HashSet<K>>);

impl<K> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A key that is locked until this is dropped.
pub(super) struct KeyedLockGuard<'a, K: Eq + Hash>(&'a KeyedLocks<K>, K);

impl<K: Eq + Hash + Clone> KeyedLocks<K> {
    /// Locks a key; `None`: it is locked.
    pub(super) fn try_lock(&self, key: &K) -> Option<KeyedLockGuard<'_, K>> {
        self.0.lock().insert(key.clone()).then(|| KeyedLockGuard(self, key.clone()))
    }
}

impl<K: Eq + Hash> Drop for KeyedLockGuard<'_, K> {
    fn drop(&mut self) {
        self.0.0.lock().remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_locked_until_its_guard_goes_and_no_other_key_is() {
        let locks = KeyedLocks::default();
        let first = locks.try_lock(&"a");
        assert!(first.is_some() && locks.try_lock(&"a").is_none() && locks.try_lock(&"b").is_some());
        drop(first);
        assert!(locks.try_lock(&"a").is_some());
    }
}
