//! A bar on standard error that grows with what arrives, and is gone at the end; nothing where that is no terminal.

use console::Term;

/// Cells of the bar.
const CELLS: u64 = 24;
const MIB: f64 = 1_048_576.0;

/// Something that takes its time to arrive.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    /// Bytes that will come, where they are known.
    all: Option<u64>,
    terminal: Term,
    shown: String,
}

impl Progress {
    pub(crate) fn of(what: &'static str, all: Option<u64>) -> Self {
        Self { what, all, terminal: Term::stderr(), shown: String::new() }
    }

    /// So many bytes are here.
    pub(crate) fn at(&mut self, bytes: u64) {
        let line = line(self.what, bytes, self.all);
        if self.terminal.is_term() && line != self.shown {
            // A terminal that is gone has nobody to tell.
            let _ = self.terminal.clear_line().and_then(|()| self.terminal.write_str(&line));
            self.shown = line;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.shown.is_empty() {
            let _ = self.terminal.clear_line();
        }
    }
}

fn line(what: &str, bytes: u64, all: Option<u64>) -> String {
    let mib = |bytes: u64| bytes as f64 / MIB;
    let Some(all) = all.filter(|all| *all > 0) else { return format!("{what} {:.1} MiB", mib(bytes)) };
    let full = (bytes.saturating_mul(CELLS) / all).min(CELLS);
    let cells: String = (0..CELLS).map(|cell| if cell < full { '█' } else { '░' }).collect();
    format!("{what} {cells} {:.1} of {:.1} MiB", mib(bytes), mib(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_what_arrived_of_what_will() {
        let full = |bytes, all| line("log", bytes, all).chars().filter(|cell| *cell == '█').count();
        assert_eq!([0, 2 << 20, 4 << 20, 9 << 20].map(|bytes| full(bytes, Some(4 << 20))), [0, 12, 24, 24]);
        assert!(line("log", 1 << 20, Some(4 << 20)).ends_with(" 1.0 of 4.0 MiB"));
        assert_eq!(line("log", 3 << 19, None), "log 1.5 MiB");
        assert_eq!(line("log", 0, Some(0)), "log 0.0 MiB");
    }
}
