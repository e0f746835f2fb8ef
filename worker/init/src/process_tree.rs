//! Processes below one another, as /proc tells of them.

use std::fs;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A process, told from a later one of the same number by its start.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownProcess {
    pub(crate) pid: Pid,
    parent: Pid,
    /// Ticks since the machine started.
    started: u64,
}

impl KnownProcess {
    /// As it stands in /proc now.
    fn read(pid: Pid) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything, so count from its end: state, then parent.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let parent = Pid::from_raw(fields.nth(1)?.parse().ok()?);
        Some(Self { pid, parent, started: fields.nth(17)?.parse().ok()? })
    }

    /// Sends it a signal, if it lives.
    pub(crate) fn signal(&self, signal: Signal) {
        if Self::read(self.pid).is_some_and(|found| found.started == self.started) {
            let _ = kill(self.pid, signal);
        }
    }
}

/// Processes below one, whatever group or session they moved to. What lost its parent is none of them.
pub(crate) fn below(root: Pid) -> Vec<KnownProcess> {
    let all: Vec<KnownProcess> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| KnownProcess::read(Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?)))
        .collect();
    let mut found: Vec<KnownProcess> = Vec::new();
    let mut parent = root;
    let mut next = 0;
    loop {
        found.extend(all.iter().filter(|process| process.parent == parent));
        let Some(process) = found.get(next) else { return found };
        parent = process.pid;
        next += 1;
    }
}
