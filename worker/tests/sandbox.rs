//! The sandbox against a real Docker engine: what a step can do, what it cannot, and what it costs its neighbours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "sandbox/attacks.rs"]
mod attacks;
#[path = "sandbox/disk.rs"]
mod disk;
#[path = "sandbox/fixture.rs"]
mod fixture;
#[path = "sandbox/host.rs"]
mod host;
#[path = "sandbox/images.rs"]
mod images;
#[path = "sandbox/registry.rs"]
mod registry;
#[path = "sandbox/steps.rs"]
mod steps;
