//! A run in parts: the head in `runs`, what is set once in `run_parts`, a row for each job and each called workflow.
//!
//! A write compares two versions of a run by their shared pointers and touches the rows of what differs, so that an
//! event of one job costs the same however many jobs the run has.

use std::{collections::HashMap, sync::Arc};

use domain::id::{JobKey, RunId};
use domain::run::{CalledWorkflow, Job, Planned, Rerun, RunDocument, RunRequest, RunState};
use indexmap::IndexMap;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Store, StoreError, reports,
    sql::{Connection, Row, query, query_scalar},
};

/// The form of a stored run that this version writes. Older ones are read as a [`RunDocument`].
pub(super) const STATE_VERSION: i64 = 2;

/// All rows of a run. One statement, so that all are of the same version.
const SELECT_PARTS: &str = "
    SELECT 0 AS kind, '' AS name, state_version AS position, state AS body FROM runs WHERE id = $1
    UNION ALL SELECT 1, part, 0, body FROM run_parts WHERE run = $1
    UNION ALL SELECT 2, job, position, state FROM run_jobs WHERE run = $1
    UNION ALL SELECT 3, job, position, state FROM run_calls WHERE run = $1
    ORDER BY kind, position";

/// A new run, or a new version of one.
#[derive(Debug, Clone)]
pub struct RunChange {
    /// The stored version, where the caller has it: parts that it shares with the new one are not written again. `None`:
    /// every part is written.
    pub before: Option<Arc<RunState>>,
    /// The new version.
    pub after: Arc<RunState>,
}

impl RunChange {
    /// Writes every part of a version.
    pub fn whole(state: RunState) -> Self {
        Self { before: None, after: Arc::new(state) }
    }
}

/// A table with a row for each entry of one of a run's maps.
#[derive(Clone, Copy)]
enum EntryTable {
    Jobs,
    Calls,
}

impl EntryTable {
    fn upsert(self) -> &'static str {
        match self {
            Self::Jobs => {
                "INSERT INTO run_jobs (run, job, position, state) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (run, job) DO UPDATE SET position = excluded.position, state = excluded.state"
            }
            Self::Calls => {
                "INSERT INTO run_calls (run, job, position, state) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (run, job) DO UPDATE SET position = excluded.position, state = excluded.state"
            }
        }
    }

    fn reposition(self) -> &'static str {
        match self {
            Self::Jobs => "UPDATE run_jobs SET position = $3 WHERE run = $1 AND job = $2",
            Self::Calls => "UPDATE run_calls SET position = $3 WHERE run = $1 AND job = $2",
        }
    }

    fn delete(self) -> &'static str {
        match self {
            Self::Jobs => "DELETE FROM run_jobs WHERE run = $1 AND job = $2",
            Self::Calls => "DELETE FROM run_calls WHERE run = $1 AND job = $2",
        }
    }
}

/// Writes the parts in which a run differs from the version before. Without such a version, or where the row is of an
/// older form, all parts are written.
pub(super) async fn write(
    connection: &mut Connection,
    before: Option<&RunState>,
    after: &RunState,
) -> Result<(), StoreError> {
    let run = &after.id;
    if before.is_none() && after.version > 0 {
        for table in ["run_jobs", "run_calls"] {
            query(format!("DELETE FROM {table} WHERE run = $1")).bind(run).execute(&mut *connection).await?;
        }
    }
    if before.is_none_or(|before| !Arc::ptr_eq(&before.request, &after.request)) {
        part(connection, run, "request", &*after.request).await?;
    }
    if let Some(rerun) = changed(before.and_then(|before| before.rerun.as_ref()), after.rerun.as_ref()) {
        part(connection, run, "rerun", rerun).await?;
    }
    if let Some(planned) = changed(before.and_then(|before| before.planned.as_ref()), after.planned.as_ref()) {
        part(connection, run, "planned", planned).await?;
    }
    entries(connection, EntryTable::Jobs, run, before.map(|before| &before.jobs), &after.jobs).await?;
    entries(connection, EntryTable::Calls, run, before.map(|before| &before.calls), &after.calls).await
}

fn changed<'a, T>(before: Option<&Arc<T>>, after: Option<&'a Arc<T>>) -> Option<&'a T> {
    let after = after?;
    before.is_none_or(|before| !Arc::ptr_eq(before, after)).then_some(after)
}

async fn part(connection: &mut Connection, run: &RunId, name: &str, body: &impl Serialize) -> Result<(), StoreError> {
    let statement = query(
        "INSERT INTO run_parts (run, part, body) VALUES ($1, $2, $3)
         ON CONFLICT (run, part) DO UPDATE SET body = excluded.body",
    );
    statement.bind(run).bind(name).bind(serde_json::to_string(body)?).execute(connection).await?;
    Ok(())
}

async fn entries<T: Serialize>(
    connection: &mut Connection,
    table: EntryTable,
    run: &RunId,
    before: Option<&IndexMap<JobKey, Arc<T>>>,
    after: &IndexMap<JobKey, Arc<T>>,
) -> Result<(), StoreError> {
    let mut found = 0;
    for (position, (key, entry)) in after.iter().enumerate() {
        let earlier = before.and_then(|before| before.get_full(key));
        found += usize::from(earlier.is_some());
        match earlier {
            Some((earlier, _, same)) if Arc::ptr_eq(same, entry) => {
                if earlier != position {
                    let statement = query(table.reposition()).bind(run).bind(key).bind(position as u64);
                    statement.execute(&mut *connection).await?;
                }
            }
            _ => {
                let statement = query(table.upsert()).bind(run).bind(key).bind(position as u64);
                statement.bind(serde_json::to_string(&**entry)?).execute(&mut *connection).await?;
            }
        }
    }
    let gone = before.filter(|before| before.len() > found);
    for key in gone.into_iter().flat_map(|before| before.keys()).filter(|key| !after.contains_key(*key)) {
        query(table.delete()).bind(run).bind(key).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Moves the reports of a run whose row is of an older form to their own table: the row is about to be replaced.
pub(super) async fn move_reports(connection: &mut Connection, run: &RunId) -> Result<(), StoreError> {
    let text: Option<String> = query_scalar("SELECT state FROM runs WHERE id = $1 AND state_version < $2")
        .bind(run)
        .bind(STATE_VERSION)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(text) = text else { return Ok(()) };
    for (job, attempt, report) in document(&text)?.reports {
        reports::write(connection, run, &job, attempt, &report).await?;
    }
    Ok(())
}

/// Reads a run.
pub(super) async fn read(store: &Store, id: &RunId) -> Result<Option<RunState>, StoreError> {
    let rows = query(SELECT_PARTS).bind(id).fetch_all(&store.readers).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let unreadable = |error: StoreError| match error {
        StoreError::Unreadable { reason, .. } => StoreError::Unreadable { row: format!("run {id}"), reason },
        other => other,
    };
    assemble(&rows).map(Some).map_err(unreadable)
}

/// Puts the rows of [`SELECT_PARTS`] together.
fn assemble(rows: &[Row]) -> Result<RunState, StoreError> {
    let mut parts: HashMap<String, String> = HashMap::new();
    let (mut head, mut jobs, mut calls) = (None, IndexMap::new(), IndexMap::new());
    for row in rows {
        let (name, body): (String, String) = (row.get(1)?, row.get(3)?);
        match row.get::<i64>(0)? {
            0 => head = Some((row.get::<i64>(2)?, body)),
            1 => drop(parts.insert(name, body)),
            2 => drop(jobs.insert(JobKey::from(name), Arc::new(json::<Job>(&body)?))),
            _ => drop(calls.insert(JobKey::from(name), Arc::new(json::<CalledWorkflow>(&body)?))),
        }
    }
    let unreadable = |reason: String| StoreError::Unreadable { row: String::new(), reason };
    let lost = |what: &str| unreadable(format!("its {what} is missing"));
    let (version, head) = head.ok_or_else(|| lost("head"))?;
    match version {
        1 => return Ok(document(&head)?.state),
        STATE_VERSION => {}
        newer => return Err(unreadable(format!("it has form {newer}, this version reads {STATE_VERSION}"))),
    }
    let part = |name: &str| parts.get(name);
    Ok(RunState {
        request: Arc::new(json::<RunRequest>(part("request").ok_or_else(|| lost("request"))?)?),
        rerun: part("rerun").map(|body| json::<Rerun>(body)).transpose()?.map(Arc::new),
        planned: part("planned").map(|body| json::<Planned>(body)).transpose()?.map(Arc::new),
        jobs,
        calls,
        ..json(&head)?
    })
}

pub(super) fn document(text: &str) -> Result<RunDocument, StoreError> {
    serde_json::from_str(text).and_then(RunDocument::read).map_err(|error| unreadable(&error))
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> StoreError {
    StoreError::Unreadable { row: String::new(), reason: error.to_string() }
}
