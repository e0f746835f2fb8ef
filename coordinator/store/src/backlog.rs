//! How much stored work is not done yet, by kind: what metrics show.

use super::{
    Millis, Store, StoreError,
    columns::{integer, natural},
    sql::query,
};

/// Work of one kind that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The kind, in one word.
    pub kind: String,
    /// Rows.
    pub pending: u64,
    /// Since when the oldest row is due; `None`: none is.
    pub due_since: Option<Millis>,
}

impl Store {
    /// Everything that is not done, by kind. A kind without rows may be missing.
    pub async fn backlog(&self, now: Millis) -> Result<Vec<Backlog>, StoreError> {
        let statement = query("SELECT kind, count(*), min(CASE WHEN due <= $1 THEN due END) FROM work GROUP BY kind");
        let rows = statement.bind(integer(now)).fetch_all(&self.readers).await?;
        let backlog = rows.iter().map(|row| {
            Ok(Backlog {
                kind: row.get(0)?,
                pending: natural(row, 1)?,
                due_since: row.get::<Option<i64>>(2)?.map(i64::unsigned_abs),
            })
        });
        backlog.collect()
    }
}
