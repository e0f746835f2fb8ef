//! Ends every process below this one.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::process::Processes;

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
    let parents: Vec<(i32, i32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name in parentheses may hold anything, so count from its end: state, then parent.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![std::process::id().cast_signed()];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.into_iter().skip(1).map(Pid::from_raw).collect()
}
