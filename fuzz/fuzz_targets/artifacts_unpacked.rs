//! An artifact as zip that a job brings into its workspace.
#![no_main]

use std::{io::Write as _, path::Component};

use libfuzzer_sys::fuzz_target;
use worker::job::artifact_zip::unpack;

/// Bytes that may come of one archive.
const LIMIT: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = tempfile::tempfile() else { return };
    if file.write_all(data).is_err() {
        return;
    }
    let mut out = Vec::new();
    let Ok(_left_out) = unpack(file, &mut out, LIMIT) else { return };
    let mut total = 0;
    for entry in tar::Archive::new(out.as_slice()).entries().into_iter().flatten() {
        let entry = entry.expect("what was made can be read");
        let path = entry.path().expect("what was made has paths");
        assert!(path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)), "{path:?}");
        let kind = entry.header().entry_type();
        assert!(kind.is_file() || kind.is_dir(), "{kind:?}");
        assert_eq!(entry.header().mode().unwrap_or_default() & 0o7022, 0, "rights that nobody is to have");
        total += entry.size();
    }
    assert!(total <= LIMIT, "{total} bytes");
});
