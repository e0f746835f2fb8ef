//! Texts of servers that are stored, logged and shown.

/// Characters of a text that are kept.
const MOST: usize = 300;

/// What a server said, as far as people need it: one line of at most 300 characters. Cut where it comes in, so that
/// whatever keeps it, for each event and each try, keeps little.
pub fn peer_text(text: &str) -> String {
    let mut letters = text.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut kept: String = letters.by_ref().take(MOST).collect();
    if letters.next().is_some() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_58_a_long_text_of_a_server_is_cut_and_is_one_line() {
        for (said, kept) in [
            ("blocked: not on the list", "blocked: not on the list".to_owned()),
            (" two\nlines\u{1b}[2J ", "two lines [2J".to_owned()),
            (&"ü".repeat(MOST), "ü".repeat(MOST)),
            (&"ü".repeat(5 << 20), "ü".repeat(MOST) + "…"),
        ] {
            assert_eq!(peer_text(said), kept);
        }
    }
}
