//! Floods: what strangers can send and open, and what their jobs can do, and what a pool still does meanwhile. Each prints
//! rows of one table.

pub mod connections;
pub mod events;
mod hostile_jobs;
pub mod jobs;
pub mod refusals;
mod watch;

use std::fmt;

use anyhow::{Context, Result};

/// A bound that has to hold, and what was measured.
#[derive(Debug, Clone)]
pub struct Row {
    /// The flood.
    pub flood: String,
    /// What was measured.
    pub what: String,
    /// The result, with its unit.
    pub measured: String,
    /// What has to hold, for people.
    pub bound: String,
    /// Whether it does.
    pub holds: bool,
}

impl Row {
    /// A number and the most that it may be; an error where it could not be measured.
    fn at_most(flood: &str, what: &str, unit: &str, most: f64, measured: Result<f64, String>) -> Self {
        let holds = measured.as_ref().is_ok_and(|number| *number <= most);
        let measured = measured.map_or_else(|cause| cause, |number| format!("{number:.1} {unit}"));
        Self { flood: flood.into(), what: what.into(), measured, bound: format!("≤ {most:.0} {unit}"), holds }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.holds { "ok" } else { "FAILED" };
        write!(f, "{:<34} {:<38} {:>24} {:>24}  {verdict}", self.flood, self.what, self.measured, self.bound)
    }
}

/// Memory of a process now, in MiB: what is resident.
///
/// # Errors
/// The process is gone.
pub fn resident_mib(process: u32) -> Result<u64> {
    status(process, "VmRSS:").map(|kib| kib / 1024)
}

/// Threads of a process.
///
/// # Errors
/// The process is gone.
pub fn threads(process: u32) -> Result<u64> {
    status(process, "Threads:")
}

fn status(process: u32, field: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next());
    Ok(value.with_context(|| format!("no {field} of process {process}"))?.parse()?)
}
