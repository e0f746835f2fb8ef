//! Who does: takes jobs from a coordinator and runs their steps.
//!
//! A job meets the modules in this order: [`link`] receives it, [`job`] runs it, [`github`] turns each step into a
//! command, [`sandbox`] runs the command, [`log`] masks, numbers and ships what it printed. [`fetch`] brings images
//! and repositories. [`config`] is what an operator may set.

pub mod config;
pub mod fetch;
pub mod github;
pub mod job;
pub mod link;
pub mod log;
pub mod sandbox;
