//! Who asks a run to end: Ctrl-C, TERM, and HUP of a terminal that is closed.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals, heard from when this is made.
pub(super) struct Ending {
    interrupt: Signal,
    terminate: Signal,
    /// `None`: `nohup` had this process ignore it.
    hang_up: Option<Signal>,
    /// Who asked and was not told of yet.
    heard: Option<&'static str>,
}

impl Ending {
    pub(super) fn hear() -> Result<Self> {
        let hear = |kind, name: &str| signal(kind).with_context(|| format!("{name} can't be heard"));
        Ok(Self {
            interrupt: hear(SignalKind::interrupt(), "SIGINT")?,
            terminate: hear(SignalKind::terminate(), "SIGTERM")?,
            hang_up: if ignores_hang_up() { None } else { Some(hear(SignalKind::hangup(), "SIGHUP")?) },
            heard: None,
        })
    }

    /// What asks next.
    pub(super) async fn asked(&mut self) -> &'static str {
        match self.heard.take() {
            Some(by) => by,
            None => self.signalled().await,
        }
    }

    /// Brings something to its end, though an end be asked for meanwhile: cut off, it would leave what it made.
    /// [`Self::asked`] tells of that afterwards. `None`: it was asked for twice.
    pub(super) async fn through<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                by = self.signalled() => match self.heard.replace(by) {
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
