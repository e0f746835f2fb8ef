//! The queue as scheduling sees it: a copy of the store's, updated by announced changes and by regular reads.
//!
//! Jobs that differ in run and age alone form a group. A round considers as many jobs of each group as there are free
//! slots, so its cost does not grow with the queue.

use std::collections::{BTreeMap, HashMap, btree_map::Entry};

use domain::{
    id::{JobKey, RunId},
    run::Millis,
    schedule::QueuedJob,
};

/// The properties of a job that scheduling looks at: owner, labels, workers to avoid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    owner: String,
    labels: Vec<String>,
    avoid: Vec<String>,
}

/// Age and id: the order within a group.
type Position = (Millis, RunId, JobKey);

/// (run, job).
pub(super) type JobId = (RunId, JobKey);

/// Queued jobs by group and age.
#[derive(Debug, Default)]
pub(super) struct QueueCache {
    groups: BTreeMap<GroupKey, BTreeMap<Position, QueuedJob>>,
    places: HashMap<JobId, (GroupKey, Position)>,
}

impl QueueCache {
    /// Replaces everything.
    pub(super) fn replace(&mut self, queue: Vec<QueuedJob>) {
        *self = Self::default();
        queue.into_iter().for_each(|job| self.insert(job));
    }

    pub(super) fn insert(&mut self, job: QueuedJob) {
        let id = (job.run.clone(), job.job.clone());
        self.remove(&id);
        let group = GroupKey { owner: job.owner.clone(), labels: job.labels.clone(), avoid: job.avoid.clone() };
        let position = (job.since, job.run.clone(), job.job.clone());
        self.groups.entry(group.clone()).or_default().insert(position.clone(), job);
        self.places.insert(id, (group, position));
    }

    pub(super) fn remove(&mut self, id: &JobId) {
        let Some((group, position)) = self.places.remove(id) else { return };
        if let Entry::Occupied(mut jobs) = self.groups.entry(group) {
            jobs.get_mut().remove(&position);
            if jobs.get().is_empty() {
                jobs.remove();
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn contains(&self, id: &JobId) -> bool {
        self.places.contains_key(id)
    }

    /// The oldest `most` jobs of each group that `skip` lets through, by age.
    pub(super) fn candidates(&self, most: usize, skip: impl Fn(&QueuedJob) -> bool) -> Vec<QueuedJob> {
        let groups = self.groups.values().flat_map(|jobs| jobs.values().filter(|job| !skip(job)).take(most));
        let mut found: Vec<QueuedJob> = groups.cloned().collect();
        found.sort_by(|a, b| (a.since, &a.run, &a.job).cmp(&(b.since, &b.run, &b.job)));
        found
    }

    /// One job of each group, with all jobs of the group.
    pub(super) fn groups(&self) -> impl Iterator<Item = (&QueuedJob, impl Iterator<Item = &QueuedJob>)> {
        self.groups.values().filter_map(|jobs| Some((jobs.values().next()?, jobs.values())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(run: &str, owner: &str, label: &str, since: Millis) -> QueuedJob {
        QueuedJob {
            run: run.into(),
            job: "build".into(),
            labels: vec![label.into()],
            avoid: Vec::new(),
            owner: owner.into(),
            since,
            reason: String::new(),
        }
    }

    fn runs(jobs: &[QueuedJob]) -> Vec<&str> {
        jobs.iter().map(|job| job.run.as_str()).collect()
    }

    #[test]
    fn a_round_sees_as_many_jobs_of_each_kind_as_there_are_slots_the_oldest_first() {
        let mut queue = QueueCache::default();
        queue.replace(vec![job("3", "a", "x", 3), job("1", "a", "x", 1), job("2", "a", "x", 2)]);
        queue.insert(job("9", "a", "rare", 9));
        queue.insert(job("8", "b", "x", 8));
        assert_eq!(runs(&queue.candidates(2, |_| false)), ["1", "2", "8", "9"]);
        assert_eq!(runs(&queue.candidates(1, |job| job.run == "1")), ["2", "8", "9"], "one that is offered is no job");
        assert_eq!(queue.groups().map(|(_, jobs)| jobs.count()).sum::<usize>(), queue.len());
    }

    #[test]
    fn a_job_that_is_queued_again_stands_in_one_place() {
        let mut queue = QueueCache::default();
        queue.insert(job("1", "a", "x", 1));
        queue.insert(QueuedJob { avoid: vec!["w".into()], ..job("1", "a", "x", 5) });
        assert_eq!((queue.len(), queue.candidates(9, |_| false).len()), (1, 1));
        queue.remove(&("1".into(), "build".into()));
        queue.remove(&("1".into(), "build".into()));
        assert_eq!((queue.len(), queue.candidates(9, |_| false).len()), (0, 0));
    }
}
