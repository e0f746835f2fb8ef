//! Job keys as folder names, and back.

use domain::id::{JobKey, RunId};

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// Longest name of a folder on common file systems, in bytes.
const LONGEST: usize = 255;

/// The folder of a job's log.
pub(super) fn path(folder: &Path, run: &RunId, job: &JobKey) -> anyhow::Result<PathBuf> {
    let (run, job) = (escape(run.as_str()), escape(job.as_str()));
    anyhow::ensure!(
        (1..=LONGEST).contains(&run.len()) && (1..=LONGEST).contains(&job.len()),
        "the job key is empty or too long for a log: at most {LONGEST} bytes, escaped; give the job a shorter id"
    );
    Ok(folder.join(run).join(job))
}

/// Letters, digits, `-` and `_` stay, every other byte becomes `%` and two hex digits: no name leaves its folder.
pub(super) fn escape(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut name, byte| {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            name.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(name, "%{byte:02x}");
        }
        name
    })
}

/// What [`escape`] made the name of; `None`: it made no such name.
pub(super) fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let (digits, after) = after.split_first_chunk::<2>()?;
            bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;

    #[test]
    fn a_job_key_stays_in_its_folder_and_comes_back() {
        for key in ["build", "test/2", "../../etc", "a b:c %", "ünï", ".", ".."] {
            let path = path(Path::new("/logs"), &"run".into(), &key.into()).unwrap();
            assert_eq!(path.parent(), Some(Path::new("/logs/run")), "{key}");
            let name = path.file_name().and_then(|name| name.to_str()).unwrap();
            assert_eq!(unescape(name).as_deref(), Some(key));
        }
    }

    #[test]
    fn a_key_that_no_folder_can_have_is_refused() {
        assert!(path(Path::new("/logs"), &"run".into(), &"".into()).is_err());
        assert!(path(Path::new("/logs"), &"run".into(), &"x".repeat(300).into()).is_err());
    }
}
