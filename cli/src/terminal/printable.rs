//! Text from outside, made safe for a terminal. Pure.

/// Text that can do nothing to a terminal but colour itself: other escape sequences are dropped, control characters
/// are shown as their pictures.
pub(crate) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '\u{1b}' => match rest.next() {
                Some('[') => {
                    let mut sequence = String::new();
                    let end = rest.find(|next| {
                        sequence.push(*next);
                        ('@'..='~').contains(next)
                    });
                    if end == Some('m') {
                        clean.push_str("\u{1b}[");
                        clean.push_str(&sequence);
                    }
                }
                // OSC and the like: to their terminator.
                Some(']' | 'P' | '^' | '_') => while rest.next().is_some_and(|next| next != '\u{7}' && next != '\\') {},
                _ => {}
            },
            '\t' => clean.push('\t'),
            '\r' => {}
            control if control.is_control() => clean.push(picture(control)),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => clean.push('\u{fffd}'),
            other => clean.push(other),
        }
    }
    clean
}

/// The lines of output. A carriage return ends one as well (actions/runner, `ProcessInvoker.cs`): what a progress bar
/// wrote over does not run together.
pub(crate) fn output_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.trim_end_matches('\r').split('\r'))
}

/// The same of text in lines, which it keeps.
pub(crate) fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

fn picture(control: char) -> char {
    char::from_u32(0x2400 + u32::from(control)).filter(|_| u32::from(control) < 0x20).unwrap_or('\u{fffd}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carriage_return_ends_a_line() {
        let lines = |text| output_lines(text).collect::<Vec<_>>();
        assert_eq!(lines("10%\r50%\r100%\n"), ["10%", "50%", "100%"]);
        assert_eq!(lines("windows\r\nplain\n\nend\r"), ["windows", "plain", "", "end"]);
    }

    #[test]
    fn attack_49_output_can_colour_a_terminal_and_nothing_else() {
        for (printed, shown) in [
            ("plain ünïcode", "plain ünïcode"),
            ("\u{1b}[31mred\u{1b}[0m", "\u{1b}[31mred\u{1b}[0m"),
            ("\u{1b}[2J\u{1b}[1;1Hgone", "gone"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]52;c;aGk=\u{7}text", "text"),
            ("bell\u{7} nul\0", "bell␇ nul␀"),
            ("10%\r100%", "10%100%"),
            ("a\u{202e}b", "a\u{fffd}b"),
            ("end\u{1b}", "end"),
            ("end\u{1b}[31", "end"),
        ] {
            assert_eq!(printable(printed), shown, "{printed:?}");
        }
    }
}
