//! What columns hold, and what the types of the domain make of it.

use super::{StoreError, sql::Row};

/// Whether a write met the version that it expected: it wrote a row.
pub(super) fn fenced(rows: u64, what: &str, id: &str) -> Result<(), StoreError> {
    if rows == 0 { Err(StoreError::Stale(format!("{what} {id}"))) } else { Ok(()) }
}

/// BIGINT is signed; nothing that is counted here comes near the end of it.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A column that is never negative.
pub(super) fn natural(row: &Row, column: usize) -> Result<u64, StoreError> {
    Ok(row.get::<i64>(column)?.unsigned_abs())
}
