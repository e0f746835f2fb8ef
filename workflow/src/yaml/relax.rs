//! What GitHub's scanner takes beyond YAML's grammar, written as YAML that means the same.
//!
//! GitHub reads with YamlDotNet, a port of libyaml: `#` begins a comment wherever a token may begin, the indentation of
//! later lines counts neither inside of brackets nor inside of quotes, and a tab may follow `:`. Only a text that is no
//! YAML otherwise is looked at, so that nothing here changes what is.

/// A text that was written anew, and where characters were put in.
pub(super) struct RelaxedText {
    pub(super) text: String,
    /// Places of characters that the original does not have, in ascending order.
    inserted: Vec<usize>,
}

impl RelaxedText {
    /// Where a character stands in the original.
    pub(super) fn original(&self, at: usize) -> usize {
        at - self.inserted.partition_point(|inserted| *inserted < at)
    }
}

/// The text as the strict scanner takes it; `None`: there is nothing to write anew.
pub(super) fn relaxed(text: &str) -> Option<RelaxedText> {
    let mut writer =
        Writer { relaxed: RelaxedText { text: String::new(), inserted: Vec::new() }, chars: 0, changed: false };
    let mut state = State::default();
    for line in text.split_inclusive('\n') {
        state.line(line, &mut writer);
    }
    writer.changed.then_some(writer.relaxed)
}

struct Writer {
    relaxed: RelaxedText,
    chars: usize,
    changed: bool,
}

impl Writer {
    fn copy(&mut self, letter: char) {
        self.relaxed.text.push(letter);
        self.chars += 1;
    }

    /// Writes a space for a character.
    fn blank(&mut self) {
        self.changed = true;
        self.copy(' ');
    }

    /// Puts spaces in.
    fn pad(&mut self, count: usize) {
        for _ in 0..count {
            self.relaxed.inserted.push(self.chars);
            self.blank();
        }
    }
}

/// What the scanner stands in, at the end of a line.
#[derive(Default)]
struct State {
    /// Brackets that are open.
    depth: usize,
    /// The quote that is open.
    quote: Option<char>,
    /// Column of the outermost bracket or quote that is open.
    column: usize,
    /// A block of text: the column of what it belongs to. Lines further right, and empty ones, are its own.
    block: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenPosition {
    /// A token may begin.
    Token,
    /// Right behind a bracket, a comma or a quoted text.
    Behind,
    /// In a plain text.
    Plain,
}

impl State {
    fn line(&mut self, line: &str, writer: &mut Writer) {
        let indent = line.chars().take_while(|letter| *letter == ' ').count();
        let is_empty = line.trim().is_empty();
        if let Some(column) = self.block {
            if is_empty || indent > column {
                line.chars().for_each(|letter| writer.copy(letter));
                return;
            }
            self.block = None;
        }
        if (self.depth > 0 || self.quote.is_some()) && !is_empty {
            writer.pad((self.column + 1).saturating_sub(indent));
        }
        let (owner, header) = owner_and_header(line);
        let mut place = TokenPosition::Token;
        let mut letters = line.chars().enumerate().peekable();
        let mut before = ' ';
        while let Some((column, letter)) = letters.next() {
            let next = letters.peek().map_or('\n', |(_, next)| *next);
            if let Some(quote) = self.quote {
                writer.copy(letter);
                let escapes = if quote == '"' { letter == '\\' } else { letter == '\'' && next == '\'' };
                if escapes && next != '\n' {
                    if let Some((_, escaped)) = letters.next() {
                        writer.copy(escaped);
                    }
                } else if letter == quote {
                    self.quote = None;
                    place = TokenPosition::Behind;
                }
                before = letter;
                continue;
            }
            match letter {
                '#' if place != TokenPosition::Plain || before.is_whitespace() => {
                    // Only a comment that nothing parts from what is before it has to go.
                    let goes = !before.is_whitespace() && column > 0;
                    let rest = std::iter::once(letter).chain(letters.by_ref().map(|(_, letter)| letter));
                    for letter in rest {
                        if goes && !matches!(letter, '\n' | '\r') { writer.blank() } else { writer.copy(letter) }
                    }
                    break;
                }
                '"' | '\'' if place != TokenPosition::Plain => {
                    if self.depth == 0 {
                        self.column = column;
                    }
                    self.quote = Some(letter);
                    writer.copy(letter);
                }
                '[' | '{' if place != TokenPosition::Plain || self.depth > 0 => {
                    if self.depth == 0 {
                        self.column = column;
                    }
                    self.depth += 1;
                    place = TokenPosition::Token;
                    writer.copy(letter);
                }
                ']' | '}' if self.depth > 0 => {
                    self.depth -= 1;
                    place = TokenPosition::Behind;
                    writer.copy(letter);
                }
                ',' if self.depth > 0 => {
                    place = TokenPosition::Behind;
                    writer.copy(letter);
                }
                ':' if next.is_whitespace() => {
                    place = TokenPosition::Token;
                    writer.copy(letter);
                    while let Some((_, '\t')) = letters.peek() {
                        letters.next();
                        writer.blank();
                    }
                    before = ' ';
                    continue;
                }
                '|' | '>' if place != TokenPosition::Plain && self.depth == 0 && header == Some(column) => {
                    self.block = Some(owner);
                    writer.copy(letter);
                    // Behind what follows it, a comment may begin at once.
                    while let Some((_, sign)) = letters.next_if(|(_, next)| matches!(next, '+' | '-' | '0'..='9')) {
                        writer.copy(sign);
                    }
                    place = TokenPosition::Behind;
                    before = letter;
                    continue;
                }
                letter if letter.is_whitespace() => {
                    if place == TokenPosition::Behind {
                        place = TokenPosition::Token;
                    }
                    writer.copy(letter);
                }
                '-' | '?' if place == TokenPosition::Token && next.is_whitespace() => writer.copy(letter),
                letter => {
                    place = TokenPosition::Plain;
                    writer.copy(letter);
                }
            }
            before = letter;
        }
    }
}

/// The column of what a line's last value belongs to (its key, or its last `-`), and where the head of a block of text
/// stands, if it ends in one.
fn owner_and_header(line: &str) -> (usize, Option<usize>) {
    let letters: Vec<char> = line.trim_end().chars().collect();
    let blank = |at: usize| letters.get(at).is_none_or(|letter| letter.is_whitespace());
    let mut at = 0;
    let mut owner = 0;
    while letters.get(at) == Some(&' ') {
        at += 1;
    }
    while letters.get(at) == Some(&'-') && blank(at + 1) {
        owner = at;
        at += 1;
        while letters.get(at) == Some(&' ') {
            at += 1;
        }
    }
    let start = at;
    let is_head = |at: usize| {
        let rest: String = letters.get(at + 1..).unwrap_or_default().iter().collect();
        let rest = rest.trim_start_matches(|letter: char| matches!(letter, '+' | '-') || letter.is_ascii_digit());
        rest.is_empty() || rest.starts_with('#') || rest.trim_start().starts_with('#') || rest.trim().is_empty()
    };
    let found = (start..letters.len()).find(|at| {
        let begins = *at == start || letters.get(at - 1).is_some_and(|before| before.is_whitespace());
        begins && matches!(letters.get(*at), Some('|' | '>')) && is_head(*at)
    });
    match found {
        // Behind a key.
        Some(head) if head > start => (start, Some(head)),
        Some(head) => (owner.min(head), Some(head)),
        None => (start, None),
    }
}
