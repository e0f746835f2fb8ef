//! Keeps a tree at the bottom of a terminal, and lines of output above it.

use std::io;

use console::Term;

use super::tree::Tree;

/// Lines that wait are shown at once from this length, in bytes.
const PENDING: usize = 64 * 1024;
/// Lines of the terminal that the tree leaves to the output.
const LEFT: usize = 3;

/// A terminal with a tree on it.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: Term,
    /// What is shown below the output.
    pub(crate) tree: Tree,
    /// Lines of the tree that stand on the terminal.
    drawn: usize,
    /// Output that is not shown yet.
    pending: String,
}

impl Screen {
    /// The terminal on standard output; `None`: it is none, or one that cannot go back to a line.
    pub(crate) fn open() -> Option<Self> {
        let terminal = Term::buffered_stdout();
        let simple = std::env::var("TERM").is_ok_and(|name| name == "dumb");
        (terminal.is_term() && !simple).then(|| Self {
            terminal,
            tree: Tree::default(),
            drawn: 0,
            pending: String::new(),
        })
    }

    /// Shows a line above the tree, with the next drawing.
    pub(crate) fn print_above(&mut self, line: &str, now: u64) {
        self.pending.push_str(line);
        self.pending.push('\n');
        if self.pending.len() > PENDING {
            self.draw(now);
        }
    }

    /// Draws what changed.
    pub(crate) fn draw(&mut self, now: u64) {
        let (height, width) = self.terminal.size();
        let room = usize::from(height).saturating_sub(LEFT).max(1);
        let lines = self.tree.lines(usize::from(width), room, now);
        // A terminal that is gone has nobody to tell.
        let _ = self.show(&lines);
    }

    /// The last drawing, whatever its height: nothing is drawn over it.
    pub(crate) fn leave(&mut self, now: u64) {
        let lines = self.tree.last_lines(usize::from(self.terminal.size().1), now);
        let _ = self.show(&lines);
        self.drawn = 0;
    }

    fn show(&mut self, lines: &[String]) -> io::Result<()> {
        self.terminal.clear_last_lines(self.drawn)?;
        self.terminal.write_str(&std::mem::take(&mut self.pending))?;
        for line in lines {
            self.terminal.write_line(line)?;
        }
        self.drawn = lines.len();
        self.terminal.flush()
    }
}
