//! Changes of enrolled workers besides their rows as a whole.

use super::{
    Change, Millis, StoreError,
    sql::{Connection, query},
};

/// Ids in one statement.
const CHUNK: usize = 500;

/// A change of workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerChange {
    /// They have a session with some coordinator.
    Seen {
        /// Ids of the workers.
        ids: Vec<String>,
        /// When.
        at: Millis,
    },
    /// The operator wants a worker to take no new jobs, or to take them again.
    Draining {
        /// Id of the worker.
        id: String,
        /// Whether it takes no new jobs.
        draining: bool,
    },
}

impl From<WorkerChange> for Change {
    fn from(change: WorkerChange) -> Self {
        Self::Workers(change)
    }
}

pub(super) async fn apply(connection: &mut Connection, change: &WorkerChange) -> Result<(), StoreError> {
    match change {
        WorkerChange::Seen { ids, at } => {
            for ids in ids.chunks(CHUNK) {
                let places: Vec<String> = (0..ids.len()).map(|place| format!("${}", place + 2)).collect();
                // Numbers of placeholders alone.
                let text = format!("UPDATE workers SET seen_at = $1 WHERE id IN ({})", places.join(", "));
                let statement = ids.iter().fold(query(text).bind(*at), |statement, id| statement.bind(id));
                statement.execute(connection).await?;
            }
        }
        WorkerChange::Draining { id, draining } => {
            let statement = query("UPDATE workers SET draining = $2 WHERE id = $1").bind(id).bind(*draining);
            statement.execute(connection).await?;
        }
    }
    Ok(())
}
