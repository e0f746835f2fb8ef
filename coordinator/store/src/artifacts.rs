//! Artifacts: what the jobs of a run made, as rows about blobs.

use serde::{Deserialize, Serialize};

use domain::id::{BlobHash, JobKey, RunId};

use super::{
    Change, Millis, Store, StoreError,
    columns::{integer, natural},
    sql::{Connection, Row, query, query_scalar},
};

type Found<T> = Result<T, StoreError>;

/// Most rows of one answer.
const ROWS: i64 = 2000;

/// What a run's job made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Unique in the pool.
    pub id: u64,
    /// Run id.
    pub run: RunId,
    /// Job key.
    pub job: JobKey,
    /// The job's attempt that made it.
    pub attempt: u32,
    /// Unique in the run.
    pub name: String,
    /// Hash of its archive.
    pub sha256: BlobHash,
    /// Bytes.
    pub size: u64,
    /// Since when.
    pub made_at: Millis,
    /// Removed then.
    pub expires_at: Millis,
}

/// Whose artifacts are meant.
#[derive(Debug, Clone, Copy)]
pub enum ArtifactsOf<'a> {
    /// Of the runs of a repository, by its address.
    Repository(&'a str),
    /// Of the runs that a key asked for, 64 hex.
    Author(&'a str),
    /// Those of them that count for no repository.
    AuthorAlone(&'a str),
    /// All.
    Pool,
}

/// A change of artifacts.
#[derive(Debug, Clone)]
pub enum ArtifactChange {
    /// A new artifact, which counts for the run's repository and its author. One of this name in the run fails the batch
    /// with [`StoreError::Stale`].
    Add(Artifact),
    /// The same of one that counts for the author alone: the repository did not ask for it, or has its bytes already.
    AddForAuthor(Artifact),
    /// An artifact goes.
    Remove {
        /// Its id.
        id: u64,
    },
}

impl From<ArtifactChange> for Change {
    fn from(change: ArtifactChange) -> Self {
        Self::Artifact(change)
    }
}

impl Store {
    /// Artifacts of a run, in the order in which they were made.
    pub async fn artifacts(&self, run: &RunId) -> Found<Vec<Artifact>> {
        let statement = query(
            "SELECT id, run, job, attempt, name, sha256, size, made_at, expires_at FROM artifacts
             WHERE run = $1 ORDER BY made_at, id LIMIT $2",
        );
        let found = statement.bind(run).bind(ROWS).fetch_all(&self.readers).await?;
        found.iter().map(artifact).collect()
    }

    /// Number and bytes of a run's artifacts.
    pub async fn artifacts_total(&self, run: &RunId) -> Found<(u64, u64)> {
        // PostgreSQL sums BIGINT to NUMERIC.
        let statement = query("SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM artifacts WHERE run = $1");
        let row = statement.bind(run).fetch_one(&self.readers).await?;
        Ok((row.get(0)?, row.get(1)?))
    }

    /// Bytes of the artifacts of one of them.
    pub async fn artifact_bytes(&self, of: ArtifactsOf<'_>) -> Found<u64> {
        let (text, value) = match of {
            ArtifactsOf::Repository(address) => (" WHERE repository = $1", Some(address)),
            ArtifactsOf::Author(key) => (" WHERE author = $1", Some(key)),
            ArtifactsOf::AuthorAlone(key) => (" WHERE author = $1 AND repository = ''", Some(key)),
            ArtifactsOf::Pool => ("", None),
        };
        let statement = query_scalar(format!("SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM artifacts{text}"));
        let statement = match value {
            Some(value) => statement.bind(value),
            None => statement,
        };
        statement.fetch_one(&self.readers).await
    }

    /// Artifacts of runs that have ended: those that count for no repository first, then the oldest.
    pub async fn artifacts_oldest(&self, limit: u32) -> Found<Vec<Artifact>> {
        let statement = query(
            "SELECT id, run, job, attempt, name, sha256, size, made_at, expires_at FROM artifacts
             WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = artifacts.run AND phase <> 'done')
             ORDER BY repository <> '', made_at, id LIMIT $1",
        );
        let found = statement.bind(limit).fetch_all(&self.readers).await?;
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

pub(super) async fn apply(connection: &mut Connection, change: &ArtifactChange) -> Result<(), StoreError> {
    match change {
        ArtifactChange::Add(artifact) | ArtifactChange::AddForAuthor(artifact) => {
            let for_repository = matches!(change, ArtifactChange::Add(_));
            let statement = query(
                "INSERT INTO artifacts (id, run, job, attempt, name, sha256, size, made_at, expires_at, repository, author)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9,
                     coalesce((SELECT repository FROM runs WHERE id = $2 AND $10 = 1), ''),
                     coalesce((SELECT actor FROM runs WHERE id = $2), '')) ON CONFLICT DO NOTHING",
            )
            .bind(integer(artifact.id))
            .bind(&artifact.run)
            .bind(&artifact.job)
            .bind(i64::from(artifact.attempt))
            .bind(&artifact.name)
            .bind(&artifact.sha256)
            .bind(integer(artifact.size))
            .bind(integer(artifact.made_at))
            .bind(integer(artifact.expires_at))
            .bind(i64::from(for_repository));
            match statement.execute(connection).await? {
                0 => Err(StoreError::Stale(format!("the artifact {}", artifact.name))),
                _ => Ok(()),
            }
        }
        ArtifactChange::Remove { id } => {
            query("DELETE FROM test_reports WHERE artifact = $1").bind(integer(*id)).execute(&mut *connection).await?;
            query("DELETE FROM artifacts WHERE id = $1").bind(integer(*id)).execute(connection).await.map(drop)
        }
    }
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
