//! What the store is asked. Reads never wait for the writer.

use std::collections::{HashMap, HashSet};

use super::{
    Blob, Millis, Outgoing, Pending, PendingEvent, SealedSecrets, Store, StoreError, WorkerRow,
    columns::{integer, natural},
    run_parts,
    sql::{Row, query, query_scalar},
};
use domain::group::Group;
use domain::id::{BlobHash, JobKey, RunId};
use domain::run::RunState;
use domain::schedule::QueuedJob;
use serde::de::DeserializeOwned;

type Found<T> = Result<T, StoreError>;

impl Store {
    /// A run by its id.
    pub async fn run(&self, id: &RunId) -> Found<Option<RunState>> {
        run_parts::read(self, id).await
    }

    /// Version of a run: whether it changed costs less to ask than the run.
    pub async fn run_version(&self, id: &RunId) -> Found<Option<u64>> {
        let version: Option<i64> =
            query_scalar("SELECT version FROM runs WHERE id = $1").bind(id).fetch_optional(&self.readers).await?;
        Ok(version.map(i64::unsigned_abs))
    }

    /// A run by `github.run_id`.
    pub async fn run_by_serial(&self, serial: u64) -> Found<Option<RunState>> {
        let statement = query_scalar("SELECT id FROM runs WHERE serial = $1").bind(integer(serial));
        self.run_of(statement.fetch_optional(&self.readers).await?).await
    }

    /// The newest run that was asked for by this: the id of either of its events, or of a request of the API.
    pub async fn run_by_event(&self, event: &str) -> Found<Option<RunState>> {
        let statement = query_scalar(
            "SELECT id FROM runs WHERE request = $1 OR run_event = $1 OR job_event = $1
             ORDER BY serial DESC LIMIT 1",
        );
        self.run_of(statement.bind(event).fetch_optional(&self.readers).await?).await
    }

    /// Job events of runs that have not ended: the newest of each author first, then the second of each, and so on. Who has
    /// very many leaves room for others.
    pub async fn live_job_events(&self, limit: u32) -> Found<Vec<String>> {
        let statement = query_scalar(
            "SELECT job_event FROM (SELECT job_event, serial, row_number() OVER (PARTITION BY actor ORDER BY serial DESC)
                 AS newer FROM runs WHERE status IN ('planning', 'waiting', 'queued', 'running', 'sealing')
                 AND job_event IS NOT NULL) AS live
             ORDER BY newer, serial DESC LIMIT $1",
        );
        statement.bind(i64::from(limit)).fetch_all(&self.readers).await
    }

    async fn run_of(&self, id: Option<RunId>) -> Found<Option<RunState>> {
        match id {
            Some(id) => run_parts::read(self, &id).await,
            None => Ok(None),
        }
    }

    /// Number of the latest change of a run, of why its jobs wait too: whether a page of it is up to date.
    pub async fn run_change(&self, id: &RunId) -> Found<Option<u64>> {
        query_scalar("SELECT changed FROM runs WHERE id = $1").bind(id).fetch_optional(&self.readers).await
    }

    /// Why the queued jobs of a run still wait, for people, by job key.
    pub async fn wait_reasons(&self, run: &RunId) -> Found<HashMap<JobKey, String>> {
        let statement = query("SELECT job, reason FROM queue WHERE run = $1").bind(run);
        let found = statement.fetch_all(&self.readers).await?;
        found.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
    }

    /// Whether an event was taken in.
    pub async fn seen(&self, id: &str) -> Found<bool> {
        let found: i64 =
            query_scalar("SELECT count(*) FROM seen WHERE id = $1").bind(id).fetch_one(&self.readers).await?;
        Ok(found > 0)
    }

    /// Jobs that wait for a worker, oldest first.
    pub async fn queued(&self) -> Found<Vec<QueuedJob>> {
        let statement =
            query("SELECT run, job, labels, avoid, owner, since, reason FROM queue ORDER BY since, run, job");
        rows(statement.fetch_all(&self.readers).await?, |row| {
            Ok(QueuedJob {
                run: row.get(0)?,
                job: row.get(1)?,
                labels: json(&row.get::<String>(2)?)?,
                avoid: json(&row.get::<String>(3)?)?,
                owner: row.get(4)?,
                since: natural(row, 5)?,
                reason: row.get(6)?,
            })
        })
    }

    /// Outgoing events that are not done, in the order they were made, with the answers so far.
    pub async fn outbox_pending(&self) -> Found<Vec<Pending>> {
        let statement = query(
            "SELECT event, sequence, unsigned, signature, signer, relays, run, made_at FROM outbox
             WHERE done = 0 ORDER BY sequence",
        );
        self.outgoing(statement.fetch_all(&self.readers).await?).await
    }

    /// Whether one of our own relays has an event.
    pub async fn taken_by_own_relay(&self, event: &str) -> Found<bool> {
        let relays: Option<String> = query_scalar("SELECT relays FROM outbox WHERE event = $1")
            .bind(event)
            .fetch_optional(&self.readers)
            .await?;
        let taken: Vec<String> = query_scalar("SELECT relay FROM deliveries WHERE event = $1 AND answer = ''")
            .bind(event)
            .fetch_all(&self.readers)
            .await?;
        let relays: Vec<(String, super::RelayClass)> = relays.as_deref().map_or_else(|| Ok(Vec::new()), json)?;
        Ok(relays.iter().any(|(relay, class)| *class == super::RelayClass::Own && taken.contains(relay)))
    }

    /// All events that report on a run, in the order they were made.
    pub async fn outbox_of(&self, run: &RunId) -> Found<Vec<Pending>> {
        let statement = query(
            "SELECT event, sequence, unsigned, signature, signer, relays, run, made_at FROM outbox
             WHERE run = $1 ORDER BY sequence",
        );
        self.outgoing(statement.bind(run).fetch_all(&self.readers).await?).await
    }

    /// Events that were made of a run, unsigned as JSON, in the order of making.
    pub async fn events_of(&self, run: &RunId) -> Found<Vec<String>> {
        let statement = query("SELECT unsigned FROM outbox WHERE run = $1 ORDER BY sequence").bind(run);
        rows(statement.fetch_all(&self.readers).await?, |row| row.get(0))
    }

    async fn outgoing(&self, found: Vec<Row>) -> Found<Vec<Pending>> {
        let mut pending = rows(found, |row| {
            let outgoing = Outgoing {
                event: row.get(0)?,
                sequence: row.get(1)?,
                unsigned: row.get(2)?,
                signature: row.get(3)?,
                signer: json(&row.get::<String>(4)?)?,
                relays: json(&row.get::<String>(5)?)?,
                run: row.get(6)?,
                made_at: natural(row, 7)?,
            };
            Ok(Pending { outgoing, answers: Vec::new() })
        })?;
        for entry in &mut pending {
            let statement = query("SELECT relay, answer FROM deliveries WHERE event = $1 ORDER BY at, relay");
            let found = statement.bind(&entry.outgoing.event).fetch_all(&self.readers).await?;
            entry.answers = rows(found, |row| Ok((row.get(0)?, row.get(1)?)))?;
        }
        Ok(pending)
    }

    /// A run's sealed values; `None` once erased, or where it had none.
    pub async fn secrets(&self, run: &RunId) -> Found<Option<SealedSecrets>> {
        // One statement: an erasure between two would show a key without its values.
        let statement = query(
            "SELECT k.wrapped, s.name, s.sealed FROM run_keys k LEFT JOIN secrets s ON s.run = k.run
             WHERE k.run = $1 ORDER BY s.name",
        );
        let mut found: Option<SealedSecrets> = None;
        for row in statement.bind(run).fetch_all(&self.readers).await? {
            let wrapped_key: Vec<u8> = row.get(0)?;
            let secrets = found.get_or_insert_with(|| SealedSecrets { sealed: Vec::new(), wrapped_key });
            if let Some(name) = row.get::<Option<String>>(1)? {
                secrets.sealed.push((name, row.get(2)?));
            }
        }
        Ok(found)
    }

    /// Halves that wait for this event.
    pub async fn parked_for(&self, event: &str) -> Found<Vec<PendingEvent>> {
        let statement = query("SELECT id, waits_for, event, until FROM parked WHERE waits_for = $1 ORDER BY id");
        rows(statement.bind(event).fetch_all(&self.readers).await?, parked)
    }

    /// Halves that waited long enough.
    pub async fn parked_expired(&self, now: Millis) -> Found<Vec<PendingEvent>> {
        let statement = query("SELECT id, waits_for, event, until FROM parked WHERE until <= $1 ORDER BY until, id");
        rows(statement.bind(integer(now)).fetch_all(&self.readers).await?, parked)
    }

    /// Seconds stamp of the newest event that a relay gave.
    pub async fn cursor(&self, relay: &str) -> Found<Option<u64>> {
        let seen: Option<i64> =
            query_scalar("SELECT seen FROM cursors WHERE relay = $1").bind(relay).fetch_optional(&self.readers).await?;
        Ok(seen.map(i64::unsigned_abs))
    }

    /// Whether anybody owns the bytes with this hash.
    pub async fn has_blob(&self, sha256: &BlobHash) -> Found<bool> {
        let statement = query_scalar("SELECT 1 FROM blobs WHERE sha256 = $1 LIMIT 1").bind(sha256);
        let found: Option<i64> = statement.fetch_optional(&self.readers).await?;
        Ok(found.is_some())
    }

    /// Stored bytes by their hash, one entry for each owner.
    pub async fn blob(&self, sha256: &BlobHash) -> Found<Vec<Blob>> {
        let statement = query(
            "SELECT sha256, owner, size, kind, public, stored_at, expires_at FROM blobs WHERE sha256 = $1
             ORDER BY stored_at, owner",
        );
        rows(statement.bind(sha256).fetch_all(&self.readers).await?, blob)
    }

    /// What an owner stored, newest first.
    pub async fn blobs_of(&self, owner: &str, limit: u32) -> Found<Vec<Blob>> {
        let statement = query(
            "SELECT sha256, owner, size, kind, public, stored_at, expires_at FROM blobs WHERE owner = $1
             ORDER BY stored_at DESC, sha256 LIMIT $2",
        );
        rows(statement.bind(owner).bind(i64::from(limit)).fetch_all(&self.readers).await?, blob)
    }

    /// What runs published, of more than so many bytes each: their complete logs.
    pub async fn large_blobs_of_runs(&self, bytes: u64) -> Found<Vec<Blob>> {
        let statement = query(
            "SELECT sha256, owner, size, kind, public, stored_at, expires_at FROM blobs
             WHERE size > $1 AND owner IN (SELECT id FROM runs)",
        );
        rows(statement.bind(integer(bytes)).fetch_all(&self.readers).await?, blob)
    }

    /// Bytes that may be removed.
    pub async fn blobs_expired(&self, now: Millis) -> Found<Vec<Blob>> {
        let statement = query(
            "SELECT sha256, owner, size, kind, public, stored_at, expires_at FROM blobs WHERE expires_at <= $1
             ORDER BY expires_at, sha256",
        );
        rows(statement.bind(integer(now)).fetch_all(&self.readers).await?, blob)
    }

    /// Hashes (64 hex) of stored bytes that begin with two hex digits.
    pub async fn blob_hashes(&self, prefix: &str) -> Found<HashSet<BlobHash>> {
        // `g` comes after every hex digit.
        let statement = query_scalar("SELECT DISTINCT sha256 FROM blobs WHERE sha256 >= $1 AND sha256 < $2");
        let found: Vec<BlobHash> = statement.bind(prefix).bind(format!("{prefix}g")).fetch_all(&self.readers).await?;
        Ok(found.into_iter().collect())
    }

    /// A concurrency group, by [`domain::group::key`].
    pub async fn group(&self, key: &str) -> Found<Option<Group>> {
        let statement = query("SELECT name, version, holder, pending FROM run_groups WHERE name = $1").bind(key);
        let found = statement.fetch_optional(&self.readers).await?;
        let mut groups = rows(found, |row| {
            Ok(Group {
                key: row.get(0)?,
                version: natural(row, 1)?,
                holder: row.get::<Option<String>>(2)?.map(|holder| json(&holder)).transpose()?,
                pending: json(&row.get::<String>(3)?)?,
            })
        })?;
        Ok(groups.pop())
    }

    /// Enrolled workers, by name.
    pub async fn workers(&self) -> Found<Vec<WorkerRow>> {
        let statement = query(format!("SELECT {WORKER_COLUMNS} FROM workers ORDER BY name, id"));
        rows(statement.fetch_all(&self.readers).await?, worker)
    }

    /// An enrolled worker by its id.
    pub async fn worker(&self, id: &str) -> Found<Option<WorkerRow>> {
        let statement = query(format!("SELECT {WORKER_COLUMNS} FROM workers WHERE id = $1")).bind(id);
        statement.fetch_optional(&self.readers).await?.as_ref().map(worker).transpose()
    }
}

const WORKER_COLUMNS: &str = "id, identity, name, labels, slots, seen_at, draining";

fn worker(row: &Row) -> Found<WorkerRow> {
    Ok(WorkerRow {
        id: row.get(0)?,
        identity: row.get(1)?,
        name: row.get(2)?,
        labels: json(&row.get::<String>(3)?)?,
        slots: u32::try_from(natural(row, 4)?).unwrap_or(u32::MAX),
        seen_at: natural(row, 5)?,
        draining: natural(row, 6)? != 0,
    })
}

fn parked(row: &Row) -> Found<PendingEvent> {
    Ok(PendingEvent { id: row.get(0)?, waits_for: row.get(1)?, event: row.get(2)?, until: natural(row, 3)? })
}

fn blob(row: &Row) -> Found<Blob> {
    Ok(Blob {
        sha256: row.get(0)?,
        owner: row.get(1)?,
        size: natural(row, 2)?,
        kind: row.get(3)?,
        public: natural(row, 4)? != 0,
        stored_at: natural(row, 5)?,
        expires_at: natural(row, 6)?,
    })
}

fn rows<T>(found: impl IntoIterator<Item = Row>, read: impl Fn(&Row) -> Found<T>) -> Found<Vec<T>> {
    found.into_iter().map(|row| read(&row)).collect()
}

fn json<T: DeserializeOwned>(text: &str) -> Found<T> {
    Ok(serde_json::from_str(text)?)
}
