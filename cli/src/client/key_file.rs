//! The user's secret key: from a file, else from the environment variable `LONGSHORE_NSEC`.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use nostr::Keys;

/// There is no key, and the command has to sign: the remedy.
pub(crate) const NO_KEY: &str =
    "no key to sign with: put your nsec into LONGSHORE_NSEC, or name its file with --key-file";

/// Whether the environment has a key. An empty variable is none.
pub(crate) fn is_in_environment() -> bool {
    std::env::var_os("LONGSHORE_NSEC").is_some_and(|key| !key.is_empty())
}

/// Reads the key of a file, or of `LONGSHORE_NSEC` without one.
///
/// # Errors
/// The file can't be read, the variable is not set or empty, or the text is no secret key.
pub(crate) fn read(file: Option<&Path>) -> Result<Keys> {
    let text = match file {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read the key {}", path.display()))?
        }
        None => std::env::var("LONGSHORE_NSEC").unwrap_or_default(),
    };
    if text.trim().is_empty() && file.is_none() {
        return Err(anyhow!(NO_KEY));
    }
    Keys::parse(text.trim()).context("the key is neither nsec1… nor 64 hex digits")
}
