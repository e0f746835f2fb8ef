//! Workflow commands: `::name key=value::data` and the older `##[name key=value;]data`.
//!
//! Source of the rules: GitHub docs, "Workflow commands", and the behaviour of GitHub's runner.

use indexmap::IndexMap;

/// A command as a step printed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowCommand {
    /// Its name, as written.
    pub name: String,
    /// Its properties, unescaped.
    pub properties: IndexMap<String, String>,
    /// What follows, unescaped.
    pub data: String,
}

/// Names that are commands; any other line that looks like one is plain output.
pub const KNOWN: &[&str] = &[
    "add-mask",
    "add-matcher",
    "add-path",
    "debug",
    "echo",
    "endgroup",
    "error",
    "group",
    "internal-set-repo-path",
    "notice",
    "remove-matcher",
    "save-state",
    "set-env",
    "set-output",
    "stop-commands",
    "warning",
];

/// Reads a line of output. `None`: it is no command.
pub fn parse<N: AsRef<str>>(line: &str, known: &[N]) -> Option<WorkflowCommand> {
    let command = colons(line).or_else(|| brackets(line))?;
    known.iter().any(|name| name.as_ref().eq_ignore_ascii_case(&command.name)).then_some(command)
}

/// Whether a line that is not complete may still become a command.
pub fn may_become(start: &[u8]) -> bool {
    let text = start.trim_ascii_start();
    let begins = |prefix: &[u8]| text.starts_with(prefix) || prefix.starts_with(text);
    begins(b"::") || begins(b"##[")
}

fn colons(line: &str) -> Option<WorkflowCommand> {
    let (head, data) = line.trim_start().strip_prefix("::")?.split_once("::")?;
    build(
        head,
        ',',
        |text| unescape(text, &[("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ",")]),
        || unescape(data, &[("%0D", "\r"), ("%0A", "\n")]),
    )
}

fn brackets(line: &str) -> Option<WorkflowCommand> {
    const ESCAPES: &[(&str, &str)] = &[("%3B", ";"), ("%0D", "\r"), ("%0A", "\n"), ("%5D", "]")];
    let (_, rest) = line.split_once("##[")?;
    let (head, data) = rest.split_once(']')?;
    build(head, ';', |text| unescape(text, ESCAPES), || unescape(data, ESCAPES))
}

fn build(
    head: &str,
    separator: char,
    property: impl Fn(&str) -> String,
    data: impl FnOnce() -> String,
) -> Option<WorkflowCommand> {
    let (name, rest) = head.split_once(' ').unwrap_or((head, ""));
    if name.is_empty() {
        return None;
    }
    let properties = rest
        .trim()
        .split(separator)
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), property(value)))
        .filter(|(key, value)| !key.is_empty() && !value.is_empty())
        .collect();
    Some(WorkflowCommand { name: name.to_owned(), properties, data: data() })
}

/// The percent sign comes last, so that what it gives is not read again.
fn unescape(text: &str, escapes: &[(&str, &str)]) -> String {
    let text = escapes.iter().fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain));
    text.replace("%25", "%")
}

/// Which lines of a step are read as commands; `stop-commands` holds them off until its token comes.
#[derive(Debug, Default)]
pub struct CommandGate {
    token: Option<String>,
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub enum OutputLine {
    /// Plain output.
    Output,
    /// A command to carry out.
    Command(WorkflowCommand),
    /// `stop-commands` or its token: shown, and done.
    Switched,
    /// A token that would let output switch commands on again by chance; the step fails.
    BadToken,
}

impl CommandGate {
    /// What ends the pause, while there is one.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Reads the next line of a step.
    pub fn read(&mut self, line: &str) -> OutputLine {
        if let Some(token) = &self.token {
            if parse(line, std::slice::from_ref(token)).is_some() {
                self.token = None;
                return OutputLine::Switched;
            }
            return OutputLine::Output;
        }
        match parse(line, KNOWN) {
            Some(command) if command.name.eq_ignore_ascii_case("stop-commands") => {
                let token = command.data.trim();
                let reserved = KNOWN.iter().any(|name| name.eq_ignore_ascii_case(token));
                if token.is_empty() || reserved || token.eq_ignore_ascii_case("pause-logging") {
                    return OutputLine::BadToken;
                }
                self.token = Some(token.to_owned());
                OutputLine::Switched
            }
            Some(command) => OutputLine::Command(command),
            None => OutputLine::Output,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn lines_are_commands_only_by_the_rules() {
        let command = |line: &str| parse(line, KNOWN).map(|c| (c.name, c.properties.len(), c.data));
        for (line, expected) in [
            ("::error::x", Some(("error", 0, "x"))),
            ("  ::error file=a.rs,line=3::x%0Ay", Some(("error", 2, "x\ny"))),
            ("::ERROR::x", Some(("ERROR", 0, "x"))),
            ("x ::error::x", None),
            ("::error", None),
            ("::nothing::x", None),
            ("##[group]Title", Some(("group", 0, "Title"))),
            ("##[group Title", None),
            ("::::", None),
        ] {
            assert_eq!(command(line), expected.map(|(n, p, d)| (n.to_owned(), p, d.to_owned())), "{line}");
        }
    }

    #[test]
    fn commands_stop_until_their_token() {
        let mut gate = CommandGate::default();
        assert_eq!(gate.read("::stop-commands::warning"), OutputLine::BadToken);
        assert_eq!(gate.read("::stop-commands::"), OutputLine::BadToken);
        assert_eq!(gate.read("::stop-commands::x7f"), OutputLine::Switched);
        assert_eq!(gate.read("::warning::held off"), OutputLine::Output);
        assert_eq!(gate.read("::x7f::"), OutputLine::Switched);
        assert!(matches!(gate.read("::warning::again"), OutputLine::Command(_)));
    }

    #[test]
    fn attack_52_text_of_others_commands_a_step_unless_it_stops_commands_as_the_docs_say() {
        let printed =
            "::error::not from us\n##[warning]nor this\n::set-env name=PATH::/x\n::stop-commands::guess\n::guess::";
        let mut gate = CommandGate::default();
        assert!(matches!(gate.read("::error::not from us"), OutputLine::Command(_)));
        assert_eq!(gate.read("::stop-commands::7f2c9d41"), OutputLine::Switched);
        assert!(printed.lines().all(|line| gate.read(line) == OutputLine::Output));
        assert_eq!(gate.read("::7f2c9d41::"), OutputLine::Switched);
        let docs = include_str!("../../../docs/secrets.md");
        assert!(docs.contains("::stop-commands::$token") && docs.contains("whoever wrote it"));
    }

    #[test]
    fn a_started_line_waits_only_while_it_may_be_a_command() {
        for (start, waits) in
            [("", true), ("  ", true), (":", true), ("::err", true), ("##", true), ("Password:", false)]
        {
            assert_eq!(may_become(start.as_bytes()), waits, "{start:?}");
        }
    }
}
