//! A stored archive that is unpacked on somebody's machine.
#![no_main]

use std::io::Write as _;

use actions_api::{Existing, unpack_archive};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = tempfile::tempfile() else { return };
    let (Ok(()), Ok(folder)) = (file.write_all(data), tempfile::tempdir()) else { return };
    let inside = folder.path().join("inside");
    if std::fs::create_dir(&inside).is_ok() {
        let _ = unpack_archive(file, 1 << 20, Existing::Replaced, &inside);
        let beside = std::fs::read_dir(folder.path()).into_iter().flatten().count();
        assert_eq!(beside, 1, "something was written outside of the folder");
    }
});
