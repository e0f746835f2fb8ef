//! The newest ids of events, bounded: the older half is forgotten at a time.

use std::collections::HashSet;

use nostr::EventId;

/// Ids remembered, twice at most.
const RECENT: usize = 8192;

#[derive(Debug, Default)]
pub(super) struct RecentIds {
    new: HashSet<EventId>,
    old: HashSet<EventId>,
}

impl RecentIds {
    pub(super) fn insert(&mut self, id: EventId) {
        if self.new.len() >= RECENT {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(id);
    }

    pub(super) fn contains(&self, id: &EventId) -> bool {
        self.new.contains(id) || self.old.contains(id)
    }

    pub(super) fn remove(&mut self, id: &EventId) {
        self.new.remove(id);
        self.old.remove(id);
    }
}
