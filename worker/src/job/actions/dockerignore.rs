//! `.dockerignore`: what of its context a build does not see.
//!
//! Source of the rules: Docker docs, "Build context", and Go's `path/filepath` (`Match`, `Clean`), to which they point.

use regex::{Regex, RegexBuilder};

/// Bytes that one pattern may take once it is compiled: whoever wrote it is a stranger.
const COMPILED: usize = 1 << 20;
/// Patterns of one file.
const PATTERNS: usize = 1000;

/// Patterns in their order; the last one that fits decides.
#[derive(Debug)]
pub(super) struct DockerIgnore(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    /// It takes files back in.
    keeps: bool,
    regex: Regex,
}

impl DockerIgnore {
    /// Reads such a file.
    ///
    /// # Errors
    /// The first pattern that is none, with its line.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = if line.starts_with('#') { "" } else { line.trim() };
            let (keeps, written) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let cleaned = clean(written);
            if cleaned.is_empty() {
                continue;
            }
            let wrong = |why: String| format!("line {}: {why}", number + 1);
            if patterns.len() == PATTERNS {
                return Err(wrong(format!("there are more than {PATTERNS} patterns")));
            }
            let regex = RegexBuilder::new(&expression(&cleaned)).size_limit(COMPILED).build();
            let regex = regex.map_err(|_| wrong(format!("`{written}` is no pattern")))?;
            patterns.push(Pattern { keeps, regex });
        }
        Ok(Self(patterns))
    }

    /// Whether a path of the context is left out: it, or a folder that it lies in, fits.
    pub(super) fn leaves_out(&self, path: &str) -> bool {
        let folders = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
        let parts: Vec<&str> = folders.chain([path]).collect();
        let last = self.0.iter().rev().find(|pattern| parts.iter().any(|part| pattern.regex.is_match(part)));
        last.is_some_and(|pattern| !pattern.keeps)
    }
}

/// A path without its detours, from the context's root; one that leads nowhere inside is empty.
fn clean(written: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in written.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn expression(pattern: &str) -> String {
    let mut expression = String::from(r"(?s)\A");
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '*' if rest.next_if_eq(&'*').is_some() => {
                while rest.next_if_eq(&'*').is_some() {}
                rest.next_if_eq(&'/');
                // Any number of folders, none too; at the end, all that is below.
                expression.push_str(if rest.peek().is_none() { ".*" } else { "(.*/)?" });
            }
            '*' => expression.push_str("[^/]*"),
            '?' => expression.push_str("[^/]"),
            '[' => {
                expression.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    expression.push('^');
                }
                for inner in rest.by_ref() {
                    match inner {
                        ']' | '-' => expression.push(inner),
                        '\\' => continue,
                        inner => expression.push_str(&regex::escape(&inner.to_string())),
                    }
                    if inner == ']' {
                        break;
                    }
                }
            }
            '\\' => expression.extend(rest.next().map(|next| regex::escape(&next.to_string()))),
            character => expression.push_str(&regex::escape(&character.to_string())),
        }
    }
    expression.push_str(r"\z");
    expression
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_leave_out_what_docker_documents() {
        // (file, left out, kept)
        let cases: [(&str, &[&str], &[&str]); 14] = [
            ("# a comment\n\n  \n", &[], &["a", "# a comment"]),
            ("*/temp*", &["a/temporary.txt", "a/temp", "a/temp/deep"], &["temp", "a/b/temp"]),
            ("*/*/temp*", &["a/b/temporary.txt"], &["a/temp"]),
            ("temp?", &["tempa", "tempb", "tempa/below"], &["temp", "tempab", "a/tempa"]),
            ("/foo/bar/", &["foo/bar", "foo/bar/x"], &["foo", "x/foo/bar"]),
            ("**/*.go", &["a.go", "x/y/a.go"], &["a.rs"]),
            ("docs/**", &["docs/a", "docs/a/b"], &["docs", "other"]),
            ("a/**/z", &["a/z", "a/b/c/z"], &["a", "z"]),
            ("*.md\n!README.md", &["NOTES.md"], &["README.md", "docs/x.md"]),
            ("*.md\n!README*.md\nREADME-secret.md", &["NOTES.md", "README-secret.md"], &["README.md"]),
            ("*\n!src\n!**/keep", &["a", "docs/x"], &["src", "src/main.rs", "docs/keep"]),
            (".\n./\n..\n/", &[], &["a", "b/c"]),
            ("[a-c].txt\n[^x]y\nw\\*", &["a.txt", "zy", "w*"], &["d.txt", "xy", "wide"]),
            ("a.b\n  spaced  \n! kept \nkept/../kept2", &["a.b", "spaced", "kept2"], &["axb", "kept"]),
        ];
        for (text, out, kept) in cases {
            let ignore = DockerIgnore::read(text).unwrap();
            for (path, expected) in out.iter().map(|path| (path, true)).chain(kept.iter().map(|path| (path, false))) {
                assert_eq!(ignore.leaves_out(path), expected, "{text:?}: {path}");
            }
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_named_with_its_line() {
        assert_eq!(DockerIgnore::read("a\n\n[b").unwrap_err(), "line 3: `[b` is no pattern");
        assert_eq!(DockerIgnore::read("[z-a]").unwrap_err(), "line 1: `[z-a]` is no pattern");
        assert!(DockerIgnore::read(&"x\n".repeat(1001)).unwrap_err().starts_with("line 1001: "));
        // However it is written, it takes no long time: each path is read once.
        let ignore = DockerIgnore::read(&format!("{}x", "*a".repeat(200))).unwrap();
        assert!(!ignore.leaves_out(&"a".repeat(10_000)));
    }
}
