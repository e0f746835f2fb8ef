//! Wall time of the coordinator's machine: simulated time with the steps that an operator or NTP makes.

use std::{cell::Cell, time::Duration};

use domain::run::Millis;
use tokio::time::Instant;

/// When every simulation begins.
const EPOCH: Millis = 1_700_000_000_000;

thread_local! {
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
    static STEPPED: Cell<i64> = const { Cell::new(0) };
}

/// Begins a simulation on this thread.
pub(crate) fn start() {
    START.set(Some(Instant::now()));
    STEPPED.set(0);
}

/// Unix milliseconds, as the machine shows them.
pub(crate) fn now() -> Millis {
    let elapsed = Millis::try_from(elapsed().as_millis()).unwrap_or(Millis::MAX);
    EPOCH.saturating_add(elapsed).saturating_add_signed(STEPPED.get())
}

/// Simulated time since the beginning.
pub(crate) fn elapsed() -> Duration {
    START.get().map_or(Duration::ZERO, |start| start.elapsed())
}

/// Sets the wall clock forward or back by so many milliseconds.
pub(crate) fn step(millis: i64) {
    STEPPED.set(STEPPED.get().saturating_add(millis));
}
