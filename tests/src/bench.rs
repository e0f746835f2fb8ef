//! Benchmarks: the product beside a floor measured in the same run, by the rules of the goals' protocol.
//!
//! `goals` holds one function for each goal and reads from top to bottom, `workflows` those beside `peers`, `pages`
//! those of the dashboard. `assignment`, `dispatch_rate`, `throughput`, `standing` and `recovery` measure a coordinator with
//! simulated workers (`cluster`, `fleet`); `base` puts two builds of the product beside each other. `floor` is what Docker alone takes, `stage` runs the product's processes, `answer` reads their
//! own stamps, `pairs` and `report` make the table.

pub mod answer;
mod assignment;
mod base;
mod celery;
mod cluster;
mod dispatch_rate;
pub mod engine;
pub(crate) mod fleet;
pub mod floor;
pub mod goals;
mod pages;
pub mod pairs;
pub mod peers;
mod recovery;
pub mod report;
pub mod scale;
pub mod stage;
mod standing;
mod throughput;
pub(crate) mod usage;
mod workflows;

/// Says on standard error what is being done.
#[allow(clippy::print_stderr, reason = "progress of a command-line program")]
pub fn progress(text: &str) {
    eprintln!("bench: {text}");
}
