//! Patterns for branches, tags and paths that match nothing.
//!
//! Source: GitHub docs, "Filter pattern cheat sheet"; git-check-ref-format(1) for what a branch or tag may be called.

use std::ops::Range;

use crate::github::report::Report;
use crate::yaml::YamlNode;

use super::walk::listed;

/// Signs that mean something in a pattern, and may be written with `\` before them.
const SPECIAL: &str = "*?+[]!\\";

/// What is wrong with a pattern: where, what, and what to do.
type Fault = (Range<usize>, String, String);

pub(super) fn check(trigger: &YamlNode, report: &mut Report<'_>) {
    for (key, value) in trigger.entries() {
        let faults: fn(&str) -> Option<Fault> = match key.text() {
            Some("branches" | "branches-ignore" | "tags" | "tags-ignore") => in_ref,
            Some("paths" | "paths-ignore") => in_path,
            _ => continue,
        };
        for node in listed(Some(value)) {
            let Some(text) = node.text().filter(|text| !text.is_empty()) else { continue };
            if let Some((part, message, help)) = in_pattern(text).or_else(|| faults(text)) {
                report.warning_within(node, part, message, Some(help));
            }
        }
    }
}

/// What is wrong whatever it is for.
fn in_pattern(text: &str) -> Option<Fault> {
    let fault = |part: Range<usize>, message: &str, help: &str| Some((part, message.to_owned(), help.to_owned()));
    if text == "!" {
        return fault(0..1, "`!` alone leaves out nothing", "write a pattern behind it");
    }
    let mut before = None;
    let mut signs = text.char_indices().skip(usize::from(text.starts_with('!')));
    while let Some((at, sign)) = signs.next() {
        let part = at..at + sign.len_utf8();
        match sign {
            '\\' => match text.get(at + 1..).and_then(|rest| rest.chars().next()) {
                Some(escaped) if SPECIAL.contains(escaped) => {
                    signs.next();
                }
                escaped => {
                    let escaped = escaped.map_or_else(String::new, String::from);
                    let help = "patterns are no regular expressions: `[0-9]+` is a number, `*` any text without `/`";
                    return fault(
                        at..at + 1 + escaped.len(),
                        &format!("`\\{escaped}` means nothing in a pattern: `\\` stands before {SPECIAL} alone"),
                        help,
                    );
                }
            },
            '?' | '+' if before.is_none_or(|before| matches!(before, '*' | '?' | '+' | '/')) => {
                let help = "`?` is no or one, `+` one or more of the sign before it; `*` is any text";
                return fault(part, &format!("there is nothing before `{sign}` that it could count"), help);
            }
            '[' => {
                let rest = text.get(at + 1..).unwrap_or_default();
                let Some(length) = rest.find(']') else {
                    return fault(at..text.len(), "the `[` is not closed", "close it with `]`, or write `\\[`");
                };
                let class = rest.get(..length).unwrap_or_default();
                if class.is_empty() {
                    return fault(at..at + 2, "there is nothing between `[` and `]`", "name characters, as in `[a-z]`");
                }
                let signs_of: Vec<char> = class.chars().collect();
                if let Some([from, _, to]) =
                    signs_of.windows(3).find(|three| matches!(three, [from, '-', to] if from > to))
                {
                    let help = format!("write `{to}-{from}`");
                    return fault(at..at + length + 2, &format!("the range `{from}-{to}` runs backwards"), &help);
                }
                for _ in 0..=class.chars().count() {
                    signs.next();
                }
            }
            _ => {}
        }
        before = Some(sign);
    }
    None
}

/// What no branch and no tag is called.
fn in_ref(text: &str) -> Option<Fault> {
    let name = text.strip_prefix('!').unwrap_or(text);
    let shift = text.len() - name.len();
    let whole = || shift..text.len();
    let never = |part: Range<usize>, why: &str, help: &str| {
        Some((part, format!("no branch or tag has such a name: {why}"), help.to_owned()))
    };
    if let Some(rest) = ["refs/heads/", "refs/tags/"].iter().find_map(|prefix| name.strip_prefix(prefix)) {
        return never(whole(), "names are written without `refs/…/`", &format!("write `{rest}`"));
    }
    if let Some((at, sign)) = name.char_indices().find(|(_, sign)| " ~^:".contains(*sign) || sign.is_control()) {
        let part = shift + at..shift + at + sign.len_utf8();
        return never(part, &format!("`{}` may not stand in it", sign.escape_debug()), "leave it out");
    }
    if name.starts_with('/') || name.ends_with('/') {
        return never(whole(), "it does not begin or end with `/`", "write `name/**` for all that begin with `name/`");
    }
    for wrong in ["//", "..", "@{"] {
        if let Some(at) = name.find(wrong) {
            return never(
                shift + at..shift + at + wrong.len(),
                &format!("`{wrong}` may not stand in it"),
                "leave it out",
            );
        }
    }
    if name.ends_with('.') || name.ends_with(".lock") {
        return never(whole(), "it does not end with `.` or `.lock`", "leave the end out");
    }
    None
}

/// What no path of a repository begins or ends with.
fn in_path(text: &str) -> Option<Fault> {
    let path = text.strip_prefix('!').unwrap_or(text);
    let shift = text.len() - path.len();
    let fault = |part: Range<usize>, message: &str, help: String| Some((part, message.to_owned(), help));
    if path.trim() != path {
        return fault(
            0..text.len(),
            "the space at its end is a part of the pattern",
            format!("write `{}`", path.trim()),
        );
    }
    if path.split('/').any(|part| matches!(part, "." | "..")) {
        let help = "write it as seen from the root of the repository, without `./`".to_owned();
        return fault(shift..text.len(), "no path of a repository has `.` or `..` in it", help);
    }
    if let Some(rest) = path.strip_prefix('/') {
        return fault(shift..shift + 1, "paths do not begin with `/`: this matches nothing", format!("write `{rest}`"));
    }
    if let Some(folder) = path.strip_suffix('/') {
        let help = format!("write `{folder}/**` for all files below it");
        return fault(shift..text.len(), "a folder alone matches no file", help);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_matches_nothing_is_told_from_one_that_does() {
        for (text, wrong) in [
            ("v\\d+", Some("`\\d` means nothing")),
            ("!", Some("`!` alone")),
            ("+x", Some("nothing before `+`")),
            ("v*?", Some("nothing before `?`")),
            ("v[0-", Some("not closed")),
            ("v[]", Some("nothing between")),
            ("v[9-0]", Some("backwards")),
            ("v[0-9]+.[0-9]+?", Some("nothing before `?`")),
            ("v[0-9]+.[0-9]+", None),
            ("!release/**", None),
            ("a\\*b", None),
        ] {
            let found = in_pattern(text);
            let found = found.as_ref().map(|(_, message, _)| message.as_str());
            assert!(found.is_some() == wrong.is_some(), "{text}: {found:?}");
            assert!(found.unwrap_or_default().contains(wrong.unwrap_or_default()), "{text}: {found:?}");
        }
        for (text, wrong) in [
            ("refs/heads/main", true),
            ("a b", true),
            ("a^", true),
            ("/main", true),
            ("a//b", true),
            ("a..b", true),
            ("x.lock", true),
            ("feature/**", false),
            ("v1.*", false),
            ("!main", false),
        ] {
            assert_eq!(in_ref(text).is_some(), wrong, "{text}");
        }
        for (text, wrong) in
            [("./src", true), ("/src/**", true), ("docs/", true), (" a", true), ("**.md", false), ("!src/*.rs", false)]
        {
            assert_eq!(in_path(text).is_some(), wrong, "{text}");
        }
    }
}
