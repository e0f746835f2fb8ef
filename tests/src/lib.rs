//! The system from outside: what its tests, demo, conformance runs and benchmarks share.

pub mod bench;
pub mod clients;
pub mod conformance;
pub mod flood;
pub mod harness;
pub mod kills;
pub mod oracle;
