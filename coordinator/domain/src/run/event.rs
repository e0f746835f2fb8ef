//! What can happen to a run, and what it asks for.

use serde::{Deserialize, Serialize};
use workflow::plan::{ConcurrencyRequest, JobReport};

use crate::id::JobKey;

use super::{ApprovalVerdict, DefinitionOverride, FinalizedLog, Millis, Planned, RunEnd};

/// Everything that can happen to a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum RunEvent {
    /// Its files were read.
    Planned(Box<Planned>),
    /// It can't be planned: the text says why, for the author.
    Unplannable {
        /// For people; the first line is the summary.
        message: String,
    },
    /// Its files can't be had yet; they are asked for again.
    Delayed {
        /// For people: what is missing, or what did not answer.
        reason: String,
    },
    /// A worker accepted a job; a new attempt begins.
    Accepted {
        /// Job key.
        job: JobKey,
        /// Worker id.
        worker: String,
    },
    /// The first step of an attempt is about to start.
    Begun {
        /// Job key.
        job: JobKey,
        /// Attempt.
        attempt: u32,
    },
    /// A worker reported the end of an attempt.
    Finished {
        /// Job key.
        job: JobKey,
        /// Attempt.
        attempt: u32,
        /// Its report.
        report: Box<JobReport>,
    },
    /// A lease ran out, or the worker says it no longer has the attempt.
    Lost {
        /// Job key.
        job: JobKey,
        /// Attempt.
        attempt: u32,
        /// For people.
        reason: String,
    },
    /// No worker had the labels for the configured time.
    Unmatched {
        /// Job key.
        job: JobKey,
    },
    /// Somebody who may asked to end it.
    Cancel {
        /// For people.
        by: String,
    },
    /// A concurrency group is this run's now, or this job's.
    Granted {
        /// Job key; `None`: the run.
        job: Option<JobKey>,
    },
    /// Somebody else holds the group that this run waits for, or this job.
    HeldBy {
        /// Job key; `None`: the run.
        job: Option<JobKey>,
        /// Number of the run that holds it.
        serial: u64,
    },
    /// A job is to make room in its concurrency group.
    Preempted {
        /// Job key.
        job: JobKey,
        /// To what, for people.
        to: String,
    },
    /// Somebody who was asked said whether a job may start, or the run.
    Decided {
        /// Job key; empty: the run.
        job: JobKey,
        /// What they said.
        verdict: ApprovalVerdict,
        /// Who, 64 hex.
        by: String,
        /// For people; may be empty.
        comment: String,
    },
    /// The moment of an [`RunEffect::Wake`] came.
    Due {
        /// Job key; empty: the run.
        job: JobKey,
    },
    /// The moment of an [`RunEffect::Timer`] came.
    Expired,
    /// The log is stored.
    LogFinalized {
        /// Where.
        log: FinalizedLog,
    },
}

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RunRefusal {
    /// It is about an attempt or a phase that is not current.
    #[error("not current")]
    Stale,
    /// It was taken before.
    #[error("known already")]
    Repeated,
    /// The run has ended.
    #[error("the run has ended")]
    Terminal,
}

/// What is to be done after a change, written with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "effect")]
pub enum RunEffect {
    /// Fetch and read the workflow.
    Plan,
    /// Offer a job to workers.
    Queue {
        /// Job key.
        job: JobKey,
        /// Number of the attempt that is to begin.
        attempt: u32,
        /// Labels.
        labels: Vec<String>,
        /// A worker that must not get it if another can (it lost or failed to start it).
        avoid: Vec<String>,
        /// Why it waits, for people; empty: it was not offered to anybody yet.
        reason: String,
    },
    /// Take a job out of the queue.
    Unqueue {
        /// Job key.
        job: JobKey,
        /// Number of the attempt that began, or will not.
        attempt: u32,
    },
    /// A worker holds an attempt from now on.
    Lease {
        /// Job key.
        job: JobKey,
        /// Attempt.
        attempt: u32,
        /// Worker id.
        worker: String,
    },
    /// The attempt is over: nobody holds it any longer.
    EndLease {
        /// Job key.
        job: JobKey,
        /// Attempt.
        attempt: u32,
    },
    /// Have the worker that holds an attempt end it.
    Stop {
        /// Job key.
        job: JobKey,
        /// Attempt.
        attempt: u32,
        /// Worker id.
        worker: String,
        /// For people.
        reason: String,
    },
    /// Ask for a concurrency group: [`RunEvent::Granted`] or [`RunEvent::HeldBy`] follows.
    Join {
        /// Job key; `None`: the run.
        job: Option<JobKey>,
        /// The group, and how.
        ask: ConcurrencyRequest,
    },
    /// Give a concurrency group back, or wait for it no longer.
    Leave {
        /// Job key; `None`: the run.
        job: Option<JobKey>,
        /// Its name.
        group: String,
    },
    /// Store the report of a job's final attempt, beside the run.
    StoreReport {
        /// Job key.
        job: JobKey,
        /// Attempt.
        attempt: u32,
        /// The report, as the worker sent it.
        report: Box<JobReport>,
    },
    /// Send [`RunEvent::Expired`] at a moment.
    Timer {
        /// When.
        at: Millis,
    },
    /// Send [`RunEvent::Due`] at a moment; a later one takes the place of an earlier one.
    Wake {
        /// Job key; empty: the run.
        job: JobKey,
        /// When.
        at: Millis,
    },
    /// Tell the author.
    Publish(RunUpdate),
    /// Close the log, and store and publish it.
    FinalizeLog,
    /// Forget the run's secrets.
    EraseSecrets,
}

/// What the author is told, in the order it happens. A protocol makes events of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "update")]
pub enum RunUpdate {
    /// Received, checked and stored.
    Queued {
        /// Seconds stamp of the status event.
        stamp: u64,
    },
    /// It waits for something named.
    Waiting {
        /// Seconds stamp of the status event.
        stamp: u64,
        /// For what, for people.
        reason: String,
    },
    /// The first job began.
    Running {
        /// Seconds stamp of the status event.
        stamp: u64,
    },
    /// The end, with its log.
    Finished {
        /// Seconds stamp of the status event.
        stamp: u64,
        /// How it ended.
        end: RunEnd,
        /// The stored log.
        log: FinalizedLog,
        /// Whole seconds from the first job's begin to the end; 0 where nothing ran.
        duration_s: u64,
        /// Definitions that it was made of.
        #[serde(default)]
        definitions: Vec<DefinitionOverride>,
    },
}
