//! Relays, intake and publishing: the only place that knows relays.
//!
//! Each dialect is one module with two pure functions: event → request ([`hive_ci::request`]) and run update →
//! unsigned events ([`hive_ci::report`]). [`intake`] brings events to the dialects, [`publish`] takes theirs away.

pub mod advertise;
pub mod history;
pub mod hive_ci;
pub mod intake;
pub mod loom;
pub mod policy;
pub mod publish;
pub mod relays;
pub mod routes;
pub mod signers;
pub mod tags;

/// Where the time comes from: milliseconds since the Unix epoch.
pub type Clock = fn() -> domain::run::Millis;
