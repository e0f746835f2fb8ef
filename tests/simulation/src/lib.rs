//! A whole pool in one thread under simulated time: the real domain, store, run service and dispatch, with a network, a
//! disk, clocks and processes that fail as a seed decides.
//!
//! Everything random comes from the seed, time advances only when nothing is left to do, and the store's statements run on
//! the calling thread, so a seed that fails repeats exactly. What is simulated: `clock` (wall time with steps), `disk`
//! (full, slow, gone with its process), `network` (delay, cut, silence), `relay` (duplicates, lost answers, absence) and
//! `worker` (a process with a journal). `coordinator` is one life of the real thing between them, `scenario` what happens
//! to all of it in a simulated hour, and `invariants` what must hold.

mod clock;
mod coordinator;
mod disk;
mod invariants;
mod network;
mod observer;
mod random;
mod relay;
mod sabotage;
mod scenario;
mod worker;
mod workload;

use observer::Observer;
pub use observer::Summary;

/// A fault put into the product on purpose: the simulation has to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// A report counts whatever attempt it is of.
    NoFencing,
    /// Some events to publish are never stored.
    OutboxRowDropped,
    /// Leases are not renewed.
    LeaseNotRenewed,
}

/// Runs one seed, and gives everything that happened as text besides.
///
/// # Errors
/// As [`simulate`], with the text before it.
pub fn explain(seed: u64, sabotage: Option<Sabotage>) -> Result<(String, Summary), String> {
    let observer = Observer::with_lines();
    let result = observe(seed, sabotage, observer.clone());
    let text = observer.text();
    match result {
        Ok(summary) => Ok((text, summary)),
        Err(violation) => Err(format!("{text}{violation}")),
    }
}

/// Runs one seed. The error says which invariant was broken, and how.
///
/// # Errors
/// An invariant was broken.
pub fn simulate(seed: u64, sabotage: Option<Sabotage>) -> Result<Summary, String> {
    observe(seed, sabotage, Observer::default())
}

fn observe(seed: u64, sabotage: Option<Sabotage>, observer: Observer) -> Result<Summary, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    // Waits between tries carry jitter, which is drawn from this thread's generator.
    fastrand::seed(seed);
    let result = runtime.block_on(scenario::run(seed, sabotage, observer));
    // Tasks of processes that were killed may still wait for a disk that is gone.
    runtime.shutdown_background();
    result
}
