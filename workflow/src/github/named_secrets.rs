//! Which secrets a job may use, found before anything is evaluated.

use indexmap::IndexMap;

use crate::expression::{self, NamedEntries};
use crate::plan::{Job, JobContent, Plan};

/// Calls within calls that are looked through for names.
const DEEPEST: usize = 10;

/// Secrets that a job of a file names, those that the file gives to every job among them, and of what it calls where it
/// hands all on.
pub(crate) fn of(file: &Plan, job: &Job, called: &IndexMap<String, Plan>) -> NamedEntries {
    within(file, job, called, 0)
}

fn within(file: &Plan, job: &Job, called: &IndexMap<String, Plan>, depth: usize) -> NamedEntries {
    let mut named = NamedEntries::default();
    for tree in [serde_json::to_value(job), serde_json::to_value(&file.env)].iter().flatten() {
        named.extend(expression::named_in(tree, "secrets"));
    }
    if let JobContent::Call { uses, secrets: Some(secrets), .. } = &job.work
        && *secrets == "inherit"
    {
        match called.get(uses).filter(|_| depth < DEEPEST) {
            Some(inner) => inner.jobs.values().for_each(|job| named.extend(within(inner, job, called, depth + 1))),
            None => named = NamedEntries::All,
        }
    }
    named
}
