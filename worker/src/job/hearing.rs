//! Listens to one process: its lines, the commands among them, and what of it may be shown already.

use indexmap::IndexMap;
use memchr::{memchr, memmem, memrchr};
use workflow::plan::Annotation;

use crate::{
    github::commands::{Command, Gate, Line, may_become},
    log::mask::{self, Added, Masker},
    sandbox::Stream,
};

/// Longest line that is still read as a command, in bytes.
const COMMAND_LIMIT: usize = 1 << 20;
/// Annotations kept for one process.
const ANNOTATIONS: usize = 50;
/// Outputs and state set by commands of one process, in bytes.
const VALUES: usize = 1 << 20;
/// A started line that is no command is passed on from this length, in bytes.
const PIECE: usize = 64 * 1024;

/// What a process said by commands.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) outputs: IndexMap<String, String>,
    pub(super) state: IndexMap<String, String>,
    pub(super) annotations: Vec<Annotation>,
    /// A command could not be carried out: the step fails.
    pub(super) failed: bool,
}

#[derive(Default)]
struct Side {
    /// A started line, not yet passed on.
    started: Vec<u8>,
    /// The start of the current line was passed on: its rest is plain.
    inside: bool,
    mask: mask::Stream,
    /// Masked text.
    out: Vec<u8>,
    /// `out` is shown though its last line has no end.
    prompted: bool,
}

pub(super) struct Hearing {
    sides: [Side; 2],
    gate: Gate,
    heard: Heard,
    debug: bool,
    echo: bool,
    values: usize,
    deprecated: bool,
}

impl Hearing {
    pub(super) fn new(debug: bool) -> Self {
        Self {
            sides: Default::default(),
            gate: Gate::default(),
            heard: Heard::default(),
            debug,
            echo: debug,
            values: 0,
            deprecated: false,
        }
    }

    pub(super) fn take(&mut self, stream: Stream, data: &[u8], masker: &Masker) {
        let (mut rest, mut looked) = (data, false);
        while !rest.is_empty() {
            let side = self.side(stream);
            // Whole lines without anything like a command go at once: looking at each costs more than all the rest.
            if !looked && !side.inside && side.started.is_empty() {
                looked = true;
                let (lines, after) = rest.split_at(memrchr(b'\n', rest).map_or(0, |at| at + 1));
                if !lines.is_empty() && memmem::find(lines, b"::").is_none() && memmem::find(lines, b"##[").is_none() {
                    side.show(masker, lines);
                    rest = after;
                    continue;
                }
            }
            let (part, after) = rest.split_at(memchr(b'\n', rest).map_or(rest.len(), |at| at + 1));
            rest = after;
            let ended = part.ends_with(b"\n");
            if side.inside || (side.started.is_empty() && ended && !suspicious(part)) {
                side.inside = !ended;
                side.show(masker, part);
                continue;
            }
            side.started.extend_from_slice(part);
            if ended {
                let line = std::mem::take(&mut side.started);
                self.line(stream, &line, masker);
            } else {
                side.pass_on(masker, PIECE);
            }
        }
    }

    /// The clock: what was started is shown as far as it can be no command and no secret.
    pub(super) fn prompt(&mut self, masker: &Masker) {
        for side in &mut self.sides {
            side.pass_on(masker, 0);
            side.prompted = true;
        }
    }

    /// Whether text waits that the clock may show.
    pub(super) fn waits(&self) -> bool {
        self.sides.iter().any(|side| !side.out.is_empty() || (!side.started.is_empty() && !may_become(&side.started)))
    }

    /// The process ended.
    pub(super) fn finish(&mut self, masker: &Masker) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = std::mem::take(&mut self.side(stream).started);
            if !line.is_empty() {
                self.line(stream, &line, masker);
            }
            let side = self.side(stream);
            let Side { mask, out, .. } = side;
            mask.finish(out);
            side.prompted = true;
        }
    }

    /// Text that may be shown now.
    pub(super) fn ready(&mut self) -> Vec<(Stream, Vec<u8>)> {
        let mut ready = Vec::new();
        for (side, stream) in self.sides.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
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

    pub(super) fn into_heard(self) -> Heard {
        self.heard
    }

    fn side(&mut self, stream: Stream) -> &mut Side {
        let [stdout, stderr] = &mut self.sides;
        match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        }
    }

    fn line(&mut self, stream: Stream, line: &[u8], masker: &Masker) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\r', '\n']);
        match self.gate.read(text) {
            Line::Output | Line::Switched => self.side(stream).show(masker, line),
            Line::BadToken => self.refuse(
                stream,
                masker,
                "stop-commands needs a token that is not empty and no command's name, best a random one",
            ),
            Line::Command(command) => self.command(stream, text, command, masker),
        }
    }

    fn say(&mut self, stream: Stream, masker: &Masker, text: &str) {
        self.side(stream).show(masker, format!("{text}\n").as_bytes());
    }

    fn refuse(&mut self, stream: Stream, masker: &Masker, why: &str) {
        self.heard.failed = true;
        self.annotate(Annotation { level: "error".into(), message: why.to_owned(), ..Annotation::default() });
        self.say(stream, masker, &format!("##[error]{why}"));
    }

    fn annotate(&mut self, annotation: Annotation) {
        if self.heard.annotations.len() < ANNOTATIONS {
            self.heard.annotations.push(annotation);
        }
    }

    fn command(&mut self, stream: Stream, line: &str, command: Command, masker: &Masker) {
        let name = command.name.to_ascii_lowercase();
        if self.echo
            && !matches!(name.as_str(), "add-mask" | "echo" | "debug" | "group" | "error" | "warning" | "notice")
        {
            self.say(stream, masker, line);
        }
        match name.as_str() {
            "add-mask" => match masker.add(&command.data) {
                Added::Masked => {}
                Added::Empty => self.say(stream, masker, "##[warning]add-mask without a value masks nothing"),
                Added::TooShort => {
                    self.say(stream, masker, "##[warning]add-mask: values of one or two bytes are not masked");
                }
            },
            "group" => self.say(stream, masker, &format!("##[group]{}", command.data)),
            "endgroup" => self.say(stream, masker, "##[endgroup]"),
            "debug" if self.debug => self.say(stream, masker, &format!("##[debug]{}", command.data)),
            "error" | "warning" | "notice" => {
                self.say(stream, masker, &format!("##[{name}]{}", command.data));
                self.annotate(annotation(name, command));
            }
            "echo" => self.echo = command.data.trim().eq_ignore_ascii_case("on"),
            "set-output" | "save-state" => self.value(stream, &name, command, masker),
            "set-env" | "add-path" => {
                let file = if name == "set-env" { "GITHUB_ENV" } else { "GITHUB_PATH" };
                self.refuse(
                    stream,
                    masker,
                    &format!("the command {name} is disabled: write to the file ${file} instead"),
                );
            }
            // Debug lines that are off, problem matchers and paths of repositories.
            _ => {}
        }
    }

    fn value(&mut self, stream: Stream, name: &str, command: Command, masker: &Masker) {
        let file = if name == "set-output" { "GITHUB_OUTPUT" } else { "GITHUB_STATE" };
        if !self.deprecated {
            self.deprecated = true;
            self.say(
                stream,
                masker,
                &format!("##[warning]the command {name} is deprecated: write to the file ${file} instead"),
            );
        }
        let Some(key) = command.properties.get("name").cloned() else {
            return self.refuse(stream, masker, &format!("the command {name} needs a name: ::{name} name=NAME::VALUE"));
        };
        self.values += key.len() + command.data.len();
        if self.values > VALUES {
            return self.refuse(
                stream,
                masker,
                &format!("values set by {name} are longer than {VALUES} bytes together"),
            );
        }
        let target = if name == "set-output" { &mut self.heard.outputs } else { &mut self.heard.state };
        target.insert(key, command.data);
    }
}

impl Side {
    fn show(&mut self, masker: &Masker, text: &[u8]) {
        self.mask.push(masker, text, &mut self.out);
    }

    /// Passes the started line on unless it may be a command, from a length on.
    fn pass_on(&mut self, masker: &Masker, from: usize) {
        let command = may_become(&self.started) && self.started.len() < COMMAND_LIMIT;
        if self.started.is_empty() || self.started.len() < from || command {
            return;
        }
        let started = std::mem::take(&mut self.started);
        self.inside = true;
        self.show(masker, &started);
    }
}

/// Whether a line may be a command at all; most are not, and are never looked at twice.
fn suspicious(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"::") || (line.contains(&b'#') && line.windows(3).any(|three| three == b"##["))
}

fn annotation(level: String, command: Command) -> Annotation {
    let text = |key: &str| command.properties.get(key).cloned();
    let number = |key: &str| text(key).and_then(|value| value.trim().parse().ok());
    Annotation {
        level,
        title: text("title"),
        file: text("file"),
        line: number("line"),
        end_line: number("endLine"),
        column: number("col"),
        end_column: number("endColumn"),
        message: command.data,
    }
}
