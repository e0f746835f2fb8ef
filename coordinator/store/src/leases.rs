//! Leases: which worker holds which attempt, until when, and whether it is to end it.
//!
//! A lease is written in the transaction that accepts the job and removed in the one that ends the attempt, so no job
//! is "running" without one. Sessions renew leases; any process may expire them.

use super::{
    Change, Millis, Store, StoreError,
    sql::{Connection, Query, Row, query, query_scalar},
};
use domain::run::AttemptId;

type Found<T> = Result<T, StoreError>;

/// An attempt in the hands of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The attempt.
    pub attempt: AttemptId,
    /// Id of the worker.
    pub worker: String,
    /// Address of the attempt's repository; empty: none.
    pub repository: String,
    /// When the attempt is lost unless its worker renews it.
    pub expires_at: Millis,
    /// Why its worker is to end it, if it is.
    pub cancel_reason: Option<String>,
    /// When the attempt is lost unless its worker confirms the cancel; `None` once it has.
    pub confirm_by: Option<Millis>,
}

/// A change of leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseChange {
    /// A worker accepted a job.
    Begin(Lease),
    /// The attempt is over.
    End(AttemptId),
    /// The worker is to end the attempt. The first reason stays.
    Cancel {
        /// Which.
        attempt: AttemptId,
        /// In one sentence, for the job's log.
        reason: String,
        /// When it must be confirmed.
        confirm_by: Millis,
    },
    /// The processes of a cancelled attempt are gone; its result may still be on its way.
    Confirm {
        /// Which.
        attempt: AttemptId,
        /// The worker that says so.
        worker: String,
        /// A full term from now.
        expires_at: Millis,
    },
    /// Every lease gets a full term: nobody could hear the workers until now, or the clock was set.
    Extend {
        /// When each lease expires now.
        expires_at: Millis,
        /// When each cancel must be confirmed now.
        confirm_by: Millis,
    },
}

impl From<LeaseChange> for Change {
    fn from(change: LeaseChange) -> Self {
        Self::Lease(change)
    }
}

/// A worker's renewal of what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// Id of the worker.
    pub worker: String,
    /// Id of the coordinator that has its session.
    pub coordinator: String,
    /// What it says it holds.
    pub attempts: Vec<AttemptId>,
    /// The new end of each.
    pub expires_at: Millis,
}

impl Store {
    /// Renews, in one statement, those attempts that this worker holds, and returns them.
    ///
    /// # Errors
    /// The store can't be written.
    pub async fn renew_leases(&self, renewal: Renewal) -> Found<Vec<AttemptId>> {
        if renewal.attempts.is_empty() {
            return Ok(Vec::new());
        }
        self.transaction(&[], |connection| Box::pin(async move { renew(connection, &renewal).await })).await
    }

    /// The lease of an attempt.
    pub async fn lease(&self, attempt: &AttemptId) -> Found<Option<Lease>> {
        let found = query(
            "SELECT run, job, attempt, worker, repository, expires_at, cancel_reason, confirm_by FROM leases
             WHERE run = $1 AND job = $2 AND attempt = $3",
        );
        let found = found.bind(&attempt.run).bind(&attempt.job).bind(attempt.number);
        found.fetch_optional(&self.readers).await?.as_ref().map(lease).transpose()
    }

    /// All leases.
    pub async fn leases(&self) -> Found<Vec<Lease>> {
        let found = query(
            "SELECT run, job, attempt, worker, repository, expires_at, cancel_reason, confirm_by FROM leases
             ORDER BY run, job, attempt",
        );
        found.fetch_all(&self.readers).await?.iter().map(lease).collect()
    }

    /// What a worker holds.
    pub async fn leases_of(&self, worker: &str) -> Found<Vec<Lease>> {
        let found = query(
            "SELECT run, job, attempt, worker, repository, expires_at, cancel_reason, confirm_by FROM leases
             WHERE worker = $1 ORDER BY run, job, attempt",
        );
        found.bind(worker).fetch_all(&self.readers).await?.iter().map(lease).collect()
    }

    /// Leases whose cancel is not confirmed.
    pub async fn leases_to_cancel(&self) -> Found<Vec<Lease>> {
        let found = query(
            "SELECT run, job, attempt, worker, repository, expires_at, cancel_reason, confirm_by FROM leases
             WHERE confirm_by IS NOT NULL ORDER BY confirm_by, run, job",
        );
        found.fetch_all(&self.readers).await?.iter().map(lease).collect()
    }

    /// Leases that were not renewed in time, or whose cancel was not confirmed in time.
    pub async fn leases_over(&self, now: Millis) -> Found<Vec<Lease>> {
        let found = query(
            "SELECT run, job, attempt, worker, repository, expires_at, cancel_reason, confirm_by FROM leases
             WHERE expires_at <= $1 OR confirm_by <= $1 ORDER BY run, job, attempt",
        );
        found.bind(now).fetch_all(&self.readers).await?.iter().map(lease).collect()
    }

    /// When the next lease is over, unless it is renewed.
    pub async fn next_lease_end(&self) -> Found<Option<Millis>> {
        query_scalar(
            "SELECT min(at) FROM (SELECT min(expires_at) AS at FROM leases UNION ALL
             SELECT min(confirm_by) AS at FROM leases) AS ends",
        )
        .fetch_one(&self.readers)
        .await
    }
}

pub(super) async fn apply(connection: &mut Connection, change: &LeaseChange) -> Result<(), StoreError> {
    match change {
        LeaseChange::Begin(new) => {
            let statement = query(
                "INSERT INTO leases (run, job, attempt, worker, coordinator, repository, expires_at, cancel_reason,
                     confirm_by) VALUES ($1, $2, $3, $4, '', $5, $6, $7, $8)",
            )
            .bind(&new.attempt.run)
            .bind(&new.attempt.job)
            .bind(new.attempt.number)
            .bind(&new.worker)
            .bind(&new.repository)
            .bind(new.expires_at)
            .bind(new.cancel_reason.as_ref())
            .bind(new.confirm_by);
            statement.execute(connection).await?;
        }
        LeaseChange::End(attempt) => {
            let statement = query("DELETE FROM leases WHERE run = $1 AND job = $2 AND attempt = $3");
            of(statement, attempt).execute(connection).await?;
        }
        LeaseChange::Cancel { attempt, reason, confirm_by } => {
            let statement = query(
                "UPDATE leases SET cancel_reason = $4, confirm_by = $5
                 WHERE run = $1 AND job = $2 AND attempt = $3 AND cancel_reason IS NULL",
            );
            of(statement, attempt).bind(reason).bind(*confirm_by).execute(connection).await?;
        }
        LeaseChange::Confirm { attempt, worker, expires_at } => {
            let statement = query(
                "UPDATE leases SET confirm_by = NULL, expires_at = $5
                 WHERE run = $1 AND job = $2 AND attempt = $3 AND worker = $4",
            );
            of(statement, attempt).bind(worker).bind(*expires_at).execute(connection).await?;
        }
        LeaseChange::Extend { expires_at, confirm_by } => {
            // Not only those that end earlier: a clock that was set back would leave terms of any length.
            let statement = query(
                "UPDATE leases SET expires_at = $1, confirm_by = CASE WHEN confirm_by IS NULL THEN confirm_by ELSE $2 END",
            );
            statement.bind(*expires_at).bind(*confirm_by).execute(connection).await?;
        }
    }
    Ok(())
}

/// See [`Store::renew_leases`].
pub(super) async fn renew(connection: &mut Connection, renewal: &Renewal) -> Found<Vec<AttemptId>> {
    let rows: Vec<String> = (0..renewal.attempts.len())
        .map(|at| format!("(${}, ${}, CAST(${} AS BIGINT))", 4 + 3 * at, 5 + 3 * at, 6 + 3 * at))
        .collect();
    // Numbers of placeholders alone: no text of anybody goes into the statement.
    let text = format!(
        "UPDATE leases SET expires_at = $1, coordinator = $2 WHERE worker = $3
         AND (run, job, attempt) IN (VALUES {}) RETURNING run, job, attempt",
        rows.join(", ")
    );
    let mut statement = query(text).bind(renewal.expires_at).bind(&renewal.coordinator).bind(&renewal.worker);
    for attempt in &renewal.attempts {
        statement = of(statement, attempt);
    }
    statement.fetch_all(connection).await?.iter().map(attempt).collect()
}

/// Binds the next three placeholders to an attempt.
fn of(statement: Query, attempt: &AttemptId) -> Query {
    statement.bind(&attempt.run).bind(&attempt.job).bind(attempt.number)
}

fn attempt(row: &Row) -> Found<AttemptId> {
    Ok(AttemptId { run: row.get(0)?, job: row.get(1)?, number: row.get(2)? })
}

fn lease(row: &Row) -> Found<Lease> {
    Ok(Lease {
        attempt: attempt(row)?,
        worker: row.get(3)?,
        repository: row.get(4)?,
        expires_at: row.get(5)?,
        cancel_reason: row.get(6)?,
        confirm_by: row.get(7)?,
    })
}

#[cfg(test)]
mod tests;
