//! Signals that end a run: INT (Ctrl-C), TERM, and HUP of a terminal that is closed.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals, listened to from the moment this is made.
pub(super) struct InterruptSignals {
    interrupt: Signal,
    terminate: Signal,
    /// `None`: `nohup` had this process ignore it.
    hang_up: Option<Signal>,
    /// A signal that came while [`Self::finish`] ran.
    pending: Option<&'static str>,
}

impl InterruptSignals {
    pub(super) fn listen() -> Result<Self> {
        let listen = |kind, name: &str| signal(kind).with_context(|| format!("{name} can't be listened to"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            hang_up: if ignores_hang_up() { None } else { Some(listen(SignalKind::hangup(), "SIGHUP")?) },
            pending: None,
        })
    }

    /// Whether a signal came that nobody has looked at yet.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> &'static str {
        match self.pending.take() {
            Some(by) => by,
            None => self.signalled().await,
        }
    }

    /// Completes something that would leave things behind if it were cut off, in spite of a signal.
    /// [`Self::next`] returns that request afterwards. `None`: a second signal came.
    pub(super) async fn finish<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                by = self.signalled() => match self.pending.replace(by) {
                    None => tracing::warn!("{by}: ending in order; once more, and it ends at once"),
                    Some(_) => return None,
                }
            }
        }
    }

    async fn signalled(&mut self) -> &'static str {
        let Self { interrupt, terminate, hang_up, .. } = self;
        let hung_up = async {
            match hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => "Ctrl-C",
            _ = terminate.recv() => "TERM",
            _ = hung_up => "HUP",
        }
    }
}

fn ignores_hang_up() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| is_first_ignored(&status))
}

/// Whether the mask of ignored signals, in what Linux says of a process, has the first, HUP.
fn is_first_ignored(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_nohup_a_closed_terminal_does_not_end_the_run() {
        assert!(is_first_ignored("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!is_first_ignored("SigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n"));
    }
}
