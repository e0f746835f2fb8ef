//! A job's summary: whatever it holds, nothing in it acts.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../coordinator/web/src/markdown.rs"]
mod markdown;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let html = markdown::render(text).to_lowercase();
    for active in ["<script", "<style", "<img", "<iframe", "<svg", "<form", "<a href=\"javascript:"] {
        assert!(!html.contains(active), "{active}: {html}");
    }
});
