//! Who decides: job events become runs, runs become leases, results become signed events.
//!
//! The modules in the order in which a job event meets them. Stages know `config`, `store`, `run`, `group` and the pure
//! crates, never each other; [`serve`] joins them. Start reading there.

pub mod serve;

pub mod blob;
pub mod config;
pub mod dispatch;
pub mod group;
pub mod hook;
pub mod log;
pub mod network;
pub mod nostr;
pub mod origin;
pub mod plan;
pub mod run;
pub mod schedule;
pub mod source;
pub mod store;
pub mod web;
