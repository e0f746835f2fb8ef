//! Counters: run serials, run numbers, the order of the outbox.

use super::{
    StoreError,
    sql::{Connection, query_scalar},
};

/// The next value of a counter, from 1.
pub(super) async fn next(connection: &mut Connection, counter: &str) -> Result<u64, StoreError> {
    query_scalar(
        "INSERT INTO counters (name, value) VALUES ($1, 1)
         ON CONFLICT (name) DO UPDATE SET value = counters.value + 1 RETURNING value",
    )
    .bind(counter)
    .fetch_one(connection)
    .await
}
