//! Summaries of jobs as harmless HTML: no scripts, styles or images, and nothing that loads from elsewhere.

use std::collections::HashSet;

use pulldown_cmark::{Options, Parser, html::push_html};

/// Elements that may stand in a summary.
const ELEMENTS: [&str; 36] = [
    "a",
    "b",
    "blockquote",
    "br",
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
    "hr",
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
];

/// Renders hostile Markdown.
pub(super) fn render(text: &str) -> String {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut html = String::new();
    push_html(&mut html, Parser::new_ext(text, options));
    ammonia::Builder::default()
        .tags(HashSet::from(ELEMENTS).into_iter().chain(["ul"]).collect())
        .generic_attributes(HashSet::new())
        .tag_attributes([("a", HashSet::from(["href"]))].into())
        .url_schemes(HashSet::from(["http", "https", "nostr"]))
        .url_relative(ammonia::UrlRelative::Deny)
        .link_rel(Some("noopener noreferrer nofollow"))
        .clean(&html)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_50_markdown_is_rendered_and_nothing_in_it_acts() {
        let html = render(
            "# Sum\n\n| a | b |\n|---|---|\n| 1 | **2** |\n\n<script>alert(1)</script><img src=x onerror=alert(1)>\n\n\
             [bad](javascript:alert(1)) [good](https://a.example) <b onclick=x style=color:red id=main>bold</b>",
        );
        assert!(html.contains("<h1>Sum</h1>") && html.contains("<strong>2</strong>") && html.contains("<b>bold</b>"));
        assert!(html.contains("<a href=\"https://a.example\" rel=\"noopener noreferrer nofollow\">good</a>"), "{html}");
        for word in ["<script", "alert(1)<", "<img", "javascript", "onclick", "style", "id="] {
            assert!(!html.contains(word), "{word}: {html}");
        }
    }
}
