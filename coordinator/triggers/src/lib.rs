//! What happened to a repository, and which workflows that starts. Pure.
//!
//! [`ref_changes`] compares a repository's state with the one that was known, [`pull_request`] what is known of a pull
//! request, [`decision`] says which workflow files that starts, [`skip`] reads what a commit's message says about it, and
//! [`cron`] when a schedule's time comes. [`outsider_rates`] bounds what strangers have looked at.

pub mod cron;
pub mod decision;
pub mod outsider_rates;
pub mod pull_request;
pub mod ref_changes;
pub mod skip;
