//! Benchmarks: the product beside a floor measured in the same run, by the rules of the goals' protocol.
//!
//! `goals` holds one function for each goal and reads from top to bottom, `workflows` those beside `peers`, `pages`
//! those of the dashboard. `floor` is what Docker alone takes, `stage` runs the product's processes, `answer` reads their
//! own stamps, `pairs` and `report` make the table.

pub mod answer;
pub mod engine;
pub mod floor;
pub mod goals;
pub mod memory;
mod pages;
pub mod pairs;
pub mod peers;
pub mod report;
pub mod stage;
mod workflows;

/// Says on standard error what is being done.
#[allow(clippy::print_stderr, reason = "progress of a command-line program")]
pub fn progress(text: &str) {
    eprintln!("bench: {text}");
}
