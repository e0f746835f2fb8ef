//! What happened to a repository, and which workflows that starts. Pure.
//!
//! [`ref_changes`] compares a repository's state with the one that was known, [`push`] decides which workflow files a
//! change of a ref starts, [`skip`] reads what a commit's message says about that, and [`cron`] when a schedule's time comes.

pub mod cron;
pub mod push;
pub mod ref_changes;
pub mod skip;
