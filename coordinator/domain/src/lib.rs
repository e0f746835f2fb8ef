//! The pure domain of a coordinator: runs, concurrency groups, and which worker gets which job.
//!
//! No I/O, no clock, no randomness, and no knowledge of configuration, store or Nostr: time and ids are arguments,
//! effects are values that the caller writes and carries out.

pub mod group;
pub mod id;
pub mod run;
pub mod schedule;
