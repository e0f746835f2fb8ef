//! Ends every process below this one.

use std::time::{Duration, Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{process::Processes, process_tree::below};

/// Sends TERM, waits for `grace`, then KILLs until nothing is left.
pub(crate) fn all(processes: &Processes, grace: Duration) {
    if !grace.is_zero() {
        send(Signal::SIGTERM);
        processes.wait_until_none(Instant::now() + grace);
    }
    while !processes.wait_until_none(Instant::now() + Duration::from_millis(20)) {
        send(Signal::SIGKILL);
    }
}

fn send(signal: Signal) {
    let targets = if std::process::id() == 1 { vec![Pid::from_raw(-1)] } else { descendants() };
    for target in targets {
        // A process that ended meanwhile is what we want.
        let _ = kill(target, signal);
    }
}

/// Processes below this one, whatever group or session they moved to.
fn descendants() -> Vec<Pid> {
    below(Pid::this()).into_iter().map(|process| process.pid).collect()
}
