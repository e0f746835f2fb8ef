//! What is checked of a chain of events, and the bytes that it names.

use serde::Serialize;

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ChainCheck {
    /// What should hold.
    pub what: String,
    /// Why it does not; `None`: it holds.
    pub problem: Option<String>,
}

/// Bytes that the chain names by their SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobClaim {
    /// What it is, for people.
    pub(crate) what: String,
    /// Where it is.
    pub(crate) url: String,
    /// Its SHA-256, hex.
    pub(crate) sha256: String,
    /// How many bytes stand before its end, and that end, where the chain says so.
    pub(crate) end: Option<(u64, String)>,
}

impl BlobClaim {
    /// One whose URL ends with the hash, as Blossom's do.
    pub(crate) fn new(what: String, url: String, end: Option<(u64, String)>) -> Self {
        let sha256 = url.rsplit('/').next().unwrap_or_default();
        let sha256 = sha256.split('.').next().unwrap_or_default().to_ascii_lowercase();
        Self { what, url, sha256, end }
    }
}
