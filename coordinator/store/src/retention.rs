//! Removing what is past its retention, and how much room everything takes.

use domain::id::RunId;

use super::{
    Millis, Store, StoreError,
    sql::{Connection, Query, Readers, query, query_scalar},
};

/// Rows that one transaction removes of a table: more would keep other writers waiting.
const BATCH: u64 = 1000;

/// Statements that remove a run with all its rows; each has the run's id as `$1`. The run itself is last.
const OF_RUN: [&str; 16] = [
    "DELETE FROM deliveries WHERE event IN (SELECT event FROM outbox WHERE run = $1)",
    "DELETE FROM outbox WHERE run = $1",
    "DELETE FROM webhook_deliveries WHERE run = $1",
    "DELETE FROM cache_uses WHERE run = $1",
    "DELETE FROM test_reports WHERE run = $1",
    "DELETE FROM artifacts WHERE run = $1",
    "DELETE FROM queue WHERE run = $1",
    "DELETE FROM work WHERE run = $1",
    "DELETE FROM secrets WHERE run = $1",
    "DELETE FROM run_keys WHERE run = $1",
    "DELETE FROM blobs WHERE owner = $1",
    "DELETE FROM job_reports WHERE run = $1",
    "DELETE FROM run_jobs WHERE run = $1",
    "DELETE FROM run_calls WHERE run = $1",
    "DELETE FROM run_parts WHERE run = $1",
    "DELETE FROM runs WHERE id = $1",
];

/// Statements that remove rows older than `$1` that belong to no run that is kept, at most `$2` of them.
const OLD: [&str; 5] = [
    "DELETE FROM seen WHERE id IN (SELECT id FROM seen WHERE at < $1 ORDER BY at LIMIT $2)",
    "DELETE FROM outbox WHERE event IN (SELECT event FROM outbox WHERE made_at < $1 AND done = 1
         AND (run IS NULL OR NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = outbox.run)) LIMIT $2)",
    "DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM webhook_deliveries AS d WHERE made_at < $1
         AND state <> 'pending' AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = d.run) LIMIT $2)",
    // The newest version of a path by its author counts, however old it is.
    "DELETE FROM definitions WHERE event IN (SELECT event FROM definitions WHERE seen_at < $1 AND EXISTS
         (SELECT 1 FROM definitions AS newer WHERE newer.repository = definitions.repository
          AND newer.path = definitions.path AND newer.author = definitions.author
          AND newer.made_at > definitions.made_at) LIMIT $2)",
    "DELETE FROM deliveries WHERE event IN (SELECT event FROM deliveries WHERE at < $1
         AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.event = deliveries.event) LIMIT $2)",
];

/// Removes at most `$1` groups that nobody held, waited for or wrote since [`MARK_IDLE_GROUPS`] ran before. One that is
/// used again begins anew at version 0: an event that read its earlier life would have to be under way for as long as
/// retention rests to meet the same version again.
const IDLE_GROUPS: &str = "DELETE FROM run_groups WHERE name IN
    (SELECT name FROM run_groups WHERE holder IS NULL AND pending = '[]' AND idle_version = version LIMIT $1)";
const MARK_IDLE_GROUPS: &str = "UPDATE run_groups SET idle_version = version
    WHERE holder IS NULL AND pending = '[]' AND (idle_version IS NULL OR idle_version <> version)";

/// A run that may be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredRun {
    /// Run id.
    pub id: RunId,
    /// Address of its repository.
    pub repository: String,
    /// Commit; empty if it was never known.
    pub commit: String,
}

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedRun {
    /// Run id.
    pub id: RunId,
    /// Address of its repository.
    pub repository: String,
}

/// Room that a table takes, with its indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSize {
    /// Name of the table.
    pub name: String,
    /// Rows.
    pub rows: u64,
    /// Bytes on the disk.
    pub bytes: u64,
}

impl Store {
    /// Ended runs whose time is over and of which nothing is left to be done or sent, the oldest first. Where another
    /// run of the repository is being planned, which may find the commit of one, they come later.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn runs_expired(&self, now: Millis, limit: u32) -> Result<Vec<ExpiredRun>, StoreError> {
        let statement = query(
            "SELECT id, repository, commit_id FROM runs WHERE expires_at <= $1 AND phase = 'done'
                 AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.run = runs.id AND outbox.done = 0)
                 AND NOT EXISTS (SELECT 1 FROM work WHERE work.run = runs.id)
                 AND NOT EXISTS (SELECT 1 FROM runs AS other
                     WHERE other.repository = runs.repository AND other.status = 'planning')
             ORDER BY expires_at LIMIT $2",
        );
        let found = statement.bind(now).bind(limit).fetch_all(&self.readers).await?;
        found
            .iter()
            .map(|row| Ok(ExpiredRun { id: row.get(0)?, repository: row.get(1)?, commit: row.get(2)? }))
            .collect()
    }

    /// Whether a run of a repository has a commit, or is being planned and may find it; that one aside.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn commit_is_used(&self, repository: &str, commit: &str, but: &RunId) -> Result<bool, StoreError> {
        let statement = query(
            "SELECT id FROM runs WHERE repository = $1 AND id <> $2 AND (commit_id = $3 OR status = 'planning') LIMIT 1",
        );
        let statement = statement.bind(repository).bind(but).bind(commit);
        Ok(statement.fetch_optional(&self.readers).await?.is_some())
    }

    /// Every run that has not ended, the newest first.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn unfinished(&self) -> Result<Vec<UnfinishedRun>, StoreError> {
        let statement = query(
            "SELECT id, repository FROM runs
             WHERE status IN ('planning', 'waiting', 'queued', 'running', 'sealing') ORDER BY serial DESC",
        );
        let rows = statement.fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(UnfinishedRun { id: row.get(0)?, repository: row.get(1)? })).collect()
    }

    /// Removes a run with all its rows, in one transaction. Logs and the bytes of blobs are the caller's to remove
    /// before: a crash between leaves the run, and the next sweep finds it again.
    ///
    /// # Errors
    /// The store can't be written; nothing is removed then.
    pub async fn remove_run(&self, run: &RunId) -> Result<(), StoreError> {
        let run = run.clone();
        self.transaction(&[], |connection| Box::pin(async move { remove_run(connection, &run).await })).await
    }

    /// Removes what is older than `before` and belongs to no run that is kept: ids of requests, refusals, deliveries and
    /// earlier versions of definitions. Groups go too that nobody held, waited for or wrote since the call before.
    /// Returns the number of rows.
    ///
    /// # Errors
    /// The store can't be written; what earlier transactions removed stays removed.
    pub async fn remove_old(&self, before: Millis) -> Result<u64, StoreError> {
        let mut all = 0;
        for text in OLD {
            all += self.remove_in_batches(|| query(text).bind(before)).await?;
        }
        all += self.remove_in_batches(|| query(IDLE_GROUPS)).await?;
        self.transaction(&[], |connection| Box::pin(query(MARK_IDLE_GROUPS).execute(connection))).await?;
        Ok(all)
    }

    /// Runs a statement, whose last placeholder is the most rows that it removes, until it finds no more.
    async fn remove_in_batches(&self, statement: impl Fn() -> Query) -> Result<u64, StoreError> {
        let mut all = 0;
        loop {
            let statement = statement().bind(BATCH);
            let removed = self.transaction(&[], |connection| Box::pin(statement.execute(connection))).await?;
            all += removed;
            if removed < BATCH {
                return Ok(all);
            }
        }
    }

    /// Room that each table takes, the largest first.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn table_sizes(&self) -> Result<Vec<TableSize>, StoreError> {
        let text = match &self.readers {
            Readers::Postgres(_) => {
                "SELECT CAST(relname AS TEXT), pg_total_relation_size(oid) FROM pg_class
                 WHERE relkind = 'r' AND relnamespace = CAST(current_schema() AS regnamespace) ORDER BY relname"
            }
            Readers::Sqlite(_) | Readers::Inline(_) => {
                "SELECT m.tbl_name, sum(s.pgsize) FROM dbstat s JOIN sqlite_master m ON m.name = s.name
                 WHERE m.tbl_name NOT LIKE 'sqlite_%' GROUP BY m.tbl_name ORDER BY m.tbl_name"
            }
        };
        let mut sizes = Vec::new();
        for row in query(text).fetch_all(&self.readers).await? {
            let (name, bytes) = (row.get::<String>(0)?, row.get(1)?);
            // The name is one of our own schema.
            let count = query_scalar(format!("SELECT count(*) FROM {name}"));
            sizes.push(TableSize { rows: count.fetch_one(&self.readers).await?, name, bytes });
        }
        sizes.sort_by(|one, other| other.bytes.cmp(&one.bytes).then_with(|| one.name.cmp(&other.name)));
        Ok(sizes)
    }
}

async fn remove_run(connection: &mut Connection, run: &RunId) -> Result<(), StoreError> {
    for text in OF_RUN {
        query(text).bind(run).execute(connection).await?;
    }
    Ok(())
}
