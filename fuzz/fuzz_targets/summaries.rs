//! A job's summary: whatever it holds, nothing in it acts, and it costs what its size says.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../coordinator/web/src/markdown.rs"]
mod markdown;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let html = markdown::render(text, markdown::RENDERED).to_lowercase();
    assert!(html.len() <= 8 * text.len().max(1024), "{} bytes became {}", text.len(), html.len());
    for active in ["<script", "<style", "<img", "<iframe", "<svg", "<form", "<a href=\"javascript:"] {
        assert!(!html.contains(active), "{active}: {html}");
    }
});
