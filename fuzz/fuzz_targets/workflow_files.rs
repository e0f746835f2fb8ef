//! A workflow file: YAML, its shape, its rules, and the plan made of it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (plan, diagnostics) = workflow::github::parse("ci.yml", text);
    assert_eq!(plan.is_none(), workflow::diagnostic::has_errors(&diagnostics));
    let _ = workflow::diagnostic::render(&diagnostics, text, workflow::diagnostic::Colour::Plain);
    let _ = worker::github::action::parse("action.yml", text);
});
