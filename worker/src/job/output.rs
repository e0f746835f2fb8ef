//! Listens to one process: its lines, the commands among them, and what of it may be shown already.

use std::borrow::Cow;

use indexmap::IndexMap;
use memchr::{memchr, memmem, memrchr};
use workflow::plan::Annotation;

use crate::{
    github::{
        commands::{CommandGate, OutputLine, WorkflowCommand, may_become},
        files,
        matcher::{self, Matchers},
    },
    log::mask::{self, MaskOutcome, Masker},
    sandbox::OutputStream,
};

/// Longest line that is still read as a command, in bytes.
const COMMAND_LIMIT: usize = 1 << 20;
/// Annotations kept for one process.
const ANNOTATIONS: usize = 50;
/// Outputs and state set by commands of one process, in bytes.
const VALUES: usize = 1 << 20;
/// A started line that is no command is passed on from this length, in bytes.
const PIECE: usize = 64 * 1024;
/// A stop-commands token of more bytes than this is masked, as on GitHub: who reads the log could end the pause.
const SHORT_TOKEN: usize = 6;

/// What a process said by commands.
#[derive(Debug, Default)]
pub(super) struct ParsedOutput {
    pub(super) outputs: IndexMap<String, String>,
    pub(super) state: IndexMap<String, String>,
    pub(super) annotations: Vec<Annotation>,
    /// Set by `set-env` and `add-path`, where the step allows them.
    pub(super) env: IndexMap<String, String>,
    pub(super) paths: Vec<String>,
    /// A command could not be carried out: the step fails.
    pub(super) failed: bool,
}

#[derive(Default)]
struct StreamState {
    /// A started line, not yet passed on.
    started: Vec<u8>,
    /// The start of the current line was passed on: its rest is plain.
    inside: bool,
    /// What of the current line was passed on and may still be a problem.
    passed: Vec<u8>,
    mask: mask::MaskStream,
    /// Masked text.
    out: Vec<u8>,
    /// `out` is shown though its last line has no end.
    prompted: bool,
}

/// What a step is parsed with.
#[derive(Debug, Default)]
pub(super) struct ParserOptions {
    /// `::debug::` is shown.
    pub(super) debug: bool,
    /// The step opted into `set-env` and `add-path`.
    pub(super) unsecure: bool,
    /// Path that file names of problems are cut by.
    pub(super) workspace: String,
}

pub(super) struct OutputParser {
    sides: [StreamState; 2],
    options: ParserOptions,
    matchers: Matchers,
    /// As they were when the process began.
    matchers_before: Matchers,
    gate: CommandGate,
    parsed: ParsedOutput,
    echo: bool,
    values: usize,
    deprecated: bool,
    /// A file of problem matchers to be read before the next line is looked at.
    wants: Option<String>,
}

impl OutputParser {
    /// Listens with a copy of the job's matchers.
    pub(super) fn new(options: ParserOptions, matchers: &Matchers) -> Self {
        let matchers_before = matchers.clone();
        let mut matchers = matchers.clone();
        matchers.reset();
        Self {
            sides: Default::default(),
            echo: options.debug,
            options,
            matchers,
            matchers_before,
            gate: CommandGate::default(),
            parsed: ParsedOutput::default(),
            values: 0,
            deprecated: false,
            wants: None,
        }
    }

    /// Takes output. Gives how much of it: less than all where a file is wanted first, see [`Self::wanted`].
    pub(super) fn take(&mut self, stream: OutputStream, data: &[u8], masker: &Masker) -> usize {
        let (mut rest, mut looked) = (data, !self.matchers.is_empty());
        while !rest.is_empty() && self.wants.is_none() {
            let plain = self.matchers.is_empty();
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
            if side.inside {
                side.inside = !ended;
                side.show(masker, part);
                self.passed(stream, part, ended);
                continue;
            }
            let side = self.side(stream);
            if side.started.is_empty() && ended && !suspicious(part) && plain {
                side.show(masker, part);
                continue;
            }
            side.started.extend_from_slice(part);
            if ended {
                let line = std::mem::take(&mut side.started);
                self.line(stream, &line, masker);
            } else {
                side.pass_on(masker, PIECE, plain);
            }
        }
        data.len() - rest.len()
    }

    /// A file of problem matchers that is wanted before more is taken.
    pub(super) fn wanted(&self) -> Option<&str> {
        self.wants.as_deref()
    }

    pub(super) fn workspace(&self) -> &str {
        &self.options.workspace
    }

    /// Adds the matchers of the file that the last `add-matcher` command named, or reports why there are none.
    pub(super) fn add_matcher_file(&mut self, content: Result<&[u8], String>, masker: &Masker) {
        let Some(path) = self.wants.take() else { return };
        let added = content.and_then(|content| self.matchers.add(content));
        if let Err(why) = added {
            self.refuse(OutputStream::Stdout, masker, &format!("add-matcher {path}: {why}"));
        }
    }

    /// The prompt timer: what was started is shown as far as it can be no command and no secret.
    pub(super) fn prompt(&mut self, masker: &Masker) {
        let plain = self.matchers.is_empty();
        for side in &mut self.sides {
            side.pass_on(masker, 0, plain);
            side.prompted = true;
        }
    }

    /// Whether text waits that the prompt timer may show.
    pub(super) fn waits(&self) -> bool {
        self.sides.iter().any(|side| !side.out.is_empty() || (!side.started.is_empty() && !may_become(&side.started)))
    }

    /// The process ended.
    pub(super) fn finish(&mut self, masker: &Masker) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let line = std::mem::take(&mut self.side(stream).started);
            if !line.is_empty() {
                self.line(stream, &line, masker);
            }
            self.passed(stream, b"", true);
            let side = self.side(stream);
            let StreamState { mask, out, .. } = side;
            mask.finish(out);
            side.prompted = true;
        }
    }

    /// Text that may be shown now.
    pub(super) fn ready(&mut self) -> Vec<(OutputStream, Vec<u8>)> {
        let mut ready = Vec::new();
        for (side, stream) in self.sides.iter_mut().zip([OutputStream::Stdout, OutputStream::Stderr]) {
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

    /// What was parsed. The job's matchers learn what the process made of them.
    pub(super) fn into_parsed(self, matchers: &mut Matchers) -> ParsedOutput {
        matchers.learn(&self.matchers_before, self.matchers);
        self.parsed
    }

    /// More of a line whose beginning was passed on. At its end it can still be a problem.
    fn passed(&mut self, stream: OutputStream, part: &[u8], ended: bool) {
        let side = self.side(stream);
        if side.passed.is_empty() {
            return;
        }
        if side.passed.len() <= matcher::LINE {
            side.passed.extend_from_slice(part);
        }
        if ended {
            let line = std::mem::take(&mut side.passed);
            if let Some(annotation) = self.problem(&String::from_utf8_lossy(&line)) {
                self.annotate(annotation);
            }
        }
    }

    fn problem(&mut self, line: &str) -> Option<Annotation> {
        if self.matchers.is_empty() {
            return None;
        }
        self.matchers.look(&colourless(line.trim_end_matches(['\r', '\n'])), &self.options.workspace)
    }

    fn side(&mut self, stream: OutputStream) -> &mut StreamState {
        let [stdout, stderr] = &mut self.sides;
        match stream {
            OutputStream::Stdout => stdout,
            OutputStream::Stderr => stderr,
        }
    }

    fn line(&mut self, stream: OutputStream, line: &[u8], masker: &Masker) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\r', '\n']);
        match self.gate.read(text) {
            OutputLine::Output => match self.problem(text) {
                Some(annotation) => {
                    self.write_line(stream, masker, &format!("##[{}]{text}", annotation.level));
                    self.annotate(annotation);
                }
                None => self.side(stream).show(masker, line),
            },
            OutputLine::Switched => {
                if let Some(token) = self.gate.token().filter(|token| token.len() > SHORT_TOKEN) {
                    masker.add(token);
                }
                self.side(stream).show(masker, line);
            }
            OutputLine::BadToken => self.refuse(
                stream,
                masker,
                "stop-commands needs a token that is not empty and no command's name, best a random one",
            ),
            OutputLine::Command(command) => self.command(stream, text, command, masker),
        }
    }

    fn write_line(&mut self, stream: OutputStream, masker: &Masker, text: &str) {
        self.side(stream).show(masker, format!("{text}\n").as_bytes());
    }

    fn refuse(&mut self, stream: OutputStream, masker: &Masker, why: &str) {
        self.parsed.failed = true;
        self.annotate(Annotation { level: "error".into(), message: why.to_owned(), ..Annotation::default() });
        self.write_line(stream, masker, &format!("##[error]{why}"));
    }

    fn annotate(&mut self, annotation: Annotation) {
        if self.parsed.annotations.len() < ANNOTATIONS {
            self.parsed.annotations.push(annotation);
        }
    }

    fn command(&mut self, stream: OutputStream, line: &str, command: WorkflowCommand, masker: &Masker) {
        let name = command.name.to_ascii_lowercase();
        if self.echo
            && !matches!(name.as_str(), "add-mask" | "echo" | "debug" | "group" | "error" | "warning" | "notice")
        {
            self.write_line(stream, masker, line);
        }
        match name.as_str() {
            "add-mask" => match masker.add(&command.data) {
                MaskOutcome::Masked => {}
                MaskOutcome::Empty => {
                    self.write_line(stream, masker, "##[warning]add-mask without a value masks nothing")
                }
                MaskOutcome::TooShort => {
                    self.write_line(stream, masker, "##[warning]add-mask: values of one or two bytes are not masked");
                }
            },
            "group" => self.write_line(stream, masker, &format!("##[group]{}", command.data)),
            "endgroup" => self.write_line(stream, masker, "##[endgroup]"),
            "debug" if self.options.debug => self.write_line(stream, masker, &format!("##[debug]{}", command.data)),
            "error" | "warning" | "notice" => {
                self.write_line(stream, masker, &format!("##[{name}]{}", command.data));
                self.annotate(annotation(name, command));
            }
            "echo" => self.echo = command.data.trim().eq_ignore_ascii_case("on"),
            "set-output" | "save-state" => self.value(stream, &name, command, masker),
            "set-env" | "add-path" if self.options.unsecure => self.unsecure(stream, &name, command, masker),
            "set-env" | "add-path" => {
                let file = if name == "set-env" { "GITHUB_ENV" } else { "GITHUB_PATH" };
                self.refuse(
                    stream,
                    masker,
                    &format!("the command {name} is disabled: write to the file ${file} instead"),
                );
            }
            "add-matcher" => self.wants = Some(command.data),
            "remove-matcher" => match command.properties.get("owner") {
                Some(owner) => self.matchers.remove(owner),
                None => self.refuse(stream, masker, "remove-matcher needs an owner: ::remove-matcher owner=NAME::"),
            },
            // Debug lines that are off, and paths of repositories.
            _ => {}
        }
    }

    /// `set-env` and `add-path` of a step that opted into them.
    fn unsecure(&mut self, stream: OutputStream, name: &str, command: WorkflowCommand, masker: &Masker) {
        self.values += command.data.len();
        if self.values > VALUES {
            return self.refuse(
                stream,
                masker,
                &format!("values set by {name} are longer than {VALUES} bytes together"),
            );
        }
        match command.properties.get("name") {
            _ if name == "add-path" => self.parsed.paths.push(command.data),
            Some(key) if files::REFUSED.iter().any(|refused| refused.eq_ignore_ascii_case(key)) => {
                self.refuse(stream, masker, &format!("{key} cannot be set for later steps"));
            }
            Some(key) => {
                self.parsed.env.insert(key.clone(), command.data);
            }
            None => self.refuse(stream, masker, "the command set-env needs a name: ::set-env name=NAME::VALUE"),
        }
    }

    fn value(&mut self, stream: OutputStream, name: &str, command: WorkflowCommand, masker: &Masker) {
        let file = if name == "set-output" { "GITHUB_OUTPUT" } else { "GITHUB_STATE" };
        if !self.deprecated {
            self.deprecated = true;
            self.write_line(
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
        let target = if name == "set-output" { &mut self.parsed.outputs } else { &mut self.parsed.state };
        target.insert(key, command.data);
    }
}

impl StreamState {
    fn show(&mut self, masker: &Masker, text: &[u8]) {
        self.mask.push(masker, text, &mut self.out);
    }

    /// Passes the started line on unless it may be a command, from a length on.
    fn pass_on(&mut self, masker: &Masker, from: usize, plain: bool) {
        let command = may_become(&self.started) && self.started.len() < COMMAND_LIMIT;
        if self.started.is_empty() || self.started.len() < from || command {
            return;
        }
        let started = std::mem::take(&mut self.started);
        self.inside = true;
        self.show(masker, &started);
        if !plain {
            self.passed = started;
        }
    }
}

/// Whether a line may be a command at all; most are not, and are never looked at twice.
fn suspicious(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"::") || (line.contains(&b'#') && line.windows(3).any(|three| three == b"##["))
}

/// A line without its colours: what programs print for a terminal.
fn colourless(line: &str) -> Cow<'_, str> {
    if !line.contains('\x1b') {
        return Cow::Borrowed(line);
    }
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        let end = after.char_indices().find(|(_, c)| !(c.is_ascii_digit() || *c == ';'));
        let end = end.map_or(after.len(), |(at, last)| at + last.len_utf8());
        rest = after.get(end..).unwrap_or_default();
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

fn annotation(level: String, command: WorkflowCommand) -> Annotation {
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
