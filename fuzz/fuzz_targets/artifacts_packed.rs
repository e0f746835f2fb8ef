//! Files of a job that come as tar and become an artifact.
#![no_main]

use libfuzzer_sys::fuzz_target;
use worker::{job::artifact_zip::pack, log::mask::Masker};

const SECRET: &str = "hunter2-Zq";

fuzz_target!(|data: &[u8]| {
    let masker = Masker::default();
    masker.add(SECRET);
    let Ok((file, size, _, files)) = pack(data, "w/out", 1, false, &masker) else { return };
    assert_eq!(file.metadata().map(|data| data.len()).ok(), Some(size));
    let zip = zip::ZipArchive::new(file).expect("what was made can be read");
    assert!(zip.len() as u64 <= files, "names that occur twice are one entry");
    for name in zip.file_names() {
        let name = name.expect("what was made has names in UTF-8");
        assert!(!name.contains(SECRET) && !name.contains(|char: char| char.is_control()), "{name:?}");
    }
});
