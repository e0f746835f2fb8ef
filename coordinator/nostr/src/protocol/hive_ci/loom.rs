//! Plain Loom jobs (a 5100 without a run): recognised, and refused with a reason.

use nostr::Event;

use crate::tags;

/// Why a job without a run is not run here.
pub(super) fn refusal(job: &Event) -> String {
    let command = tags::first(job, "cmd").unwrap_or_default();
    let command: String = command.chars().filter(|c| !c.is_control()).take(40).collect();
    format!(
        "this pool runs workflows, not plain Loom commands (`{command}`): send the job with an `e` tag that names its \
         Hive CI run (kind 5401)"
    )
}
