//! The system from outside: what its tests, demo and benchmarks share.

pub mod harness;
