//! Listens to a process as GitHub's runner does: the commands among its lines, and problems by matchers.

use std::{borrow::Cow, sync::Arc};

use indexmap::IndexMap;
use memchr::memmem;
use parking_lot::Mutex;
use workflow::plan::Annotation;

use super::{
    commands::{CommandGate, OutputLine, WorkflowCommand, may_become},
    files,
    matcher::Matchers,
};
use crate::{
    dialect::{line_reader::LineReader, step_values::StepValues},
    log::mask::{self, MaskOutcome, Masker},
};

/// Annotations kept for one process.
const ANNOTATIONS: usize = 50;
/// Outputs and state set by commands of one process, in bytes.
const VALUES: usize = 1 << 20;
/// A stop-commands token of more bytes than this is masked, as on GitHub: who reads the log could end the pause.
const SHORT_TOKEN: usize = 6;

/// Reads the commands of one process.
pub(super) struct CommandReader {
    /// `::debug::` is shown.
    debug: bool,
    /// The step opted into `set-env` and `add-path`.
    unsecure: bool,
    /// Path that file names of problems are cut by.
    workspace: String,
    /// Those of the job, which learn what the process made of its copy.
    shared: Arc<Mutex<Matchers>>,
    /// As they were when the process began.
    before: Matchers,
    matchers: Matchers,
    gate: CommandGate,
    values: StepValues,
    echo: bool,
    /// Bytes of what commands set.
    length: usize,
    deprecated: bool,
    /// A value that is not masked may be in what follows.
    withholds: bool,
    /// A file of problem matchers to be read before the next line is looked at.
    wanted: Option<String>,
    /// Lines that are shown in place of the current one.
    shown: String,
}

impl CommandReader {
    /// Listens with a copy of the job's matchers.
    pub(super) fn new(environment: &IndexMap<String, String>, workspace: &str, shared: Arc<Mutex<Matchers>>) -> Self {
        let is = |name: &str, wanted: &str| environment.get(name).is_some_and(|value| value == wanted);
        let debug = is("RUNNER_DEBUG", "1");
        let before = shared.lock().clone();
        let mut matchers = before.clone();
        matchers.reset();
        Self {
            debug,
            unsecure: is("ACTIONS_ALLOW_UNSECURE_COMMANDS", "true"),
            workspace: workspace.to_owned(),
            shared,
            before,
            matchers,
            gate: CommandGate::default(),
            values: StepValues::default(),
            echo: debug,
            length: 0,
            deprecated: false,
            withholds: false,
            wanted: None,
            shown: String::new(),
        }
    }

    fn problem(&mut self, line: &str) -> Option<Annotation> {
        if self.matchers.is_empty() {
            return None;
        }
        let found = self.matchers.look(&colourless(line.trim_end_matches(['\r', '\n'])), &self.workspace);
        if let Some(why) = self.matchers.say_over() {
            self.warn(&why);
        }
        found
    }

    fn show(&mut self, text: &str) {
        self.shown.push_str(text);
        self.shown.push('\n');
    }

    fn warn(&mut self, what: &str) {
        self.show(&format!("##[warning]{what}"));
        self.annotate(Annotation { level: "warning".into(), message: what.to_owned(), ..Annotation::default() });
    }

    fn refuse(&mut self, why: &str) {
        self.values.failed = true;
        self.annotate(Annotation { level: "error".into(), message: why.to_owned(), ..Annotation::default() });
        self.show(&format!("##[error]{why}"));
    }

    fn annotate(&mut self, annotation: Annotation) {
        if self.values.annotations.len() < ANNOTATIONS {
            self.values.annotations.push(annotation);
        }
    }

    fn command(&mut self, line: &str, command: WorkflowCommand, masker: &Masker) {
        let name = command.name.to_ascii_lowercase();
        if self.echo
            && !matches!(name.as_str(), "add-mask" | "echo" | "debug" | "group" | "error" | "warning" | "notice")
        {
            self.show(line);
        }
        match name.as_str() {
            "add-mask" => match self.mask(&name, &command.data, masker) {
                MaskOutcome::Masked | MaskOutcome::OverLimit => {}
                MaskOutcome::Empty => self.warn("add-mask without a value masks nothing"),
                MaskOutcome::TooShort => {
                    self.warn("add-mask: values of one or two bytes are not masked");
                }
            },
            "group" => self.show(&format!("##[group]{}", command.data)),
            "endgroup" => self.show("##[endgroup]"),
            "debug" if self.debug => self.show(&format!("##[debug]{}", command.data)),
            "error" | "warning" | "notice" => {
                self.show(&format!("##[{name}]{}", command.data));
                self.annotate(annotation(name, command));
            }
            "echo" => self.echo = command.data.trim().eq_ignore_ascii_case("on"),
            "set-output" | "save-state" => self.value(&name, command),
            "set-env" | "add-path" if self.unsecure => self.unsecure(&name, command),
            "set-env" | "add-path" => {
                let file = if name == "set-env" { "GITHUB_ENV" } else { "GITHUB_PATH" };
                self.refuse(&format!("the command {name} is disabled: write to the file ${file} instead"));
            }
            "add-matcher" => self.wanted = Some(command.data),
            "remove-matcher" => match command.properties.get("owner") {
                Some(owner) => self.matchers.remove(owner),
                None => self.refuse("remove-matcher needs an owner: ::remove-matcher owner=NAME::"),
            },
            // Debug lines that are off, and paths of repositories.
            _ => {}
        }
    }

    /// Masks a value. Where it cannot be, the step fails, and what it prints from here on is not shown.
    fn mask(&mut self, command: &str, value: &str, masker: &Masker) -> MaskOutcome {
        let outcome = masker.add(value);
        if outcome == MaskOutcome::OverLimit {
            self.withholds = true;
            self.refuse(&format!(
                "{command}: a job may mask {} values of {} KiB each, and {} MiB of them together with their encoded \
                 forms; nothing more of this step's output is shown",
                mask::MOST_VALUES,
                mask::LONGEST >> 10,
                mask::FORMS >> 20,
            ));
        }
        outcome
    }

    /// `set-env` and `add-path` of a step that opted into them.
    fn unsecure(&mut self, name: &str, command: WorkflowCommand) {
        self.length += command.data.len();
        if self.length > VALUES {
            return self.refuse(&format!("values set by {name} are longer than {VALUES} bytes together"));
        }
        match command.properties.get("name") {
            _ if name == "add-path" => self.values.paths.push(command.data),
            Some(key) if files::REFUSED.iter().any(|refused| refused.eq_ignore_ascii_case(key)) => {
                self.refuse(&format!("{key} cannot be set for later steps"));
            }
            Some(key) => {
                self.values.env.insert(key.clone(), command.data);
            }
            None => self.refuse("the command set-env needs a name: ::set-env name=NAME::VALUE"),
        }
    }

    fn value(&mut self, name: &str, command: WorkflowCommand) {
        let file = if name == "set-output" { "GITHUB_OUTPUT" } else { "GITHUB_STATE" };
        if !self.deprecated {
            self.deprecated = true;
            self.warn(&format!("the command {name} is deprecated: write to the file ${file} instead"));
        }
        let Some(key) = command.properties.get("name").cloned() else {
            return self.refuse(&format!("the command {name} needs a name: ::{name} name=NAME::VALUE"));
        };
        self.length += key.len() + command.data.len();
        if self.length > VALUES {
            return self.refuse(&format!("values set by {name} are longer than {VALUES} bytes together"));
        }
        let target = if name == "set-output" { &mut self.values.outputs } else { &mut self.values.state };
        target.insert(key, command.data);
    }
}

impl LineReader for CommandReader {
    fn reads_all(&self) -> bool {
        !self.matchers.is_empty()
    }

    fn skips(&self, lines: &[u8]) -> bool {
        memmem::find(lines, b"::").is_none() && memmem::find(lines, b"##[").is_none()
    }

    fn skips_line(&self, line: &[u8]) -> bool {
        let begins = line.trim_ascii_start().starts_with(b"::");
        !(begins || line.contains(&b'#') && line.windows(3).any(|three| three == b"##["))
    }

    fn may_begin(&self, start: &[u8]) -> bool {
        may_become(start)
    }

    fn line(&mut self, line: &str, masker: &Masker) -> Option<String> {
        match self.gate.read(line) {
            OutputLine::Output => match self.problem(line) {
                Some(annotation) => {
                    self.show(&format!("##[{}]{line}", annotation.level));
                    self.annotate(annotation);
                }
                None if self.shown.is_empty() => return None,
                None => self.show(line),
            },
            OutputLine::Switched => {
                let token = self.gate.token().filter(|token| token.len() > SHORT_TOKEN).map(str::to_owned);
                let outcome = token.map(|token| self.mask("stop-commands", &token, masker));
                if outcome != Some(MaskOutcome::OverLimit) {
                    return None;
                }
            }
            OutputLine::BadToken => {
                self.refuse("stop-commands needs a token that is not empty and no command's name, best a random one");
            }
            OutputLine::Command(command) => self.command(line, command, masker),
        }
        Some(std::mem::take(&mut self.shown))
    }

    fn shown_line(&mut self, line: &str) {
        if let Some(annotation) = self.problem(line) {
            self.annotate(annotation);
        }
    }

    fn withholds(&self) -> bool {
        self.withholds
    }

    fn wanted_file(&self) -> Option<&str> {
        self.wanted.as_deref()
    }

    fn take_file(&mut self, content: Result<&[u8], String>) -> Option<String> {
        let path = self.wanted.take()?;
        let why = content.and_then(|content| self.matchers.add(content)).err()?;
        self.refuse(&format!("add-matcher {path}: {why}"));
        Some(std::mem::take(&mut self.shown))
    }

    fn finish(self: Box<Self>) -> StepValues {
        self.shared.lock().learn(&self.before, self.matchers);
        self.values
    }
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
