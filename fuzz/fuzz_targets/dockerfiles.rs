//! The Dockerfile of an action.
#![no_main]

use libfuzzer_sys::fuzz_target;
use worker::github::dockerfile::{expand, parse};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = parse(text);
    let _ = expand(text, &|name| (name.len() % 2 == 0).then(|| name.to_owned()));
});
