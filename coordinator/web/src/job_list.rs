//! The list of a run's jobs beside a page: the legs of a matrix are one entry, which folds.

use super::{
    dto::{JobView, RunView},
    graph,
    time::span,
};
use domain::{id::JobKey, run::Millis};

/// A job, or the legs of a matrix.
#[derive(Debug)]
pub(super) struct JobGroup {
    /// What the legs have in common; none for a job that is alone.
    matrix: Option<String>,
    /// Those first for which the run fails.
    pub(super) entries: Vec<JobEntry>,
}

/// A job of the list.
#[derive(Debug)]
pub(super) struct JobEntry {
    pub(super) name: String,
    pub(super) word: &'static str,
    pub(super) link: String,
    /// How long it ran, or runs (ms).
    length: Option<Millis>,
    /// Since when it runs, where it does.
    pub(super) since: Option<Millis>,
    /// It is the one that is looked at.
    pub(super) is_here: bool,
    fails: bool,
}

impl RunView {
    /// Its jobs, in the order of the file. `here` is the one that is looked at.
    pub(super) fn job_groups(&self, now: &Millis, here: Option<&JobKey>) -> Vec<JobGroup> {
        let mut groups: Vec<JobGroup> = Vec::new();
        for (index, job) in self.jobs.iter().enumerate() {
            let entry = JobEntry {
                name: job.name.clone(),
                word: job.word(),
                link: self.job_link(job, &index),
                length: job.length(*now),
                since: job.started_at.filter(|_| job.conclusion.is_none()),
                is_here: here == Some(&job.key),
                fails: job.fails_the_run(),
            };
            match groups.last_mut() {
                // Legs stand side by side.
                Some(last) if job.matrix.is_some() && last.matrix == job.matrix => last.entries.push(entry),
                _ => groups.push(JobGroup { matrix: job.matrix.clone(), entries: vec![entry] }),
            }
        }
        groups.iter_mut().for_each(|group| group.entries.sort_by_key(|entry| !entry.fails));
        groups
    }
}

impl JobView {
    /// Milliseconds that it ran, or runs.
    pub(super) fn length(&self, now: Millis) -> Option<Millis> {
        let ended = if self.conclusion.is_some() { self.ended_at? } else { now };
        Some(ended.saturating_sub(self.started_at?))
    }
}

impl JobEntry {
    pub(super) fn took(&self) -> String {
        self.length.map(span).unwrap_or_default()
    }
}

impl JobGroup {
    /// The matrix whose legs they are; none for a job that is alone.
    pub(super) fn folded(&self) -> Option<&str> {
        self.matrix.as_deref().filter(|_| self.entries.len() > 1)
    }

    /// The name of the job in its file.
    pub(super) fn name(&self) -> &str {
        self.matrix.as_deref().map_or("", |matrix| matrix.rsplit('/').next().unwrap_or(matrix))
    }

    /// The status that tells most.
    pub(super) fn word(&self) -> &'static str {
        self.entries.iter().map(|entry| entry.word).min_by_key(|word| graph::rank(word)).unwrap_or("skipped")
    }

    /// How many of them ended well.
    pub(super) fn done(&self) -> usize {
        self.entries.iter().filter(|entry| entry.word == "success").count()
    }

    /// Whether the legs are in sight from the start: the run fails because of one, or one is looked at.
    pub(super) fn is_open(&self) -> bool {
        self.entries.iter().any(|entry| entry.fails || entry.is_here)
    }

    /// How long the longest took.
    pub(super) fn took(&self) -> String {
        self.entries.iter().filter_map(|entry| entry.length).max().map(span).unwrap_or_default()
    }
}
