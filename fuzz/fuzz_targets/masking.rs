//! Output with a secret in it, in pieces of any size: the secret never comes out, however it was cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use worker::log::mask::{MaskStream, Masker};

const SECRET: &str = "hunter2-Zq";

fuzz_target!(|data: &[u8]| {
    let Some((sizes, text)) = data.split_at_checked(data.len().min(4)) else { return };
    let masker = Masker::default();
    masker.add(SECRET);
    let more: String = String::from_utf8_lossy(text).chars().take(40).collect();
    masker.add(&more);
    let mut printed = text.to_vec();
    printed.extend_from_slice(SECRET.as_bytes());
    printed.extend_from_slice(text);
    let mut stream = MaskStream::default();
    let (mut out, mut rest, mut turn) = (Vec::new(), printed.as_slice(), 0);
    while !rest.is_empty() {
        let size = sizes.get(turn % sizes.len().max(1)).map_or(1, |size| usize::from(*size) + 1);
        let (piece, after) = rest.split_at(size.min(rest.len()));
        stream.push(&masker, piece, &mut out);
        (rest, turn) = (after, turn + 1);
    }
    stream.finish(&masker, &mut out);
    assert!(!out.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "the secret came out");
    let mut whole = Vec::new();
    let mut stream = MaskStream::default();
    stream.push(&masker, &printed, &mut whole);
    stream.finish(&masker, &mut whole);
    assert_eq!(out, whole, "how it is cut changes nothing");
});
