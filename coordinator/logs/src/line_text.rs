//! What a line of a log says for people: the kind that GitHub's runner gives it, and a step's name. Pure.

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    /// What a program printed.
    Output,
    /// An error.
    Error,
    /// A warning.
    Warning,
    /// A notice.
    Notice,
    /// Of interest to who looks for a fault.
    Debug,
    /// A command that is run.
    Command,
    /// The head of lines that fold.
    Group,
    /// Their end: a line without a text.
    EndGroup,
}

/// Beginnings of lines that GitHub's runner gives a meaning.
const MARKERS: [(&str, LineKind); 7] = [
    ("##[error]", LineKind::Error),
    ("##[warning]", LineKind::Warning),
    ("##[notice]", LineKind::Notice),
    ("##[debug]", LineKind::Debug),
    ("##[command]", LineKind::Command),
    ("##[group]", LineKind::Group),
    ("##[endgroup]", LineKind::EndGroup),
];

/// The kind of a line, and its text without the marker.
#[must_use]
pub fn classified(text: &str) -> (LineKind, &str) {
    let found = MARKERS.into_iter().find_map(|(marker, kind)| Some((kind, text.strip_prefix(marker)?)));
    found.unwrap_or((LineKind::Output, text))
}

/// The name of a step: what runs in it, not in which stage of the job.
#[must_use]
pub fn step_name(mark: &str) -> &str {
    mark.strip_prefix("Main ").unwrap_or(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_told_from_text() {
        assert_eq!(classified("##[error]it broke"), (LineKind::Error, "it broke"));
        assert_eq!(classified("##[endgroup]"), (LineKind::EndGroup, ""));
        assert_eq!(classified("a ##[error]"), (LineKind::Output, "a ##[error]"));
        assert_eq!((step_name("Main Run x"), step_name("Post Run x")), ("Run x", "Post Run x"));
    }
}
