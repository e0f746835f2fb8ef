//! Caches: what jobs saved for later jobs, as rows about blobs, and what jobs asked of them.

use domain::id::{BlobHash, JobKey, RunId};

use super::{
    Change, Millis, Store, StoreError,
    columns::{integer, natural},
    sql::{Connection, Row, query, query_scalar},
};

type Found<T> = Result<T, StoreError>;

/// Most rows of one answer.
const ROWS: i64 = 2000;
/// Uses of caches that are kept of one attempt.
const USES: i64 = 100;

/// What a job saved for later jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Unique in the pool.
    pub id: u64,
    /// Address of the repository.
    pub repository: String,
    /// Full ref of the run that saved it.
    pub scope: String,
    /// Its key.
    pub key: String,
    /// Of what it is made, as its maker hashes that: only the same version is restored.
    pub version: String,
    /// Hex.
    pub sha256: BlobHash,
    /// Bytes.
    pub size: u64,
    /// Since when.
    pub made_at: Millis,
    /// Last restored or made.
    pub used_at: Millis,
}

/// What came of a job's call for a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOutcome {
    /// It was given one.
    Hit,
    /// There was none for its keys.
    Miss,
    /// It saved one.
    Saved,
}

impl CacheOutcome {
    const ALL: [(Self, &'static str); 3] = [(Self::Hit, "hit"), (Self::Miss, "miss"), (Self::Saved, "saved")];

    /// In one word.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(outcome, _)| *outcome == self).map_or("", |(_, word)| word)
    }
}

/// A job's call for a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheUse {
    /// Run id.
    pub run: RunId,
    /// Job key.
    pub job: JobKey,
    /// The job's attempt.
    pub attempt: u32,
    /// What came of it.
    pub outcome: CacheOutcome,
    /// The first key that was asked for, or the one that was saved.
    pub key: String,
    /// The key of what was given.
    pub found: Option<String>,
    /// Bytes.
    pub size: u64,
    /// When.
    pub at: Millis,
}

/// A change of caches.
#[derive(Debug, Clone)]
pub enum CacheChange {
    /// A new entry. One that is there already fails the batch with [`StoreError::Stale`]: they never change.
    Add(Cache),
    /// An entry was used.
    Touch {
        /// Its id.
        id: u64,
        /// When.
        at: Millis,
    },
    /// A job asked for an entry, or saved one. The same a second time changes nothing; of one attempt only the first
    /// hundred are kept.
    Use(CacheUse),
    /// An entry goes.
    Remove {
        /// Its id.
        id: u64,
    },
}

impl From<CacheChange> for Change {
    fn from(change: CacheChange) -> Self {
        Self::Cache(change)
    }
}

impl Store {
    /// The entry of a repository and ref that a key stands for: the one with just this key, else the newest whose key
    /// begins with it. One that was not used since `since` does not count.
    pub async fn cache_for(
        &self,
        repository: &str,
        scope: &str,
        version: &str,
        key: &str,
        since: Millis,
    ) -> Found<Option<Cache>> {
        let statement = query(
            "SELECT id, repository, scope, name, version, sha256, size, made_at, used_at FROM caches
             WHERE repository = $1 AND scope = $2 AND version = $3 AND used_at >= $4
                 AND substr(name, 1, length(CAST($5 AS TEXT))) = $5
             ORDER BY CASE WHEN name = $5 THEN 0 ELSE 1 END, made_at DESC, id DESC LIMIT 1",
        )
        .bind(repository)
        .bind(scope)
        .bind(version)
        .bind(integer(since))
        .bind(key);
        statement.fetch_optional(&self.readers).await?.as_ref().map(cache).transpose()
    }

    /// Bytes of all entries of a repository; `None`: of all repositories.
    pub async fn caches_total(&self, repository: Option<&str>) -> Found<u64> {
        // PostgreSQL sums BIGINT to NUMERIC.
        let statement = match repository {
            Some(repository) => {
                query_scalar("SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM caches WHERE repository = $1")
                    .bind(repository)
            }
            None => query_scalar("SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM caches"),
        };
        statement.fetch_one(&self.readers).await
    }

    /// How many entries a repository has.
    pub async fn caches_number(&self, repository: &str) -> Found<u64> {
        let statement = query_scalar("SELECT count(*) FROM caches WHERE repository = $1").bind(repository);
        statement.fetch_one(&self.readers).await
    }

    /// Entries of a repository, or of all, the one that was unused longest first.
    pub async fn caches_least_used(&self, repository: Option<&str>, limit: u32) -> Found<Vec<Cache>> {
        let statement = match repository {
            Some(repository) => query(
                "SELECT id, repository, scope, name, version, sha256, size, made_at, used_at FROM caches
                 WHERE repository = $2 ORDER BY used_at, id LIMIT $1",
            )
            .bind(limit)
            .bind(repository),
            None => query(
                "SELECT id, repository, scope, name, version, sha256, size, made_at, used_at FROM caches
                 ORDER BY used_at, id LIMIT $1",
            )
            .bind(limit),
        };
        statement.fetch_all(&self.readers).await?.iter().map(cache).collect()
    }

    /// Entries of a repository, the one that was used last first.
    pub async fn caches_of(&self, repository: &str, limit: u32) -> Found<Vec<Cache>> {
        let statement = query(
            "SELECT id, repository, scope, name, version, sha256, size, made_at, used_at FROM caches
             WHERE repository = $1 ORDER BY used_at DESC, id DESC LIMIT $2",
        );
        statement.bind(repository).bind(limit).fetch_all(&self.readers).await?.iter().map(cache).collect()
    }

    /// Entries that were not used since then.
    pub async fn caches_unused(&self, since: Millis) -> Found<Vec<Cache>> {
        let statement = query(
            "SELECT id, repository, scope, name, version, sha256, size, made_at, used_at FROM caches
             WHERE used_at < $1 ORDER BY used_at LIMIT $2",
        );
        let found = statement.bind(integer(since)).bind(ROWS).fetch_all(&self.readers).await?;
        found.iter().map(cache).collect()
    }

    /// What the jobs of a run asked of caches, in that order.
    pub async fn cache_uses(&self, run: &RunId) -> Found<Vec<CacheUse>> {
        let statement = query(
            "SELECT run, job, attempt, outcome, name, found, size, at FROM cache_uses
             WHERE run = $1 ORDER BY at, job, name LIMIT $2",
        );
        let found = statement.bind(run).bind(ROWS).fetch_all(&self.readers).await?;
        found.iter().map(cache_use).collect()
    }
}

pub(super) async fn apply(connection: &mut Connection, change: &CacheChange) -> Result<(), StoreError> {
    match change {
        CacheChange::Add(cache) => {
            let statement = query(
                "INSERT INTO caches (id, repository, scope, name, version, sha256, size, made_at, used_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
            )
            .bind(integer(cache.id))
            .bind(&cache.repository)
            .bind(&cache.scope)
            .bind(&cache.key)
            .bind(&cache.version)
            .bind(&cache.sha256)
            .bind(integer(cache.size))
            .bind(integer(cache.made_at))
            .bind(integer(cache.used_at));
            match statement.execute(connection).await? {
                0 => Err(StoreError::Stale(format!("the cache {}", cache.key))),
                _ => Ok(()),
            }
        }
        CacheChange::Touch { id, at } => {
            let statement = query("UPDATE caches SET used_at = $2 WHERE id = $1 AND used_at < $2");
            statement.bind(integer(*id)).bind(integer(*at)).execute(connection).await?;
            Ok(())
        }
        CacheChange::Use(used) => {
            let statement = query(
                "INSERT INTO cache_uses (run, job, attempt, outcome, name, found, size, at)
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8
                 WHERE (SELECT count(*) FROM cache_uses WHERE run = $1 AND job = $2 AND attempt = $3) < $9
                 ON CONFLICT DO NOTHING",
            )
            .bind(&used.run)
            .bind(&used.job)
            .bind(i64::from(used.attempt))
            .bind(used.outcome.as_str())
            .bind(&used.key)
            .bind(used.found.as_ref())
            .bind(integer(used.size))
            .bind(integer(used.at))
            .bind(USES);
            statement.execute(connection).await?;
            Ok(())
        }
        CacheChange::Remove { id } => {
            query("DELETE FROM caches WHERE id = $1").bind(integer(*id)).execute(connection).await?;
            Ok(())
        }
    }
}

fn cache(row: &Row) -> Found<Cache> {
    Ok(Cache {
        id: natural(row, 0)?,
        repository: row.get(1)?,
        scope: row.get(2)?,
        key: row.get(3)?,
        version: row.get(4)?,
        sha256: row.get(5)?,
        size: natural(row, 6)?,
        made_at: natural(row, 7)?,
        used_at: natural(row, 8)?,
    })
}

fn cache_use(row: &Row) -> Found<CacheUse> {
    let word: String = row.get(3)?;
    let outcome = CacheOutcome::ALL.iter().find(|(_, known)| *known == word).map(|(outcome, _)| *outcome);
    Ok(CacheUse {
        run: row.get(0)?,
        job: row.get(1)?,
        attempt: u32::try_from(natural(row, 2)?).unwrap_or(u32::MAX),
        outcome: outcome
            .ok_or_else(|| StoreError::Database(format!("a stored use of a cache is unknown: `{word}`")))?,
        key: row.get(4)?,
        found: row.get(5)?,
        size: natural(row, 6)?,
        at: natural(row, 7)?,
    })
}
