//! Patterns for the names of branches, tags, paths and environments, by GitHub's rules (GitHub docs: "Filter pattern
//! cheat sheet").

use std::ops::RangeInclusive;

/// A list of patterns. The last one that matches decides; one that begins with `!` decides against.
pub struct NamePatterns(Vec<(Verdict, Glob)>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    In,
    Out,
}

impl NamePatterns {
    /// Reads patterns; any text is one.
    pub fn new(patterns: &[String]) -> Self {
        let read = |pattern: &String| match pattern.strip_prefix('!') {
            Some(pattern) => (Verdict::Out, Glob::new(pattern)),
            None => (Verdict::In, Glob::new(pattern)),
        };
        Self(patterns.iter().map(read).collect())
    }

    /// Whether the list takes a name.
    pub fn matches(&self, name: &str) -> bool {
        let last = self.0.iter().rev().find(|(_, glob)| glob.matches(name));
        last.is_some_and(|(verdict, _)| *verdict == Verdict::In)
    }
}

/// One pattern, as the states of a machine that reads a name once: time is names times patterns, whatever they hold.
struct Glob(Vec<State>);

enum State {
    /// One of these characters.
    One(Class),
    /// Any number of such characters.
    Many(Class),
    /// On to the next state, or as many states further.
    Skip(usize),
    /// On to the next state, or back to the one before.
    Again,
}

enum Class {
    Any,
    NoSlash,
    Is(char),
    Among(Vec<RangeInclusive<char>>),
}

impl Class {
    fn takes(&self, character: char) -> bool {
        match self {
            Self::Any => true,
            Self::NoSlash => character != '/',
            Self::Is(wanted) => character == *wanted,
            Self::Among(ranges) => ranges.iter().any(|range| range.contains(&character)),
        }
    }
}

impl Glob {
    fn new(pattern: &str) -> Self {
        let mut states = Vec::new();
        let mut rest = pattern;
        while let Some(character) = rest.chars().next() {
            let at_start = rest.len() == pattern.len() || matches!(states.last(), Some(State::One(Class::Is('/'))));
            let after = rest.get(character.len_utf8()..).unwrap_or_default();
            rest = match character {
                '*' if after.starts_with("*/") && at_start => {
                    // `**/` is also no folder at all.
                    states.extend([State::Skip(3), State::Many(Class::Any), State::One(Class::Is('/'))]);
                    after.get(2..).unwrap_or_default()
                }
                '*' if after.starts_with('*') => {
                    states.push(State::Many(Class::Any));
                    after.trim_start_matches('*')
                }
                '*' => {
                    states.push(State::Many(Class::NoSlash));
                    after
                }
                '?' if matches!(states.last(), Some(State::One(_))) => {
                    states.insert(states.len() - 1, State::Skip(2));
                    after
                }
                '+' if matches!(states.last(), Some(State::One(_))) => {
                    states.push(State::Again);
                    after
                }
                '[' => match class(after) {
                    Some((class, after)) => {
                        states.push(State::One(class));
                        after
                    }
                    None => {
                        states.push(State::One(Class::Is('[')));
                        after
                    }
                },
                '\\' => match after.chars().next() {
                    Some(escaped) => {
                        states.push(State::One(Class::Is(escaped)));
                        after.get(escaped.len_utf8()..).unwrap_or_default()
                    }
                    None => {
                        states.push(State::One(Class::Is('\\')));
                        after
                    }
                },
                other => {
                    states.push(State::One(Class::Is(other)));
                    after
                }
            };
        }
        Self(states)
    }

    fn matches(&self, name: &str) -> bool {
        let mut current = vec![false; self.0.len() + 1];
        self.enter(0, &mut current);
        for character in name.chars() {
            let mut next = vec![false; current.len()];
            for (at, state) in self.0.iter().enumerate().filter(|(at, _)| current.get(*at) == Some(&true)) {
                match state {
                    State::One(class) if class.takes(character) => self.enter(at + 1, &mut next),
                    State::Many(class) if class.takes(character) => self.enter(at, &mut next),
                    _ => {}
                }
            }
            current = next;
        }
        current.last() == Some(&true)
    }

    /// Marks a state and all it leads to without a character.
    fn enter(&self, at: usize, marked: &mut [bool]) {
        let mut open = vec![at];
        while let Some(at) = open.pop() {
            match marked.get_mut(at) {
                Some(mark) if !*mark => *mark = true,
                _ => continue,
            }
            match self.0.get(at) {
                Some(State::Many(_)) => open.push(at + 1),
                Some(State::Skip(count)) => open.extend([at + 1, at + count]),
                Some(State::Again) => open.extend([at + 1, at.saturating_sub(1)]),
                Some(State::One(_)) | None => {}
            }
        }
    }
}

/// The class after a `[`, and what follows its `]`; `None` where it is not closed or empty.
fn class(text: &str) -> Option<(Class, &str)> {
    let (inside, after) = text.split_once(']').filter(|(inside, _)| !inside.is_empty())?;
    let characters: Vec<char> = inside.chars().collect();
    let mut ranges = Vec::new();
    let mut rest = characters.as_slice();
    loop {
        rest = match rest {
            [from, '-', to, after @ ..] => {
                ranges.push(*from..=*to);
                after
            }
            [one, after @ ..] => {
                ranges.push(*one..=*one);
                after
            }
            [] => return Some((Class::Among(ranges), after)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_githubs_cheat_sheet() {
        for (pattern, yes, no) in [
            ("feature/*", &["feature/my-branch", "feature/your-branch"][..], &["feature/a/b", "feature"][..]),
            ("feature/**", &["feature/beta-a/my-branch", "feature/mona/the/octocat"], &["features/x"]),
            ("main", &["main"], &["mainly", "a/main"]),
            ("*", &["main", "releases"], &["all/the/branches"]),
            ("**", &["all/the/branches", "every/tag"], &[]),
            ("*feature", &["mona-feature", "feature", "ver-10-feature"], &["feature-x"]),
            ("v2*", &["v2", "v2.0", "v2.9"], &["v1"]),
            ("v[12].[0-9]+.[0-9]+", &["v1.10.1", "v2.0.0"], &["v3.0.0", "v1..0"]),
            ("*.jsx?", &["page.js", "page.jsx"], &["page.jsxx", "a/page.js"]),
            ("**.js", &["index.js", "js/index.js", "src/js/app.js"], &["app.jsx"]),
            ("docs/*", &["docs/README.md"], &["docs/a/b.md"]),
            (
                "docs/**/*.md",
                &["docs/README.md", "docs/mona/hello-world.md", "docs/a/markdown/file.md"],
                &["README.md"],
            ),
            ("**/docs/**", &["docs/hello.md", "dir/docs/my-file.txt", "space/docs/plan/space.doc"], &["docs"]),
            ("**/README.md", &["README.md", "js/README.md"], &["xREADME.md"]),
            ("**/*src/**", &["a/src/app.js", "my-src/code/js/app.js"], &["srcs/a"]),
            ("**/*-post.md", &["my-post.md", "path/their-post.md"], &["post.md"]),
            ("**/migrate-*.sql", &["migrate-10909.sql", "db/sept/migrate-v1.sql"], &["migrate.sql"]),
            ("[CB]at", &["Cat", "Bat"], &["cat", "Rat"]),
            ("a\\*b", &["a*b"], &["axb"]),
            ("v[0-", &["v[0-"], &["v0"]),
        ] {
            let glob = Glob::new(pattern);
            yes.iter().for_each(|name| assert!(glob.matches(name), "{pattern} takes {name}"));
            no.iter().for_each(|name| assert!(!glob.matches(name), "{pattern} refuses {name}"));
        }
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let patterns =
            |list: &[&str]| NamePatterns::new(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert!(patterns(&["releases/**", "!releases/**-alpha", "releases/x-alpha"]).matches("releases/x-alpha"));
        assert!(!patterns(&["releases/**", "!releases/**-alpha"]).matches("releases/beta/3-alpha"));
        assert!(!patterns(&["!main"]).matches("develop"), "a list of exceptions alone takes nothing");
    }

    #[test]
    fn attack_08_a_hostile_pattern_costs_no_more_than_its_length() {
        let glob = Glob::new(&"a+?**[a-z]+".repeat(300));
        assert!(!glob.matches(&format!("{}!", "a".repeat(300))));
    }
}
