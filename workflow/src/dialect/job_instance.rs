//! What a language makes of a job that may start: its instances, each with its evaluated keys.

use std::fmt;

use crate::plan::{ConcurrencyRequest, MatrixCell};

/// A job whose needs are done, as its instances.
#[derive(Debug, Clone, PartialEq)]
pub struct JobExpansion {
    /// Whether the instances are told apart by their numbers; if not, there is one, and it is the job itself.
    pub numbered: bool,
    /// Whether one that fails ends the others.
    pub fail_fast: bool,
    /// How many may run at a time; `None`: all.
    pub max_parallel: Option<usize>,
    /// In their order.
    pub instances: Vec<JobInstance>,
}

/// One instance of a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobInstance {
    /// Its values and its place.
    pub cell: MatrixCell,
    /// Display name.
    pub name: String,
    /// Labels a worker must have.
    pub labels: Vec<String>,
    /// Milliseconds that an attempt may take.
    pub timeout_ms: u64,
    /// Whether its failure is tolerated.
    pub tolerated: bool,
    /// Its concurrency group, where it names one.
    pub concurrency: Option<ConcurrencyRequest>,
    /// What it deploys to, where it names an environment.
    pub environment: Option<String>,
    /// Why it can't run: what comes after the wrong key was not evaluated.
    pub invalid: Option<JobKeyError>,
}

/// A key of a job that has no value here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobKeyError {
    /// The key, as a path below the job.
    pub key: &'static str,
    /// What is wrong, for the author.
    pub message: String,
}

impl JobKeyError {
    /// Says what is wrong with a key.
    pub fn new(key: &'static str, message: impl fmt::Display) -> Self {
        Self { key, message: message.to_string() }
    }
}

impl fmt::Display for JobKeyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.key, self.message)
    }
}

/// Secrets that a called workflow's jobs get of those that its caller has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassedSecrets {
    /// All, under their names.
    All,
    /// These names and values.
    Named(Vec<(String, String)>),
}
