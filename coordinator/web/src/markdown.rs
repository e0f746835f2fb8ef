//! Summaries of jobs as harmless HTML: no scripts, styles or images, and nothing that loads from elsewhere.
//!
//! Tags are filtered one after the other and never made into a tree. In HTML, an element that was left open is opened
//! again by what follows it, so that a tree may have the square of its text's elements. What is written here is closed in
//! order and not deep: it makes no such tree in a browser either.

use std::fmt;

use pulldown_cmark::{Options, Parser, html::write_html_fmt};

/// Bytes of Markdown that are rendered.
pub(super) const RENDERED: usize = 128 << 10;
/// The HTML of Markdown has at most so many bytes for each of its own.
const GROWTH: usize = 4;
/// Elements open at a time. Tags beyond are left out, their text is not.
const DEPTH: usize = 32;
/// What stands where the rest is left out.
const CUT: &str = "<p>[The rest of this summary is not shown. The JSON of the run has all of it.]</p>";

/// Elements that may stand in a summary, and have an end.
const ELEMENTS: [&str; 35] = [
    "a",
    "b",
    "blockquote",
    "code",
    "dd",
    "del",
    "details",
    "dl",
    "dt",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "i",
    "ins",
    "kbd",
    "li",
    "ol",
    "p",
    "pre",
    "s",
    "strong",
    "sub",
    "summary",
    "sup",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
];

/// Elements that may stand in a summary, and have none.
const VOID: [&str; 2] = ["br", "hr"];

/// Elements whose text is no text of the summary.
const HIDDEN: [&str; 2] = ["script", "style"];

/// Renders hostile Markdown, the first `most` bytes and no more than [`RENDERED`].
pub(super) fn render(text: &str, most: usize) -> String {
    let shown = text.get(..text.floor_char_boundary(most.min(RENDERED))).unwrap_or_default();
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut html = Bounded { text: String::new(), most: shown.len().saturating_mul(GROWTH).max(1024) };
    let is_whole = write_html_fmt(&mut html, Parser::new_ext(shown, options)).is_ok() && shown.len() == text.len();
    let mut filtered = filter(&html.text);
    if !is_whole {
        filtered.push_str(CUT);
    }
    filtered
}

/// Text that ends where it would be too long.
struct Bounded {
    text: String,
    most: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.text.len() + text.len() > self.most {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// HTML with nothing but the elements that may stand there, each with its end.
fn filter(html: &str) -> String {
    let mut to = Filtered { html: String::with_capacity(html.len()), open: Vec::new() };
    let mut rest = html;
    while let Some((text, markup)) = rest.find('<').and_then(|at| rest.split_at_checked(at)) {
        to.html.push_str(text);
        rest = to.markup(markup);
    }
    to.html.push_str(rest);
    to.close_to(0);
    to.html
}

/// What was filtered so far.
struct Filtered {
    html: String,
    /// Elements that have no end yet.
    open: Vec<&'static str>,
}

impl Filtered {
    /// Takes what begins with `<`. Returns what comes after it.
    fn markup<'a>(&mut self, markup: &'a str) -> &'a str {
        let inner = markup.get(1..).unwrap_or_default();
        if let Some(comment) = inner.strip_prefix("!--") {
            // `<!-->` is a comment too.
            return after(inner.get(1..).unwrap_or(comment), "-->");
        }
        if inner.starts_with(['!', '?']) {
            return after(inner, ">");
        }
        if let Some(end) = inner.strip_prefix('/') {
            return match Tag::read(end) {
                Some((tag, rest)) => {
                    self.end(tag.name);
                    rest
                }
                None => after(end, ">"),
            };
        }
        match Tag::read(inner) {
            Some((tag, rest)) if HIDDEN.iter().any(|hidden| tag.is(hidden)) => after_end_of(rest, tag.name),
            Some((tag, rest)) => {
                self.start(&tag);
                rest
            }
            None => {
                self.html.push_str("&lt;");
                inner
            }
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        if let Some(void) = VOID.into_iter().find(|name| tag.is(name)) {
            self.html.extend(["<", void, ">"]);
            return;
        }
        let Some(name) = ELEMENTS.into_iter().find(|name| tag.is(name)) else { return };
        let (ended, within) = ends(name);
        let ended = self.open.iter().rposition(|open| ended.contains(open) || within.contains(open));
        if let Some(at) = ended.filter(|at| self.open.get(*at).is_some_and(|open| !within.contains(open))) {
            self.close_to(at);
        }
        if self.open.len() >= DEPTH {
            return;
        }
        self.open.push(name);
        match tag.href.filter(|href| name == "a" && leads_elsewhere(href)) {
            Some(href) => {
                let href = href.replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;");
                self.html.extend(["<a href=\"", &href, "\" rel=\"noopener noreferrer nofollow\">"]);
            }
            None => self.html.extend(["<", name, ">"]),
        }
    }

    fn end(&mut self, name: &str) {
        if let Some(at) = self.open.iter().rposition(|open| open.eq_ignore_ascii_case(name)) {
            self.close_to(at);
        }
    }

    /// Ends all elements but the first ones.
    fn close_to(&mut self, kept: usize) {
        while self.open.len() > kept
            && let Some(name) = self.open.pop()
        {
            self.html.extend(["</", name, ">"]);
        }
    }
}

/// Which open elements end where this one begins, and the elements within which that is so: HTML lets their ends be left
/// out.
fn ends(name: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match name {
        "a" => (&["a"], &["td", "th"]),
        "b" | "code" | "del" | "em" | "i" | "ins" | "kbd" | "s" | "strong" | "sub" | "summary" | "sup" => (&[], &[]),
        "dd" | "dt" => (&["dd", "dt"], &["dl"]),
        "li" => (&["li"], &["ol", "ul"]),
        "tbody" | "thead" => (&["tbody", "thead"], &["table"]),
        "td" | "th" => (&["td", "th"], &["tr"]),
        "tr" => (&["tr"], &["table"]),
        _ => (&["p"], &["blockquote", "dd", "details", "li", "td", "th"]),
    }
}

/// Whether a link leads to another site, or to something of Nostr.
fn leads_elsewhere(href: &str) -> bool {
    ["https://", "http://", "nostr:"].iter().any(|scheme| {
        let start = href.as_bytes().get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
    })
}

/// A tag, without what is of no use here.
struct Tag<'a> {
    name: &'a str,
    /// As it stands there, with its character references.
    href: Option<&'a str>,
}

impl<'a> Tag<'a> {
    /// Reads a tag after its `<` or `</`, and returns what comes after it; `None`: it is none. What has no end is all of it
    /// a tag.
    fn read(text: &'a str) -> Option<(Self, &'a str)> {
        const SPACE: [char; 5] = [' ', '\t', '\n', '\r', '\x0c'];
        let split = |text: &'a str, at: &dyn Fn(char) -> bool| {
            text.split_at_checked(text.find(at).unwrap_or(text.len())).unwrap_or((text, ""))
        };
        if !text.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return None;
        }
        let (name, mut rest) = split(text, &|at| SPACE.contains(&at) || at == '/' || at == '>');
        let mut tag = Self { name, href: None };
        loop {
            rest = rest.trim_start_matches(|at| SPACE.contains(&at) || at == '/');
            if rest.is_empty() {
                return Some((tag, rest));
            }
            if let Some(rest) = rest.strip_prefix('>') {
                return Some((tag, rest));
            }
            // A name may begin with `=`.
            let first = rest.chars().next().map_or(0, char::len_utf8);
            let (_, behind) = rest.split_at_checked(first).unwrap_or((rest, ""));
            let (_, behind) = split(behind, &|at| SPACE.contains(&at) || matches!(at, '/' | '>' | '='));
            let attribute = rest.get(..rest.len() - behind.len()).unwrap_or_default();
            rest = behind.trim_start_matches(SPACE);
            let Some(value) = rest.strip_prefix('=') else { continue };
            let value = value.trim_start_matches(SPACE);
            let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
            let value = match quote.and_then(|quote| value.strip_prefix(quote)?.split_once(quote)) {
                Some((value, behind)) => {
                    rest = behind;
                    value
                }
                None if quote.is_some() => return Some((tag, "")),
                None => {
                    let (value, behind) = split(value, &|at| SPACE.contains(&at) || at == '>');
                    rest = behind;
                    value
                }
            };
            if attribute.eq_ignore_ascii_case("href") && tag.href.is_none() {
                tag.href = Some(value);
            }
        }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// What comes after `end`: nothing, where there is none.
fn after<'a>(text: &'a str, end: &str) -> &'a str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

/// What comes after the end tag of an element that has no elements within.
fn after_end_of<'a>(text: &'a str, name: &str) -> &'a str {
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once("</") {
        let is_end = behind.as_bytes().get(..name.len()).is_some_and(|end| end.eq_ignore_ascii_case(name.as_bytes()));
        if is_end {
            return after(behind, ">");
        }
        rest = behind;
    }
    ""
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn attack_50_markdown_is_rendered_and_nothing_in_it_acts() {
        let html = render(
            "# Sum\n\n| a | b |\n|---|---|\n| 1 | **2** |\n\n<script>alert(1)</script><img src=x onerror=alert(1)>\n\n\
             [bad](javascript:alert(1)) [good](https://a.example) <b onclick=x style=color:red id=main>bold</b>",
            RENDERED,
        );
        assert!(html.contains("<h1>Sum</h1>") && html.contains("<strong>2</strong>") && html.contains("<b>bold</b>"));
        assert!(html.contains("<a href=\"https://a.example\" rel=\"noopener noreferrer nofollow\">good</a>"), "{html}");
        for word in ["<script", "alert(1)<", "<img", "javascript", "onclick", "style", "id="] {
            assert!(!html.contains(word), "{word}: {html}");
        }
    }

    #[test]
    fn attack_50_the_tags_of_a_summary_are_ours_whatever_it_writes() {
        let link = "<a href=\"https://a.example/?q=&quot;&gt;&lt;b&gt;\" rel=\"noopener noreferrer nofollow\">";
        for (given, expected) in [
            ("a<!-- <b> -->b<!-->c<!doctype x>d<?php x ?>e", "abcde"),
            ("<B CLASS=\"x>y\" onclick='<i>'>x</B >", "<b>x</b>"),
            ("<script>a</scr</SCRIPT x>b<STYLE>c", "b"),
            ("</div></p>x<div>y", "xy"),
            ("<a href='https://a.example/?q=\"><b>'>x", &format!("{link}x</a>")),
            ("<a href=&#106;avascript:x>x</a><a href=' java\tscript:x'>y", "<a>x</a><a>y</a>"),
            ("<a =href=https://a.example>x", "<a>x</a>"),
            ("1 < 2 <<b>x</b> <3 </3>y", "1 &lt; 2 &lt;<b>x</b> &lt;3 y"),
            ("x<b", "x<b></b>"),
            ("x<b title=\"y", "x<b></b>"),
            ("<br/><hr>", "<br><hr>"),
        ] {
            assert_eq!(filter(given), expected, "{given}");
        }
    }

    #[test]
    fn ends_that_html_lets_be_left_out_are_written() {
        for (given, expected) in [
            ("<ul><li>a<li>b<ol><li>c</ol></ul>", "<ul><li>a</li><li>b<ol><li>c</li></ol></li></ul>"),
            (
                "<table><tr><th>a<td>b<tr><td>c</table>",
                "<table><tr><th>a</th><td>b</td></tr><tr><td>c</td></tr></table>",
            ),
            ("<p><b>a<p>b", "<p><b>a</b></p><p>b</p>"),
            ("<b><i>a</b>b</i>", "<b><i>a</i></b>b"),
            ("<dl><dt>a<dd>b</dl>", "<dl><dt>a</dt><dd>b</dd></dl>"),
            ("<details><summary>a</summary><p>b</details>c", "<details><summary>a</summary><p>b</p></details>c"),
        ] {
            assert_eq!(filter(given), expected, "{given}");
        }
    }

    #[test]
    fn attack_50_a_summary_is_on_the_page_no_more_than_a_few_times_as_large_and_not_deep() {
        let left_open = |count: usize| {
            let open: String = (0..count).map(|number| format!("<b x={number}>")).collect();
            open + &"<p>x".repeat(count)
        };
        let wide_table = format!("{}\n{}\n{}", "|a".repeat(2000), "|-".repeat(2000), "|x\n".repeat(2000));
        for (what, text) in [
            ("elements that are left open", left_open(1600)),
            ("a table of empty cells", wide_table),
            ("quotes", "> ".repeat(20_000) + "x"),
            ("lists", "- ".repeat(20_000) + "x"),
            ("lists and lines", "- ".repeat(10_000) + "x" + &"\n\n x".repeat(10_000)),
            ("characters", "\"".repeat(RENDERED)),
            ("links", format!("[a]: https://{}.example\n\n{}", "a".repeat(20_000), "[a]".repeat(10_000))),
            ("emphasis", "*a **a ".repeat(9000)),
            ("brackets", "[".repeat(40_000) + &"](".repeat(20_000)),
            ("attributes", format!("<b {}>", "x=1 ".repeat(20_000))),
            ("comments", "<!--".repeat(20_000)),
            ("backticks", (1..400).map(|count| "`".repeat(count) + "x").collect()),
        ] {
            let begun = Instant::now();
            let html = render(&text, RENDERED);
            let (size, took) = (html.len(), begun.elapsed());
            assert!(size <= 8 * text.len().max(1024), "{what}: {} bytes became {size}", text.len());
            assert!(took < Duration::from_secs(2), "{what}: {took:?}");
            let depths = html.split('<').skip(1).scan(0_usize, |depth, tag| {
                *depth = if tag.starts_with('/') { depth.saturating_sub(1) } else { *depth + 1 };
                Some(*depth)
            });
            assert!(depths.max().unwrap_or(0) <= DEPTH + 1, "{what}");
        }
    }

    #[test]
    fn a_summary_that_is_cut_says_so() {
        let long = "word ".repeat(RENDERED);
        assert!(render(&long, RENDERED).ends_with(CUT) && render("äöü", 1) == CUT);
        assert_eq!(render("äöü", 6), "<p>äöü</p>\n");
    }
}
