//! Whether tests that need a Docker engine can run.

use std::io::Write;

/// The image that stands for `ubuntu-latest`; the set-up script provides it.
pub const IMAGE: &str = "longshore/ubuntu:dev";

/// True where the test named `test` may go on. Without an engine a test fails, unless `LONGSHORE_NO_ENGINE=1`: then
/// it is counted as skipped in the file that `LONGSHORE_SKIPPED` names.
pub fn available(test: &str) -> bool {
    if std::env::var("LONGSHORE_NO_ENGINE").as_deref() != Ok("1") {
        return true;
    }
    if let Some(path) = std::env::var_os("LONGSHORE_SKIPPED")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
    {
        let _ = writeln!(file, "{test}");
    }
    false
}
