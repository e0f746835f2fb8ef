//! States of runs, jobs and steps as pages draw them. `assets/dom.js` has the same table.

/// The drawing for a state, by its name in `templates/icons.svg`.
pub(super) fn icon(word: &str) -> &'static str {
    match word {
        "success" | "delivered" | "connected" => "success",
        "failure" | "given_up" | "error" | "lost" => "failure",
        "cancelled" => "cancelled",
        "skipped" | "away" => "skipped",
        "running" | "active" | "cancelling" | "sealing" | "planning" => "running",
        "waiting" | "held" | "draining" => "waiting",
        "warning" => "warning",
        "notice" => "notice",
        _ => "queued",
    }
}

/// What started a run, for people.
pub(super) fn event(name: &str) -> &str {
    match name {
        "workflow_dispatch" => "started by hand",
        "schedule" => "on a schedule",
        "pull_request" | "pull_request_target" => "pull request",
        name => name,
    }
}

/// The picture in a browser's tab, by its name in `assets`, and the sign before the title.
pub(super) fn tab(word: &str) -> (&'static str, &'static str) {
    match icon(word) {
        "success" => ("icon-success", "✓"),
        "failure" => ("icon-failure", "✗"),
        "running" => ("icon-running", "●"),
        "cancelled" | "skipped" => ("icon-cancelled", "⊘"),
        _ => ("icon-waiting", "○"),
    }
}
