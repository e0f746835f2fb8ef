//! Commit messages that ask for no runs (GitHub docs, "Skipping workflow runs").

/// What stands anywhere in such a message.
const MARKS: [&str; 5] = ["[skip ci]", "[ci skip]", "[no ci]", "[skip actions]", "[actions skip]"];

/// What in the message of a head commit asks for no runs of `push` and `pull_request`; `None`: nothing does.
///
/// The trailer `skip-checks: true` is the last line, after an empty one. GitHub's text asks for two empty lines, which
/// git makes one of unless it is told otherwise.
pub fn mark(message: &str) -> Option<&'static str> {
    let lower = message.to_ascii_lowercase();
    if let Some(mark) = MARKS.into_iter().find(|mark| lower.contains(mark)) {
        return Some(mark);
    }
    let (_, trailers) = lower.trim_end().rsplit_once("\n\n")?;
    let (name, value) = trailers.lines().last()?.split_once(':')?;
    (name.trim() == "skip-checks" && value.trim() == "true").then_some("skip-checks: true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_ask_for_no_runs_are_told_from_those_that_do_not() {
        for (message, expected) in [
            ("Fix it [skip ci]", Some("[skip ci]")),
            ("[CI Skip] docs", Some("[ci skip]")),
            ("a\n\nmore [no ci] text", Some("[no ci]")),
            ("a [skip actions]", Some("[skip actions]")),
            ("a [actions skip]", Some("[actions skip]")),
            ("a\n\n\nskip-checks:true", Some("skip-checks: true")),
            ("a\n\nSigned-off-by: A <a@example.org>\nskip-checks: true\n", Some("skip-checks: true")),
            ("a\n\nskip-checks: true\nSigned-off-by: A <a@example.org>", None),
            ("a\n\nskip-checks: false", None),
            ("skip-checks: true", None),
            ("skip ci", None),
            ("[skip-ci]", None),
            ("", None),
        ] {
            assert_eq!(mark(message), expected, "{message:?}");
        }
    }
}
