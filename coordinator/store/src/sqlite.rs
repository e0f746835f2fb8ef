//! SQLite: one connection that writes on a thread of its own, and threads that read.

use std::{
    borrow::Cow,
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

use futures::FutureExt;
use parking_lot::Mutex;
use rusqlite::{
    Connection,
    config::DbConfig,
    types::{ToSqlOutput, ValueRef},
};
use tokio::sync::oneshot;

use super::{
    StoreError,
    row::{Row, Value},
};

/// Reading connections. In WAL mode they block nobody.
const READERS: usize = 4;
/// Prepared statements that a connection keeps.
const STATEMENTS: usize = 256;

/// FULL: a commit is on the disk before it is acknowledged. `secure_delete`: erased keys leave no bytes in the file.
/// `temp_store`: what a savepoint would undo stands in memory, not in a file that is made for each transaction.
const SETTINGS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA busy_timeout = 10000;
    PRAGMA secure_delete = ON;
    PRAGMA temp_store = MEMORY;
";

/// Opens a connection to the file, which is created if need be.
pub(crate) fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path).and_then(|connection| {
        connection.execute_batch(SETTINGS)?;
        Ok(connection)
    });
    let connection = connection.map_err(|error| {
        StoreError::Database(format!(
            "can't open {}: {error}. The folder must exist and belong to this user",
            path.display()
        ))
    })?;
    prepare_statements(&connection)?;
    Ok(connection)
}

/// Each statement is compiled once for a connection, whatever its values (SQLite docs: SQLITE_DBCONFIG_ENABLE_QPSG).
fn prepare_statements(connection: &Connection) -> Result<(), StoreError> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

/// Opens a database in memory.
pub(crate) fn connect_in_memory() -> Result<Connection, StoreError> {
    let connection = Connection::open_in_memory()?;
    prepare_statements(&connection)?;
    Ok(connection)
}

/// Completes a future that runs statements of SQLite: they never wait, so one poll is enough.
pub(crate) fn complete<T>(future: impl Future<Output = T>) -> Result<T, StoreError> {
    future.now_or_never().ok_or_else(|| StoreError::Database("a statement of SQLite waited for something else".into()))
}

/// Runs a statement; returns the number of rows that it wrote.
pub(crate) fn execute(connection: &Connection, text: &str, values: &[Value]) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached(text)?;
    bind(&mut statement, values)?;
    Ok(statement.raw_execute()? as u64)
}

/// Runs a statement; returns all its rows.
pub(crate) fn fetch(connection: &Connection, text: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
    let mut statement = connection.prepare_cached(text)?;
    bind(&mut statement, values)?;
    let columns = statement.column_count();
    let mut found = statement.raw_query();
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let values = (0..columns).map(|column| Ok(read(row.get_ref(column)?)));
        rows.push(Row(values.collect::<Result<_, StoreError>>()?));
    }
    Ok(rows)
}

/// To SQLite `$1` is a name, and names are numbered in the order in which they occur.
fn bind(statement: &mut rusqlite::CachedStatement<'_>, values: &[Value]) -> Result<(), StoreError> {
    for index in 1..=statement.parameter_count() {
        let number = statement.parameter_name(index).and_then(|name| name.get(1..)?.parse::<usize>().ok());
        let value = number.and_then(|number| values.get(number.checked_sub(1)?));
        let missing = || StoreError::Database(format!("placeholder {index} of a statement has no value"));
        statement.raw_bind_parameter(index, value.ok_or_else(missing)?)?;
    }
    Ok(())
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn read(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        // No statement of ours computes a fraction.
        #[allow(clippy::cast_possible_truncation)]
        ValueRef::Real(number) => Value::Integer(number as i64),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    }
}

/// Threads that read, each with its own connection. They end with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct ReaderThreads {
    requests: mpsc::Sender<Read>,
}

#[derive(Debug)]
struct Read {
    text: Cow<'static, str>,
    values: Vec<Value>,
    answer: oneshot::Sender<Result<Vec<Row>, StoreError>>,
}

impl ReaderThreads {
    /// Starts the threads for the file.
    pub(crate) fn start(path: &Path) -> Result<Self, StoreError> {
        let (requests, received) = mpsc::channel();
        let received = Arc::new(Mutex::new(received));
        for number in 0..READERS {
            let (received, connection) = (received.clone(), connect(path)?);
            connection.execute_batch("PRAGMA query_only = ON")?;
            spawn(format!("store-read-{number}"), move || read_requests(&received, &connection))?;
        }
        Ok(Self { requests })
    }

    /// Runs a statement on the next free thread.
    pub(crate) async fn fetch(&self, text: Cow<'static, str>, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Read { text, values, answer }).map_err(|_| StoreError::Stopped)?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }
}

fn read_requests(requests: &Mutex<mpsc::Receiver<Read>>, connection: &Connection) {
    loop {
        // The guard is dropped with this statement: the next free thread waits in its place.
        let next = requests.lock().recv();
        let Ok(Read { text, values, answer }) = next else { return };
        if !answer.is_closed() {
            // The caller may have gone meanwhile.
            let _ = answer.send(fetch(connection, &text, &values));
        }
    }
}

/// Starts a thread by name.
pub(crate) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let started = thread::Builder::new().name(name).spawn(work);
    started.map(drop).map_err(|error| StoreError::Database(format!("can't start a thread: {error}")))
}
