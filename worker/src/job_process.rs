//! A process for each job: it does all that a job costs outside of its container.
//!
//! The worker itself keeps the sessions with the coordinator, the sandbox with its machines, and the journal. A job's
//! process, [`child`], is this program once more, forked from one that has it in memory ([`fork_server`], asked by
//! [`forked_process`]), under limits ([`limits`], [`cgroup`]). It is started, with a machine where machines are kept warm,
//! before its job is known ([`pool`]), and serves one. It speaks to its machine's first process
//! and to the coordinator itself, in the name of its one attempt; it has no key of the worker. What it needs of the sandbox
//! it asks the worker for ([`calls`], answered by [`machines`]). [`process`] is the worker's end: it never waits for what the
//! other does, and what it hears is bounded, as is what it keeps on the disk ([`scratch`]). [`executor`] runs attempts in such processes.

mod calls;
mod cgroup;
mod child;
mod executor;
mod fork_server;
mod forked_process;
mod lifeline;
mod limits;
mod machines;
mod pool;
mod process;
mod remote_sandbox;
mod scratch;
mod socket;
mod worker_link;

pub use self::{
    child::run as serve_one_job,
    executor::ProcessExecutor,
    fork_server::{ForkRole, serve as serve_forks},
};

/// The hidden command of this program that forks processes for jobs, and serves one in each.
pub const COMMAND: &str = "job-process";

/// What stands between the processes of jobs and this machine, in words, and whether a cgroup is a part of it. It tries what
/// a worker would do.
pub fn describe_limits(limits: &crate::config::JobLimits) -> (String, bool) {
    let limits = limits::ProcessLimits::new(limits, &format!("check-{}", std::process::id()));
    limits.remove();
    limits.describe()
}
