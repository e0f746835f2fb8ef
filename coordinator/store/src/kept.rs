//! Caches and artifacts: rows about blobs that jobs stored.

use serde::{Deserialize, Serialize};

use super::{
    Millis, Store, StoreError,
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
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Since when.
    pub made_at: Millis,
    /// Last restored or made.
    pub used_at: Millis,
}

/// What a run's job made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Unique in the pool.
    pub id: u64,
    /// Run id.
    pub run: String,
    /// Job key.
    pub job: String,
    /// The job's attempt that made it.
    pub attempt: u32,
    /// Unique in the run.
    pub name: String,
    /// Hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Since when.
    pub made_at: Millis,
    /// Removed then.
    pub expires_at: Millis,
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
    pub run: String,
    /// Job key.
    pub job: String,
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

/// A change of caches or artifacts.
#[derive(Debug, Clone)]
pub enum Kept {
    /// A new entry. One that is there already fails the batch with [`StoreError::Stale`]: they never change.
    Cache(Cache),
    /// An entry was used.
    CacheUsed {
        /// Its id.
        id: u64,
        /// When.
        at: Millis,
    },
    /// A job asked for an entry, or saved one. The same a second time changes nothing; of one attempt only the first
    /// hundred are kept.
    CacheUse(CacheUse),
    /// An entry goes.
    CacheGone {
        /// Its id.
        id: u64,
    },
    /// A new artifact. One of this name in the run fails the batch with [`StoreError::Stale`].
    Artifact(Artifact),
    /// An artifact goes.
    ArtifactGone {
        /// Its id.
        id: u64,
    },
}

impl Store {
    /// Entries of a repository, the newest first.
    pub async fn caches(&self, repository: &str) -> Found<Vec<Cache>> {
        let statement = query(
            "SELECT id, repository, scope, name, version, sha256, size, made_at, used_at FROM caches
             WHERE repository = $1 ORDER BY made_at DESC, id DESC LIMIT $2",
        );
        let found = statement.bind(repository).bind(ROWS).fetch_all(&self.readers).await?;
        found.iter().map(cache).collect()
    }

    /// Bytes of all entries of a repository.
    pub async fn caches_total(&self, repository: &str) -> Found<u64> {
        // PostgreSQL sums BIGINT to NUMERIC.
        let statement = query_scalar("SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM caches WHERE repository = $1");
        let total: i64 = statement.bind(repository).fetch_one(&self.readers).await?;
        Ok(total.unsigned_abs())
    }

    /// Entries of a repository, the one that was unused longest first.
    pub async fn caches_least_used(&self, repository: &str, limit: u32) -> Found<Vec<Cache>> {
        let statement = query(
            "SELECT id, repository, scope, name, version, sha256, size, made_at, used_at FROM caches
             WHERE repository = $1 ORDER BY used_at, id LIMIT $2",
        );
        let found = statement.bind(repository).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        found.iter().map(cache).collect()
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
    pub async fn cache_uses(&self, run: &str) -> Found<Vec<CacheUse>> {
        let statement = query(
            "SELECT run, job, attempt, outcome, name, found, size, at FROM cache_uses
             WHERE run = $1 ORDER BY at, job, name LIMIT $2",
        );
        let found = statement.bind(run).bind(ROWS).fetch_all(&self.readers).await?;
        found.iter().map(cache_use).collect()
    }

    /// Artifacts of a run, in the order in which they were made.
    pub async fn artifacts(&self, run: &str) -> Found<Vec<Artifact>> {
        let statement = query(
            "SELECT id, run, job, attempt, name, sha256, size, made_at, expires_at FROM artifacts
             WHERE run = $1 ORDER BY made_at, id LIMIT $2",
        );
        let found = statement.bind(run).bind(ROWS).fetch_all(&self.readers).await?;
        found.iter().map(artifact).collect()
    }

    /// Artifacts whose time is over.
    pub async fn artifacts_expired(&self, now: Millis) -> Found<Vec<Artifact>> {
        let statement = query(
            "SELECT id, run, job, attempt, name, sha256, size, made_at, expires_at FROM artifacts
             WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2",
        );
        let found = statement.bind(integer(now)).bind(ROWS).fetch_all(&self.readers).await?;
        found.iter().map(artifact).collect()
    }
}

pub(super) async fn apply(connection: &mut Connection, change: &Kept) -> Result<(), StoreError> {
    match change {
        Kept::Cache(cache) => {
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
        Kept::CacheUsed { id, at } => {
            let statement = query("UPDATE caches SET used_at = $2 WHERE id = $1 AND used_at < $2");
            statement.bind(integer(*id)).bind(integer(*at)).execute(connection).await?;
            Ok(())
        }
        Kept::CacheUse(used) => {
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
        Kept::CacheGone { id } => {
            query("DELETE FROM caches WHERE id = $1").bind(integer(*id)).execute(connection).await?;
            Ok(())
        }
        Kept::Artifact(artifact) => {
            let statement = query(
                "INSERT INTO artifacts (id, run, job, attempt, name, sha256, size, made_at, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
            )
            .bind(integer(artifact.id))
            .bind(&artifact.run)
            .bind(&artifact.job)
            .bind(i64::from(artifact.attempt))
            .bind(&artifact.name)
            .bind(&artifact.sha256)
            .bind(integer(artifact.size))
            .bind(integer(artifact.made_at))
            .bind(integer(artifact.expires_at));
            match statement.execute(connection).await? {
                0 => Err(StoreError::Stale(format!("the artifact {}", artifact.name))),
                _ => Ok(()),
            }
        }
        Kept::ArtifactGone { id } => {
            query("DELETE FROM artifacts WHERE id = $1").bind(integer(*id)).execute(connection).await?;
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

fn artifact(row: &Row) -> Found<Artifact> {
    Ok(Artifact {
        id: natural(row, 0)?,
        run: row.get(1)?,
        job: row.get(2)?,
        attempt: u32::try_from(natural(row, 3)?).unwrap_or(u32::MAX),
        name: row.get(4)?,
        sha256: row.get(5)?,
        size: natural(row, 6)?,
        made_at: natural(row, 7)?,
        expires_at: natural(row, 8)?,
    })
}
