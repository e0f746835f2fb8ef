//! Follows the output of one process: what of it is a line that the language reads, and what may be shown already.

use memchr::{memchr, memrchr};

use crate::{
    dialect::{
        line_reader::{LONGEST_REJOINED, LineReader},
        step_values::StepValues,
    },
    log::mask::{self, Masker},
    sandbox::OutputStream,
};

/// Longest line that is still read as a command, in bytes.
const COMMAND_LIMIT: usize = 1 << 20;
/// A started line that is no command is passed on from this length, in bytes.
const PIECE: usize = 64 * 1024;

#[derive(Default)]
struct StreamState {
    /// A started line, not yet passed on.
    started: Vec<u8>,
    /// The start of the current line was passed on: its rest is plain.
    inside: bool,
    /// What of the current line was passed on and is still read at its end.
    passed: Vec<u8>,
    /// Text that may be shown once it is masked.
    plain: Vec<u8>,
    mask: mask::MaskStream,
    /// Masked text.
    out: Vec<u8>,
    /// `out` is shown though its last line has no end.
    prompted: bool,
}

pub(super) struct OutputParser {
    stdout: StreamState,
    stderr: StreamState,
    reader: Box<dyn LineReader>,
    workspace: String,
}

impl OutputParser {
    /// Follows a process whose lines go to a reader; files that it wants are named as seen from the workspace.
    pub(super) fn new(reader: Box<dyn LineReader>, workspace: String) -> Self {
        Self { stdout: StreamState::default(), stderr: StreamState::default(), reader, workspace }
    }

    /// Takes output. Gives how much of it: less than all where a file is wanted first, see [`Self::wanted`]. What a line
    /// of it has masked holds for all of it: masks cost the same whether there is one or a thousand of them.
    pub(super) fn take(&mut self, stream: OutputStream, data: &[u8], masker: &Masker) -> usize {
        let taken = self.read(stream, data, masker);
        self.side(stream).0.cover(masker);
        taken
    }

    fn read(&mut self, stream: OutputStream, data: &[u8], masker: &Masker) -> usize {
        let (mut rest, mut looked) = (data, self.reader.reads_all());
        while !rest.is_empty() && self.reader.wanted_file().is_none() {
            if self.reader.withholds() {
                self.side(stream).0.started.clear();
                return data.len();
            }
            let all = self.reader.reads_all();
            let (side, reader) = self.side(stream);
            // Whole lines without anything to read go at once: looking at each costs more than all the rest.
            if !looked && !side.inside && side.started.is_empty() {
                looked = true;
                let (lines, after) = rest.split_at(memrchr(b'\n', rest).map_or(0, |at| at + 1));
                if !lines.is_empty() && reader.skips(lines) {
                    side.show(lines);
                    rest = after;
                    continue;
                }
            }
            let (part, after) = rest.split_at(memchr(b'\n', rest).map_or(rest.len(), |at| at + 1));
            rest = after;
            let ended = part.ends_with(b"\n");
            if side.inside {
                side.inside = !ended;
                side.show(part);
                self.passed(stream, part, ended);
                continue;
            }
            if side.started.is_empty() && ended && !all && reader.skips_line(part) {
                side.show(part);
                continue;
            }
            side.started.extend_from_slice(part);
            if ended {
                let line = std::mem::take(&mut side.started);
                self.line(stream, &line, masker);
            } else {
                side.pass_on(reader.as_ref(), PIECE);
            }
        }
        data.len() - rest.len()
    }

    /// A file that is wanted before more is taken.
    pub(super) fn wanted(&self) -> Option<&str> {
        self.reader.wanted_file()
    }

    pub(super) fn workspace(&self) -> &str {
        &self.workspace
    }

    /// Gives the reader the file that it wanted, or why there is none.
    pub(super) fn give_file(&mut self, content: Result<&[u8], String>, masker: &Masker) {
        if let Some(said) = self.reader.take_file(content) {
            self.stdout.show(said.as_bytes());
            self.stdout.cover(masker);
        }
    }

    /// The prompt timer: what was started is shown as far as it can be no command and no secret.
    pub(super) fn prompt(&mut self, masker: &Masker) {
        for side in [&mut self.stdout, &mut self.stderr] {
            if !self.reader.withholds() {
                side.pass_on(self.reader.as_ref(), 0);
            }
            side.cover(masker);
            side.prompted = true;
        }
    }

    /// Whether text waits that the prompt timer may show.
    pub(super) fn waits(&self) -> bool {
        [&self.stdout, &self.stderr]
            .into_iter()
            .any(|side| !side.out.is_empty() || (!side.started.is_empty() && !self.reader.may_begin(&side.started)))
    }

    /// The process ended.
    pub(super) fn finish(&mut self, masker: &Masker) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let line = std::mem::take(&mut self.side(stream).0.started);
            if !line.is_empty() && !self.reader.withholds() {
                self.line(stream, &line, masker);
            }
            self.passed(stream, b"", true);
            let side = self.side(stream).0;
            side.cover(masker);
            let StreamState { mask, out, prompted, .. } = side;
            mask.finish(masker, out);
            *prompted = true;
        }
    }

    /// Text that may be shown now.
    pub(super) fn ready(&mut self) -> Vec<(OutputStream, Vec<u8>)> {
        let mut ready = Vec::new();
        for (side, stream) in [(&mut self.stdout, OutputStream::Stdout), (&mut self.stderr, OutputStream::Stderr)] {
            let upto = if side.prompted || side.out.len() >= PIECE {
                side.out.len()
            } else {
                memrchr(b'\n', &side.out).map_or(0, |at| at + 1)
            };
            side.prompted = false;
            if upto > 0 {
                let rest = side.out.split_off(upto);
                ready.push((stream, std::mem::replace(&mut side.out, rest)));
            }
        }
        ready
    }

    /// What the process said.
    pub(super) fn into_values(self) -> StepValues {
        self.reader.finish()
    }

    /// More of a line whose beginning was passed on. At its end it is still read.
    fn passed(&mut self, stream: OutputStream, part: &[u8], ended: bool) {
        let (side, reader) = self.side(stream);
        if side.passed.is_empty() {
            return;
        }
        if side.passed.len() <= LONGEST_REJOINED {
            side.passed.extend_from_slice(part);
        }
        if ended {
            let line = std::mem::take(&mut side.passed);
            reader.shown_line(&String::from_utf8_lossy(&line));
        }
    }

    fn side(&mut self, stream: OutputStream) -> (&mut StreamState, &mut Box<dyn LineReader>) {
        let side = match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        };
        (side, &mut self.reader)
    }

    fn line(&mut self, stream: OutputStream, line: &[u8], masker: &Masker) {
        let (side, reader) = self.side(stream);
        let text = String::from_utf8_lossy(line);
        match reader.line(text.trim_end_matches(['\r', '\n']), masker) {
            Some(said) => side.show(said.as_bytes()),
            None => side.show(line),
        }
    }
}

impl StreamState {
    fn show(&mut self, text: &[u8]) {
        self.plain.extend_from_slice(text);
    }

    /// Masks what is to be shown.
    fn cover(&mut self, masker: &Masker) {
        if !self.plain.is_empty() {
            self.mask.push(masker, &self.plain, &mut self.out);
            self.plain.clear();
        }
    }

    /// Passes the started line on unless it may be a command, from a length on.
    fn pass_on(&mut self, reader: &dyn LineReader, from: usize) {
        let command = reader.may_begin(&self.started) && self.started.len() < COMMAND_LIMIT;
        if self.started.is_empty() || self.started.len() < from || command {
            return;
        }
        let started = std::mem::take(&mut self.started);
        self.inside = true;
        self.show(&started);
        if reader.reads_all() {
            self.passed = started;
        }
    }
}
