//! Problem matchers: patterns that make annotations of what tools print. Pure, but for the time they take.
//!
//! Source of the rules: the document "Problem Matchers" of actions/toolkit and the behaviour of GitHub's runner.
//! Expressions run on an engine whose time is linear in the line; what such an engine cannot do (looking around, back
//! references) is refused by name. Linear can still be long, so the matchers of a job have a time in sum, and look no
//! further when it is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use regex::{Captures, Regex, RegexBuilder};
use serde::Deserialize;
use workflow::plan::Annotation;

use crate::dialect::line_reader::LONGEST_REJOINED;

/// Matchers of a job.
const MATCHERS: usize = 30;
/// Patterns of a matcher.
const PATTERNS: usize = 10;
/// Bytes of the expressions of a job's matchers, as written.
const EXPRESSIONS: usize = 64 << 10;
/// Bytes of a compiled pattern, and of what its engine remembers between lines.
const COMPILED: usize = 64 << 10;
const REMEMBERED: usize = 256 << 10;
/// How long the matchers of a job may work in all.
const TIME: Duration = Duration::from_secs(30);
/// Longest line that is looked at, in bytes.
const LINE: usize = LONGEST_REJOINED;

/// The matchers of a job, the newest first, and what they wait for.
#[derive(Debug, Clone, Default)]
pub(super) struct Matchers {
    active: Vec<Matcher>,
    time: MatchTime,
}

/// The time that the matchers of a job took, in all their copies.
#[derive(Debug, Clone, Default)]
struct MatchTime(Arc<TimeSpent>);

#[derive(Debug, Default)]
struct TimeSpent {
    nanoseconds: AtomicU64,
    /// Somebody was told that it is over.
    is_said: AtomicBool,
}

impl MatchTime {
    fn is_over(&self) -> bool {
        u128::from(self.0.nanoseconds.load(Ordering::Relaxed)) >= TIME.as_nanos()
    }

    fn spend<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        let spent = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.nanoseconds.fetch_add(spent, Ordering::Relaxed);
        done
    }
}

#[derive(Debug, Clone)]
struct Matcher {
    owner: String,
    severity: String,
    /// Path against which relative file names are read.
    from: String,
    /// Shared by its copies, which tells them from others.
    patterns: Arc<[Pattern]>,
    /// Bytes of their expressions.
    length: usize,
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
        self.active.is_empty() || self.time.is_over()
    }

    /// Why no line is looked at any longer, once in a job.
    pub(super) fn say_over(&self) -> Option<String> {
        let first = self.time.is_over() && !self.time.0.is_said.swap(true, Ordering::Relaxed);
        first.then(|| {
            format!(
                "the problem matchers of this job took more than {} s and no longer look at its output: use simpler \
                 expressions, or remove-matcher before long output",
                TIME.as_secs()
            )
        })
    }

    /// Adds the matchers of a file; one with a known owner takes the other's place. Gives their owners. The error says
    /// what is wrong with the file.
    pub(super) fn add(&mut self, text: &[u8]) -> Result<Vec<String>, String> {
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        let file: File = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let written = file.problem_matcher.iter().flat_map(|matcher| &matcher.pattern);
        let length: usize = written.map(|pattern| pattern.regexp.len()).sum();
        let known: usize = self.active.iter().map(|matcher| matcher.length).sum();
        if known + length > EXPRESSIONS {
            return Err(format!("the expressions of a job's problem matchers may have {} KiB", EXPRESSIONS >> 10));
        }
        if file.problem_matcher.len() > MATCHERS {
            return Err(format!("a job may have {MATCHERS} problem matchers"));
        }
        if self.time.is_over() {
            return Ok(Vec::new());
        }
        let read = || file.problem_matcher.into_iter().map(Matcher::read).collect::<Result<Vec<_>, _>>();
        let matchers = self.time.spend(read)?;
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
        let time = &self.time;
        let hit = self.active.iter_mut().position(|matcher| matcher.take(line, time));
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
        let length = pattern.iter().map(|pattern| pattern.regexp.len()).sum();
        let compiled = pattern.into_iter().map(|pattern| {
            let mut builder = RegexBuilder::new(&portable(&pattern.regexp));
            let regex = builder.size_limit(COMPILED).dfa_size_limit(REMEMBERED).nest_limit(100).build();
            let regex = regex.map_err(|error| {
                let why = error.to_string();
                let why = why.lines().last().unwrap_or_default().trim();
                format!("problem matcher {owner:?}: the expression {:?} is not supported: {why}", pattern.regexp)
            })?;
            Ok(Pattern { regex, groups: pattern.groups, repeats: pattern.repeats })
        });
        let patterns: Arc<[Pattern]> = compiled.collect::<Result<_, String>>()?;
        Ok(Self { owner, severity, from: from_path, length, found: vec![None; patterns.len()], patterns })
    }

    fn is_copy_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.patterns, &other.patterns)
    }

    /// Takes a line. True: with it a problem is complete; it is the last entry of `found`.
    fn take(&mut self, line: &str, time: &MatchTime) -> bool {
        let last = self.patterns.len() - 1;
        // From the last to the first: a line counts for what waits for it, and may begin something new.
        for index in (0..=last).rev() {
            let before = match index.checked_sub(1) {
                None => Some(Found::default()),
                Some(before) => self.found.get(before).cloned().flatten(),
            };
            let (Some(mut found), Some(pattern)) = (before, self.patterns.get(index)) else { continue };
            if time.is_over() {
                return false;
            }
            let captures = time.spend(|| pattern.regex.captures(line));
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

/// Characters of a class that has one letter: there they are those of ASCII, which are also few to compile.
fn members(class: char) -> Option<&'static str> {
    match class {
        'd' => Some("0-9"),
        'D' => Some("^0-9"),
        'w' => Some("0-9A-Za-z_"),
        'W' => Some("^0-9A-Za-z_"),
        _ => None,
    }
}

/// A JavaScript expression in the words of our engine, where a `[` or an operator in a class means more than itself.
fn portable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut class = None;
    while let Some(char) = chars.next() {
        let Some(place) = class else {
            match char {
                '\\' => match chars.next() {
                    Some('b') => out.push_str(r"(?-u:\b)"),
                    Some(escaped) => match members(escaped) {
                        Some(members) => out.extend(["[", members, "]"]),
                        None => out.extend(['\\', escaped]),
                    },
                    None => out.push(char),
                },
                '[' => {
                    out.push(char);
                    class = Some(ClassPosition::Fresh);
                    out.extend(chars.next_if_eq(&'^'));
                }
                _ => out.push(char),
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
                match escaped.and_then(members) {
                    Some(members) if members.starts_with('^') => out.extend(["[", members, "]"]),
                    Some(members) => out.push_str(members),
                    None => {
                        out.push('\\');
                        out.extend(escaped);
                    }
                }
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
#[path = "matcher/tests.rs"]
mod tests;
