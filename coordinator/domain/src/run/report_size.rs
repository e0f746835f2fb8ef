//! How much the reports of a run's jobs take together: a run may have thousands of jobs, and each may say several megabytes.

use serde::Serialize;
use workflow::plan::{Annotation, JobReport};

use super::MAX_REPORTS;

/// Leaves out of a report what the run has no room for, where its reports so far have so many bytes. Returns how many they
/// have with it. What is small and people look for first has room first.
pub(super) fn bound(report: &mut JobReport, before: u64) -> u64 {
    let (mut bytes, mut left_out) = (before, Vec::new());
    let mut has_room = |what, size: u64| {
        let fits = bytes.saturating_add(size) <= MAX_REPORTS;
        if fits {
            bytes += size;
        } else {
            left_out.push(what);
        }
        fits
    };
    if !has_room("steps", length(&report.steps)) {
        report.steps.clear();
    }
    if !has_room("environment", length(&report.environment)) {
        report.environment = None;
    }
    if !has_room("image", length(&report.image)) {
        report.image = None;
    }
    if !has_room("actions", length(&report.actions)) {
        report.actions.clear();
    }
    if !has_room("annotations", length(&report.annotations)) {
        report.annotations.clear();
    }
    if !has_room("outputs", length(&report.outputs)) {
        report.outputs.clear();
    }
    if !has_room("summary", length(&report.summary)) {
        report.summary.clear();
    }
    if !left_out.is_empty() {
        let message = format!(
            "the reports of this run's jobs are larger than {} MiB together: the {} of this one are left out; the log has \
             what its steps printed",
            MAX_REPORTS >> 20,
            left_out.join(", ")
        );
        report.annotations.push(Annotation { level: "warning".into(), message, ..Annotation::default() });
    }
    bytes
}

/// Bytes as it is stored.
fn length(part: &impl Serialize) -> u64 {
    serde_json::to_string(part).map_or(0, |text| text.len() as u64)
}
