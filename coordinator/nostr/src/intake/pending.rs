//! Jobs that wait for their run event, bounded for each author and in sum.

use std::collections::{BTreeSet, HashMap};

use domain::run::Millis;
use nostr::{EventId, PublicKey};

/// Jobs that wait at a time.
const ALL: usize = 4096;
/// Jobs of one author that wait at a time.
const OF_AUTHOR: usize = 512;

/// A job event that waits for its run event.
#[derive(Debug, Clone)]
pub(super) struct PendingJob {
    pub(super) run: EventId,
    pub(super) author: PublicKey,
    /// Relays that the job names.
    pub(super) named: Vec<String>,
    /// When it is given up.
    pub(super) until: Millis,
}

#[derive(Debug, Default)]
pub(super) struct PendingJobs {
    jobs: HashMap<EventId, PendingJob>,
    deadlines: BTreeSet<(Millis, EventId)>,
    of_author: HashMap<PublicKey, usize>,
}

impl PendingJobs {
    /// Whether another job of this author may wait.
    pub(super) fn has_room(&self, author: &PublicKey) -> bool {
        self.jobs.len() < ALL && self.of_author.get(author).is_none_or(|count| *count < OF_AUTHOR)
    }

    pub(super) fn insert(&mut self, id: EventId, job: PendingJob) {
        self.remove(&id);
        self.deadlines.insert((job.until, id));
        *self.of_author.entry(job.author).or_default() += 1;
        self.jobs.insert(id, job);
    }

    pub(super) fn remove(&mut self, id: &EventId) {
        let Some(job) = self.jobs.remove(id) else { return };
        self.deadlines.remove(&(job.until, *id));
        if let Some(count) = self.of_author.get_mut(&job.author) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_author.remove(&job.author);
            }
        }
    }

    pub(super) fn get(&self, id: &EventId) -> Option<&PendingJob> {
        self.jobs.get(id)
    }

    pub(super) fn contains(&self, id: &EventId) -> bool {
        self.jobs.contains_key(id)
    }

    /// When the first of them is given up.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Jobs whose time is over, the oldest first.
    pub(super) fn expired(&self, now: Millis, most: usize) -> Vec<(EventId, PendingJob)> {
        let over = self.deadlines.iter().take_while(|(until, _)| *until <= now).take(most);
        over.filter_map(|(_, id)| Some((*id, self.jobs.get(id)?.clone()))).collect()
    }

    /// Gives a job up later.
    pub(super) fn postpone(&mut self, id: &EventId, until: Millis) {
        if let Some(job) = self.jobs.get(id).cloned() {
            self.insert(*id, PendingJob { until, ..job });
        }
    }
}

#[cfg(test)]
mod tests {
    use nostr::Keys;

    use super::*;

    fn id(number: usize) -> EventId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        EventId::from_byte_array(bytes)
    }

    fn job(author: PublicKey, until: Millis) -> PendingJob {
        PendingJob { run: id(0), author, named: Vec::new(), until }
    }

    #[test]
    fn one_author_leaves_room_for_others_and_all_together_are_bounded() {
        let mut pending = PendingJobs::default();
        let (greedy, other) = (Keys::generate().public_key(), Keys::generate().public_key());
        let mut number = 0;
        while pending.has_room(&greedy) {
            pending.insert(id(number), job(greedy, 5));
            number += 1;
        }
        assert_eq!(number, OF_AUTHOR);
        assert!(pending.has_room(&other));
        while number < ALL {
            pending.insert(id(number), job(Keys::generate().public_key(), 5));
            number += 1;
        }
        assert!(!pending.has_room(&other));
        pending.remove(&id(0));
        assert!(pending.has_room(&other) && pending.has_room(&greedy));
    }

    #[test]
    fn jobs_are_given_up_in_the_order_of_their_deadlines() {
        let mut pending = PendingJobs::default();
        let author = Keys::generate().public_key();
        for (number, until) in [(1, 30), (2, 10), (3, 20)] {
            pending.insert(id(number), job(author, until));
        }
        let expired = |pending: &PendingJobs, now| -> Vec<EventId> {
            pending.expired(now, 9).into_iter().map(|(id, _)| id).collect()
        };
        assert_eq!(pending.next_deadline(), Some(10));
        assert_eq!(expired(&pending, 20), [id(2), id(3)]);
        pending.postpone(&id(2), 40);
        pending.remove(&id(3));
        assert_eq!(expired(&pending, 40), [id(1), id(2)]);
        assert_eq!(pending.expired(40, 1).len(), 1);
    }
}
