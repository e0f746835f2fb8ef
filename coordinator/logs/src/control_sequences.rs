//! What is left of a text without what terminals take for orders (ECMA-48). Pure.

/// A text without control sequences and control characters; tabs stay.
pub fn strip_control_sequences(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '\u{1b}' {
            if letter == '\t' || !letter.is_control() {
                kept.push(letter);
            }
            continue;
        }
        match letters.next() {
            Some('[') => while letters.next().is_some_and(|letter| !('\u{40}'..='\u{7e}').contains(&letter)) {},
            Some(']') => {
                while letters.next_if(|letter| *letter != '\u{7}' && *letter != '\u{1b}').is_some() {}
                letters.next_if_eq(&'\u{7}');
            }
            _ => {}
        }
    }
    kept
}
