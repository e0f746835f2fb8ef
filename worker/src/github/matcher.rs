//! Problem matchers: patterns that make annotations of what tools print. Pure.
//!
//! Source of the rules: the document "Problem Matchers" of actions/toolkit and the behaviour of GitHub's runner.
//! Expressions run on an engine whose time is linear in the line, so that no pattern can hold a job up; what such an
//! engine cannot do (looking around, back references) is refused by name.

use std::sync::Arc;

use regex::{Captures, Regex, RegexBuilder};
use serde::Deserialize;
use workflow::plan::Annotation;

use crate::dialect::line_reader::LONGEST_REJOINED;

/// Matchers of a job.
const MATCHERS: usize = 50;
/// Patterns of a matcher.
const PATTERNS: usize = 20;
/// Bytes of a compiled pattern.
const COMPILED: usize = 1 << 20;
/// Longest line that is looked at, in bytes.
const LINE: usize = LONGEST_REJOINED;

/// The matchers of a job, the newest first, and what they wait for.
#[derive(Debug, Clone, Default)]
pub(super) struct Matchers {
    active: Vec<Matcher>,
}

#[derive(Debug, Clone)]
struct Matcher {
    owner: String,
    severity: String,
    /// Path against which relative file names are read.
    from: String,
    /// Shared by its copies, which tells them from others.
    patterns: Arc<[Pattern]>,
    /// What the patterns before the last found: entry `i` waits for pattern `i + 1`.
    found: Vec<Option<Found>>,
}

#[derive(Debug)]
struct Pattern {
    regex: Regex,
    groups: Groups,
    repeats: bool,
}

#[derive(Debug, Clone, Default)]
struct Found {
    file: Option<String>,
    from: Option<String>,
    line: Option<String>,
    column: Option<String>,
    end_line: Option<String>,
    end_column: Option<String>,
    severity: Option<String>,
    code: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    problem_matcher: Vec<Written>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    owner: String,
    #[serde(default)]
    severity: String,
    #[serde(default)]
    from_path: String,
    #[serde(default)]
    pattern: Vec<WrittenPattern>,
}

#[derive(Debug, Deserialize)]
struct WrittenPattern {
    regexp: String,
    #[serde(default, rename = "loop")]
    repeats: bool,
    #[serde(flatten)]
    groups: Groups,
}

/// Numbers of the groups that hold a value.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Groups {
    file: Option<usize>,
    from_path: Option<usize>,
    line: Option<usize>,
    column: Option<usize>,
    end_line: Option<usize>,
    end_column: Option<usize>,
    severity: Option<usize>,
    code: Option<usize>,
    message: Option<usize>,
}

impl Matchers {
    /// Whether no line needs to be looked at.
    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Adds the matchers of a file; one with a known owner takes the other's place. Gives their owners. The error says
    /// what is wrong with the file.
    pub(super) fn add(&mut self, text: &[u8]) -> Result<Vec<String>, String> {
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        let file: File = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let matchers = file.problem_matcher.into_iter().map(Matcher::read).collect::<Result<Vec<_>, _>>()?;
        let owners = matchers.iter().map(|matcher| matcher.owner.clone()).collect();
        for matcher in matchers {
            self.remove(&matcher.owner);
            if self.active.len() >= MATCHERS {
                return Err(format!("a job may have {MATCHERS} problem matchers"));
            }
            self.active.insert(0, matcher);
        }
        Ok(owners)
    }

    /// Removes the matcher of an owner.
    pub(super) fn remove(&mut self, owner: &str) {
        self.active.retain(|matcher| !matcher.owner.eq_ignore_ascii_case(owner));
    }

    /// Takes over what a step made of a copy, which was `before`: steps may run at once, each with a copy of its own.
    pub(super) fn learn(&mut self, before: &Self, after: Self) {
        let holds = |matchers: &Self, one: &Matcher| matchers.active.iter().any(|other| one.is_copy_of(other));
        self.active.retain(|own| !holds(before, own) || holds(&after, own));
        for matcher in after.active.into_iter().rev() {
            if holds(before, &matcher) {
                continue;
            }
            self.remove(&matcher.owner);
            if self.active.len() < MATCHERS {
                self.active.insert(0, matcher);
            }
        }
    }

    /// A new step begins: what was found so far belongs to the one before.
    pub(super) fn reset(&mut self) {
        for matcher in &mut self.active {
            matcher.found.fill(None);
        }
    }

    /// Looks at a line of output, without colours. `workspace` is cut off file names.
    pub(super) fn look(&mut self, line: &str, workspace: &str) -> Option<Annotation> {
        if line.len() > LINE {
            return None;
        }
        let hit = self.active.iter_mut().position(|matcher| matcher.take(line));
        let matcher = self.active.get_mut(hit?)?;
        let annotation = matcher.annotation(workspace);
        // What another matcher has begun to see was not what it seemed.
        for (index, matcher) in self.active.iter_mut().enumerate() {
            if Some(index) != hit {
                matcher.found.fill(None);
            }
        }
        annotation
    }
}

impl Matcher {
    fn read(written: Written) -> Result<Self, String> {
        let Written { owner, severity, from_path, pattern } = written;
        let wrong = |why: &str| Err(format!("problem matcher {owner:?}: {why}"));
        if owner.is_empty() {
            return wrong("`owner` is missing");
        }
        if !matches!(severity.to_ascii_lowercase().as_str(), "" | "error" | "warning" | "notice") {
            return wrong("`severity` must be error, warning or notice");
        }
        if pattern.is_empty() || pattern.len() > PATTERNS {
            return wrong(&format!("it needs 1 to {PATTERNS} patterns"));
        }
        let last = pattern.len() - 1;
        if pattern.iter().enumerate().any(|(index, pattern)| pattern.repeats && (index != last || last == 0)) {
            return wrong("only the last of several patterns may have `loop`");
        }
        let mut set = Groups::default();
        for pattern in &pattern {
            if !set.join(&pattern.groups) {
                return wrong("two patterns set the same property");
            }
        }
        if set.message.is_none() {
            return wrong("no pattern sets `message`");
        }
        if pattern.last().is_some_and(|pattern| pattern.repeats && pattern.groups.message.is_none()) {
            return wrong("a pattern with `loop` must set `message`");
        }
        let compiled = pattern.into_iter().map(|pattern| {
            let regex = RegexBuilder::new(&portable(&pattern.regexp)).size_limit(COMPILED).nest_limit(100).build();
            let regex = regex.map_err(|error| {
                let why = error.to_string();
                let why = why.lines().last().unwrap_or_default().trim();
                format!("problem matcher {owner:?}: the expression {:?} is not supported: {why}", pattern.regexp)
            })?;
            Ok(Pattern { regex, groups: pattern.groups, repeats: pattern.repeats })
        });
        let patterns: Arc<[Pattern]> = compiled.collect::<Result<_, String>>()?;
        Ok(Self { owner, severity, from: from_path, found: vec![None; patterns.len()], patterns })
    }

    fn is_copy_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.patterns, &other.patterns)
    }

    /// Takes a line. True: with it a problem is complete; it is the last entry of `found`.
    fn take(&mut self, line: &str) -> bool {
        let last = self.patterns.len() - 1;
        // From the last to the first: a line counts for what waits for it, and may begin something new.
        for index in (0..=last).rev() {
            let before = match index.checked_sub(1) {
                None => Some(Found::default()),
                Some(before) => self.found.get(before).cloned().flatten(),
            };
            let (Some(mut found), Some(pattern)) = (before, self.patterns.get(index)) else { continue };
            let captures = pattern.regex.captures(line);
            let waits = index.checked_sub(1);
            let keeps = captures.is_some() && pattern.repeats;
            if let Some(slot) = waits.filter(|_| !keeps).and_then(|before| self.found.get_mut(before)) {
                *slot = None;
            }
            let matched = captures.is_some();
            if let Some(captures) = captures {
                found.fill(&pattern.groups, &captures);
                if let Some(slot) = self.found.get_mut(index) {
                    *slot = Some(found);
                }
            } else if let Some(slot) = self.found.get_mut(index) {
                *slot = None;
            }
            if matched && index == last {
                return true;
            }
        }
        false
    }

    /// What was found, as an annotation. `None`: it says nothing, or is of no known severity.
    fn annotation(&mut self, workspace: &str) -> Option<Annotation> {
        let found = self.found.last_mut()?.take()?;
        let severity = found.severity.filter(|text| !text.is_empty()).unwrap_or_else(|| self.severity.clone());
        let level = match severity.to_ascii_lowercase().as_str() {
            "" | "error" => "error",
            "warning" => "warning",
            "notice" => "notice",
            _ => return None,
        };
        let message = found.message.filter(|text| !text.is_empty())?;
        let number = |text: Option<String>| text.and_then(|text| text.trim().parse().ok());
        let from = found.from.unwrap_or_else(|| self.from.clone());
        Some(Annotation {
            level: level.to_owned(),
            message,
            title: found.code.filter(|text| !text.is_empty()),
            file: found.file.and_then(|file| relative(&file, &from, workspace)),
            line: number(found.line),
            end_line: number(found.end_line),
            column: number(found.column),
            end_column: number(found.end_column),
        })
    }
}

impl Groups {
    /// Adds another pattern's groups. False: one was there.
    fn join(&mut self, other: &Self) -> bool {
        let pairs = [
            (&mut self.file, other.file),
            (&mut self.from_path, other.from_path),
            (&mut self.line, other.line),
            (&mut self.column, other.column),
            (&mut self.end_line, other.end_line),
            (&mut self.end_column, other.end_column),
            (&mut self.severity, other.severity),
            (&mut self.code, other.code),
            (&mut self.message, other.message),
        ];
        let mut fresh = true;
        for (own, other) in pairs {
            fresh &= own.is_none() || other.is_none();
            *own = own.or(other);
        }
        fresh
    }
}

impl Found {
    fn fill(&mut self, groups: &Groups, captures: &Captures<'_>) {
        let text = |group: Option<usize>| group.and_then(|group| captures.get(group)).map(|m| m.as_str().to_owned());
        let pairs = [
            (&mut self.file, groups.file),
            (&mut self.from, groups.from_path),
            (&mut self.line, groups.line),
            (&mut self.column, groups.column),
            (&mut self.end_line, groups.end_line),
            (&mut self.end_column, groups.end_column),
            (&mut self.severity, groups.severity),
            (&mut self.code, groups.code),
            (&mut self.message, groups.message),
        ];
        for (own, group) in pairs {
            if group.is_some() {
                *own = text(group);
            }
        }
    }
}

/// A file as a path in the workspace; `None`: it lies elsewhere. A relative one belongs to the folder of `from`.
fn relative(file: &str, from: &str, workspace: &str) -> Option<String> {
    let file = file.trim().replace('\\', "/");
    let below = |path: &str| {
        let inside = path.strip_prefix(workspace).filter(|rest| rest.starts_with('/'));
        inside.map(str::to_owned).or_else(|| (!path.starts_with('/')).then(|| path.to_owned()))
    };
    let path = match from.rsplit_once('/') {
        Some((folder, _)) if !file.starts_with('/') => format!("{folder}/{file}"),
        _ => file,
    };
    super::uses::inside(&below(&path)?).filter(|path| !path.is_empty())
}

/// Where in a class of an expression the next character stands.
#[derive(Clone, Copy)]
enum ClassPosition {
    /// It begins something new; a `-` is itself.
    Fresh,
    /// After a character; a `-` may begin a range.
    After,
    /// It ends a range.
    RangeEnd,
}

/// A JavaScript expression in the words of our engine, where a `[` or an operator in a class means more than itself.
fn portable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut class = None;
    while let Some(char) = chars.next() {
        let Some(place) = class else {
            out.push(char);
            match char {
                // An escape that means nothing is the character itself there.
                '\\' => out.extend(chars.next()),
                '[' => {
                    class = Some(ClassPosition::Fresh);
                    out.extend(chars.next_if_eq(&'^'));
                }
                _ => {}
            }
            continue;
        };
        let beyond = if matches!(place, ClassPosition::RangeEnd) { ClassPosition::Fresh } else { ClassPosition::After };
        class = match (char, place) {
            (']', _) => {
                out.push(']');
                None
            }
            ('-', ClassPosition::After) if chars.peek() != Some(&']') => {
                out.push('-');
                Some(ClassPosition::RangeEnd)
            }
            ('\\', _) => {
                let escaped = chars.next();
                out.push('\\');
                out.extend(escaped);
                // A class in a class begins no range.
                let many = escaped.is_some_and(|escaped| "dDsSwW".contains(escaped));
                Some(if many { ClassPosition::Fresh } else { beyond })
            }
            ('[' | '&' | '~' | '-', _) => {
                out.push('\\');
                out.push(char);
                Some(beyond)
            }
            _ => {
                out.push(char);
                Some(beyond)
            }
        };
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn matchers(json: &serde_json::Value) -> Matchers {
        let mut matchers = Matchers::default();
        matchers.add(serde_json::json!({ "problemMatcher": json }).to_string().as_bytes()).unwrap();
        matchers
    }

    fn seen(matchers: &mut Matchers, lines: &[&str]) -> Vec<String> {
        let shown = |a: Annotation| {
            let place = [a.line, a.column].map(|n| n.map(|n| n.to_string()).unwrap_or_default()).join(":");
            let title = a.title.unwrap_or_default();
            format!("{} {} {place} {title} {}", a.level, a.file.unwrap_or_default(), a.message)
        };
        lines.iter().filter_map(|line| matchers.look(line, "/workspace")).map(shown).collect()
    }

    #[test]
    fn steps_that_run_at_once_add_to_the_matchers_of_their_job_and_take_away_only_what_they_removed() {
        let with = |matchers: &mut Matchers, owner: &str| {
            let file = serde_json::json!({"problemMatcher": [{"owner": owner, "pattern": [{"regexp": format!("^({owner})$"), "message": 1}]}]});
            matchers.add(file.to_string().as_bytes()).unwrap();
        };
        let mut job = Matchers::default();
        ["a", "b"].iter().for_each(|owner| with(&mut job, owner));
        let (mut one, mut two, before) = (job.clone(), job.clone(), job.clone());
        with(&mut one, "c");
        one.remove("a");
        with(&mut two, "d");
        job.learn(&before, two);
        job.learn(&before, one);
        let found = |word: &&&str| job.clone().look(word, "").is_some();
        assert_eq!(["a", "b", "c", "d"].iter().filter(found).copied().collect::<Vec<_>>(), ["b", "c", "d"]);
    }

    #[test]
    fn one_line_gives_file_place_severity_code_and_message() {
        let mut gcc = matchers(&serde_json::json!([{"owner": "gcc", "pattern": [{
            "regexp": r"^(.+?):(\d+):(\d+):\s+(?:fatal )?(\w+): (.*?)(?: \[([^[\]]+)\])?$",
            "file": 1, "line": 2, "column": 3, "severity": 4, "message": 5, "code": 6,
        }]}]));
        let lines = [
            "/workspace/src/a.c:3:7: warning: unused [-Wunused]",
            "src/b.c:4:1: error: bad",
            "/usr/include/x.h:1:2: error: elsewhere",
            "a.c:1:1: remark: not a severity",
            "nothing to see",
        ];
        let expected = ["warning src/a.c 3:7 -Wunused unused", "error src/b.c 4:1  bad", "error  1:2  elsewhere"];
        assert_eq!(seen(&mut gcc, &lines), expected);
    }

    #[test]
    fn the_last_of_several_patterns_may_repeat() {
        let mut eslint = matchers(&serde_json::json!([{"owner": "eslint", "pattern": [
            {"regexp": r"^([^\s].*)$", "file": 1},
            {"regexp": r"^\s+(\d+):(\d+)\s+(error|warning)\s+(.*)\s\s+(.*)$",
             "line": 1, "column": 2, "severity": 3, "message": 4, "code": 5, "loop": true},
        ]}]));
        let lines = [
            "test.js",
            "  1:0   error  Missing  strict",
            "  5:10  warning  Unused  no-unused",
            "",
            "  9:9  error  Alone  x",
        ];
        let expected = ["error test.js 1:0 strict Missing", "warning test.js 5:10 no-unused Unused"];
        assert_eq!(seen(&mut eslint, &lines), expected);
        seen(&mut eslint, &["test.js"]);
        eslint.reset();
        assert_eq!(seen(&mut eslint, &["  1:0   error  Missing  strict"]), [""; 0]);
    }

    #[test]
    fn three_lines_in_a_row_make_one_problem_and_a_path_may_come_from_another() {
        let mut matchers = matchers(&serde_json::json!([{"owner": "x", "severity": "notice", "pattern": [
            {"regexp": "^at (.*)$", "fromPath": 1}, {"regexp": "^file (.*)$", "file": 1}, {"regexp": "^why (.*)$", "message": 1},
        ]}]));
        let lines = ["at sub/p.proj", "file a.x", "why one", "at sub/p.proj", "other", "file a.x", "why two"];
        assert_eq!(seen(&mut matchers, &lines), ["notice sub/a.x :  one"]);
    }

    #[test]
    fn the_newest_matcher_comes_first_and_an_owner_has_one() {
        let simple = |owner: &str, level: &str| serde_json::json!({"owner": owner, "severity": level, "pattern": [{"regexp": "(.*)", "message": 1}]});
        let mut matchers = matchers(&serde_json::json!([simple("a", "error"), simple("b", "warning")]));
        assert_eq!(seen(&mut matchers, &["x"]), ["warning  :  x"]);
        matchers.remove("B");
        assert_eq!(seen(&mut matchers, &["x"]), ["error  :  x"]);
        matchers.add(serde_json::json!({"problemMatcher": [simple("A", "notice")]}).to_string().as_bytes()).unwrap();
        assert_eq!(seen(&mut matchers, &["x"]), ["notice  :  x"]);
        matchers.remove("a");
        assert!(matchers.is_empty());
    }

    #[test]
    fn matchers_that_break_the_rules_are_refused_with_the_rule() {
        for (matcher, part) in [
            (serde_json::json!({"pattern": [{"regexp": "x", "message": 0}]}), "owner"),
            (serde_json::json!({"owner": "o"}), "1 to 20 patterns"),
            (
                serde_json::json!({"owner": "o", "severity": "bad", "pattern": [{"regexp": "x", "message": 0}]}),
                "severity",
            ),
            (serde_json::json!({"owner": "o", "pattern": [{"regexp": "x", "message": 0, "loop": true}]}), "loop"),
            (serde_json::json!({"owner": "o", "pattern": [{"regexp": "x", "file": 0}]}), "message"),
            (serde_json::json!({"owner": "o", "pattern": [{"regexp": "(?=x)", "message": 0}]}), "not supported"),
            (
                serde_json::json!({"owner": "o", "pattern": [{"regexp": "a{1000}{1000}", "message": 0}]}),
                "not supported",
            ),
            (
                serde_json::json!({"owner": "o", "pattern": [{"regexp": "x", "message": 0}, {"regexp": "y", "message": 0}]}),
                "same property",
            ),
        ] {
            let text = serde_json::json!({"problemMatcher": [matcher]}).to_string();
            let error = Matchers::default().add(text.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(Matchers::default().add(b"{}").is_err());
    }

    #[test]
    fn attack_10_an_expression_that_would_hold_others_up_takes_no_longer() {
        let mut matchers =
            matchers(&serde_json::json!([{"owner": "o", "pattern": [{"regexp": "^(a+)+$", "message": 1}]}]));
        let line = format!("{}!", "a".repeat(LINE - 1));
        let began = std::time::Instant::now();
        assert_eq!(seen(&mut matchers, &[&line]), [""; 0]);
        assert!(began.elapsed().as_secs() < 60);
    }

    #[test]
    fn expressions_of_javascript_mean_the_same_here() {
        for (regexp, line) in [
            (r"^[^[]+\[x\]$", "a[x]"),
            (r"[a&&b]+", "&"),
            (r"^\/x$", "/x"),
            (r"[\]]", "]"),
            (r"[+--]", ","),
            (r"^[--/]$", "."),
            (r"^[\w-.]+$", "a-.b"),
            (r"^[a-c-]+$", "b-"),
        ] {
            assert!(Regex::new(&portable(regexp)).unwrap().is_match(line), "{regexp}");
        }
    }
}
