//! Runs as lists show them, with the names of their authors.

use super::{Web, dto::RunSummary, people};
use store::Summary;

/// Gives runs the names of their authors.
pub(super) fn summaries(web: &Web, found: Vec<Summary>) -> Vec<RunSummary> {
    let mut keys: Vec<&str> = found.iter().map(|run| run.actor.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    let names = web.control.names(&keys);
    let named = |run: Summary| {
        let run = RunSummary::from(run);
        let actor_name = names.get(&run.actor).cloned();
        RunSummary { actor_name: actor_name.unwrap_or_else(|| people::short_npub(&run.actor)), ..run }
    };
    found.into_iter().map(named).collect()
}
