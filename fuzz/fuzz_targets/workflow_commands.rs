//! What a step prints: workflow commands, line by line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use worker::github::commands::{CommandGate, may_become};

fuzz_target!(|data: &[u8]| {
    let mut gate = CommandGate::default();
    for line in String::from_utf8_lossy(data).lines() {
        let _ = gate.read(line);
        let _ = may_become(line.as_bytes());
    }
});
