//! Relays, intake and publishing: the only place that knows relays.
//!
//! [`protocol`] says what a family of events is to the rest; each family is one module in it. [`intake`] brings events to
//! it, [`outbox`] makes and signs what it answers, [`publish`] sends that.

pub mod advertise;
pub mod delivery;
pub mod history;
pub mod intake;
pub mod outbox;
pub mod policy;
pub mod protocol;
pub mod publish;
pub mod relays;
pub mod remote_signer;
pub mod repository_events;
pub mod tags;

/// Where the time comes from: milliseconds since the Unix epoch.
pub type Clock = fn() -> domain::run::Millis;
