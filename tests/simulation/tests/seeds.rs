//! A few seeds; `make simulate` does many.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use longshore_simulation::{Sabotage, simulate};

#[test]
fn a_pool_keeps_its_promises_while_its_network_disk_clock_and_processes_fail() {
    for seed in 1..=10 {
        let summary = simulate(seed, None).unwrap_or_else(|violation| panic!("SEED={seed}: {violation}"));
        assert!(summary.restarts >= 2 && summary.faults >= 5 && summary.runs >= 10, "SEED={seed}: {summary:?}");
        assert!(summary.simulated >= Duration::from_secs(3600), "SEED={seed}: {summary:?}");
    }
}

#[test]
fn a_seed_repeats_exactly() {
    for seed in 11..=13 {
        assert_eq!(simulate(seed, None), simulate(seed, None), "SEED={seed}");
    }
}

#[test]
fn each_fault_put_in_on_purpose_is_found() {
    for sabotage in [Sabotage::NoFencing, Sabotage::OutboxRowDropped, Sabotage::LeaseNotRenewed] {
        assert!((1..=1000).any(|seed| simulate(seed, Some(sabotage)).is_err()), "{sabotage:?} is not found");
    }
}
