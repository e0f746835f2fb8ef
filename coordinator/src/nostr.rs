//! Relays, intake and publishing: the only place that knows relays.
//!
//! Each dialect is one module with two pure functions: event → request ([`hive_ci::request`]) and run update →
//! unsigned events ([`hive_ci::report`]). [`intake`] brings events to the dialects, [`publish`] takes theirs away.

pub mod hive_ci;
pub mod loom;
pub mod tags;
