//! What happened to a repository, and which workflows that starts. Pure.
//!
//! [`ref_changes`] compares a repository's state with the one that was known, [`push`] decides which workflow files a
//! change of a ref starts, and [`skip`] reads what a commit's message says about that.

pub mod push;
pub mod ref_changes;
pub mod skip;
