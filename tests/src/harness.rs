//! Real parts for tests: git repositories behind smart HTTP, relays, keys, clients, the product's processes.

pub mod browser;
pub mod bunker;
pub mod client;
pub mod engine;
pub mod exec;
pub mod git;
pub mod pool;
pub mod process;
pub mod raw_relay;
pub mod toolkit;
pub mod world;
