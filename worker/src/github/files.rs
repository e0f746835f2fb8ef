//! The files a step writes to: `GITHUB_ENV`, `GITHUB_OUTPUT`, `GITHUB_STATE` and `GITHUB_PATH`.
//!
//! Source of the rules: GitHub docs, "Environment files", and the behaviour of GitHub's runner.

use indexmap::IndexMap;

/// Which file a text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandFile {
    /// `GITHUB_ENV`.
    Env,
    /// `GITHUB_OUTPUT`.
    Output,
    /// `GITHUB_STATE`.
    State,
}

impl CommandFile {
    fn as_str(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::Output => "output",
            Self::State => "state",
        }
    }
}

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FileValues {
    /// Names and values; the last value of a name wins.
    pub set: IndexMap<String, String>,
    /// Names that are not taken; each deserves an error annotation, the step goes on.
    pub refused: Vec<String>,
}

/// A file that cannot be read by the rules: the step fails.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommandFileError {
    /// Neither `name=value` nor `name<<delimiter`.
    #[error(
        "Unable to process file command '{kind}' successfully. Invalid format '{line}': write NAME=value or NAME<<DELIMITER"
    )]
    Format {
        /// The file.
        kind: &'static str,
        /// The line.
        line: String,
    },
    /// A value that does not end.
    #[error(
        "Unable to process file command '{kind}' successfully. Invalid value. Matching delimiter not found '{delimiter}'"
    )]
    Delimiter {
        /// The file.
        kind: &'static str,
        /// What was looked for.
        delimiter: String,
    },
}

/// Variables that a step may not set for later steps: they run code of the workspace in every Node program.
pub const REFUSED: &[&str] = &["NODE_OPTIONS"];

/// Reads the content of a file after its step.
pub fn parse(kind: CommandFile, content: &str) -> Result<FileValues, CommandFileError> {
    let mut values = FileValues::default();
    let mut rest = content.strip_prefix('\u{feff}').unwrap_or(content);
    while let Some(line) = next_line(&mut rest) {
        if line.text.is_empty() {
            continue;
        }
        let malformed = || CommandFileError::Format { kind: kind.as_str(), line: line.text.to_owned() };
        let equals = line.text.find('=').unwrap_or(usize::MAX);
        let heredoc = line.text.find("<<").unwrap_or(usize::MAX);
        let (name, value) = if equals < heredoc {
            line.text.split_once('=').map(|(name, value)| (name, value.to_owned())).ok_or_else(malformed)?
        } else {
            let (name, delimiter) = line.text.split_once("<<").ok_or_else(malformed)?;
            if delimiter.is_empty() {
                return Err(malformed());
            }
            (name, until(&mut rest, delimiter, kind)?)
        };
        if name.is_empty() {
            return Err(malformed());
        }
        if kind == CommandFile::Env && REFUSED.iter().any(|refused| refused.eq_ignore_ascii_case(name)) {
            values.refused.push(name.to_owned());
        } else {
            values.set.shift_remove(name);
            values.set.insert(name.to_owned(), value);
        }
    }
    Ok(values)
}

/// The entries of `GITHUB_PATH`, in the order they were written.
pub fn paths(content: &str) -> Vec<String> {
    content
        .strip_prefix('\u{feff}')
        .unwrap_or(content)
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

struct Line<'a> {
    text: &'a str,
    end: &'a str,
}

fn next_line<'a>(rest: &mut &'a str) -> Option<Line<'a>> {
    if rest.is_empty() {
        return None;
    }
    let whole = rest.split_inclusive('\n').next().unwrap_or(rest);
    *rest = rest.get(whole.len()..).unwrap_or_default();
    let text = whole.strip_suffix('\n').map_or(whole, |text| text.strip_suffix('\r').unwrap_or(text));
    Some(Line { text, end: whole.get(text.len()..).unwrap_or_default() })
}

fn until(rest: &mut &str, delimiter: &str, kind: CommandFile) -> Result<String, CommandFileError> {
    let mut value = String::new();
    let mut pending = "";
    while let Some(line) = next_line(rest) {
        if line.text == delimiter {
            return Ok(value);
        }
        value.push_str(pending);
        value.push_str(line.text);
        pending = line.end;
        if line.end.is_empty() {
            break;
        }
    }
    Err(CommandFileError::Delimiter { kind: kind.as_str(), delimiter: delimiter.to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn values_are_read_by_the_rules() {
        for (content, expected) in [
            ("A=1\r\nB=2\n", vec![("A", "1"), ("B", "2")]),
            ("A<<X\r\none\r\ntwo\r\nX\r\n", vec![("A", "one\r\ntwo")]),
            ("A=<<X\n", vec![("A", "<<X")]),
            ("A<<X\n\n\nX\n", vec![("A", "\n")]),
            ("A=1\nB=2\nA=3\n", vec![("B", "2"), ("A", "3")]),
            ("\u{feff}A=1", vec![("A", "1")]),
        ] {
            let set = parse(CommandFile::Output, content).unwrap().set;
            let expected: IndexMap<_, _> = expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            assert_eq!(set, expected, "{content:?}");
        }
    }

    #[test]
    fn malformed_files_are_refused() {
        for content in ["words", "=1", "A<<", "<<X\nX\n", "A<<X\none\nX2", "A<<X\none"] {
            assert!(parse(CommandFile::Env, content).is_err(), "{content:?}");
        }
    }

    #[test]
    fn node_options_cannot_be_set_for_later_steps() {
        let values = parse(CommandFile::Env, "Node_Options=--require ./x\nA=1\n").unwrap();
        assert_eq!(values.refused, ["Node_Options"]);
        assert_eq!(values.set.len(), 1);
        assert!(parse(CommandFile::Output, "NODE_OPTIONS=1\n").unwrap().refused.is_empty());
    }
}
