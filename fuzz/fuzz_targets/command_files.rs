//! What a step writes to `GITHUB_ENV`, `GITHUB_OUTPUT`, `GITHUB_STATE` and `GITHUB_PATH`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use worker::github::files::{CommandFile, parse, paths};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    for kind in [CommandFile::Env, CommandFile::Output, CommandFile::State] {
        if let Ok(values) = parse(kind, &text) {
            assert!(values.set.keys().all(|name| !name.is_empty()));
        }
    }
    let _ = paths(&text);
});
