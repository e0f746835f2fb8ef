//! What authors write. Workflow text goes in; plans, values and diagnostics come out.
//!
//! Pure: no I/O, no clock, no async, and no panic on any input. Read in this order: [`yaml`] reads text into a tree
//! with positions, [`github`] checks it and makes a [`plan`], [`expression`] evaluates what stands in `${{ }}`, and
//! [`diagnostic`] tells an author what is wrong and where. [`dialect`] is how other packages reach a language.

pub mod diagnostic;
pub mod dialect;
pub mod expression;
pub mod git_ref;
pub mod github;
pub mod leg_filter;
pub mod name_pattern;
pub mod plan;
pub mod spelling;
pub mod time;
pub mod yaml;
