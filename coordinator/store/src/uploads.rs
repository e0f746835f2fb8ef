//! What people uploaded, and who may because of a run.

use domain::run::Millis;

use super::{
    Store, StoreError,
    columns::{integer, natural},
    sql::{query, query_scalar},
};

/// Uploads in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uploads {
    /// How many.
    pub number: u64,
    /// Bytes that they take on the disk: each at least [`Self::OBJECT`].
    pub bytes: u64,
}

impl Uploads {
    /// Bytes that an upload takes, however few it has: a page of the file system.
    pub const OBJECT: u64 = 4096;
}

impl Store {
    /// What a key (64 hex) uploaded, or all keys: uploads are the rows whose owner is a public key.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn uploads(&self, owner: Option<&str>) -> Result<Uploads, StoreError> {
        let whose = if owner.is_some() { "owner = $2" } else { "length(owner) = 64" };
        // PostgreSQL sums BIGINT to NUMERIC.
        let statement = query(format!(
            "SELECT count(*), CAST(coalesce(sum(CASE WHEN size < $1 THEN $1 ELSE size END), 0) AS BIGINT) FROM blobs
             WHERE {whose}"
        ));
        let statement = statement.bind(integer(Uploads::OBJECT));
        let statement = match owner {
            Some(owner) => statement.bind(owner),
            None => statement,
        };
        let row = statement.fetch_one(&self.readers).await?;
        Ok(Uploads { number: natural(&row, 0)?, bytes: natural(&row, 1)? })
    }

    /// Whether a key is the publisher of a run of this pool that goes on, or ended at this moment or later.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn is_publisher(&self, key: &str, ended_since: Millis) -> Result<bool, StoreError> {
        let statement = query_scalar(
            "SELECT count(*) FROM runs WHERE publisher = $1 AND (phase <> 'done' OR coalesce(ended_at, created_at) >= $2)",
        );
        let found: i64 = statement.bind(key).bind(integer(ended_since)).fetch_one(&self.readers).await?;
        Ok(found > 0)
    }
}
