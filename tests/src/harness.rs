//! Real parts for tests: git repositories behind smart HTTP, relays, keys, processes.

pub mod git;
