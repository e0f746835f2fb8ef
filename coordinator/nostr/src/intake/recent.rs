//! The newest of many, bounded: the older half is forgotten at a time.

use std::{collections::HashSet, hash::Hash};

#[derive(Debug)]
pub(super) struct Recent<T> {
    new: HashSet<T>,
    old: HashSet<T>,
    /// Remembered at least, and twice as many at most.
    most: usize,
}

impl<T: Eq + Hash> Recent<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { new: HashSet::new(), old: HashSet::new(), most }
    }

    pub(super) fn insert(&mut self, one: T) {
        if self.new.len() >= self.most {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(one);
    }

    pub(super) fn contains(&self, one: &T) -> bool {
        self.new.contains(one) || self.old.contains(one)
    }

    pub(super) fn remove(&mut self, one: &T) -> bool {
        self.new.remove(one) | self.old.remove(one)
    }
}
