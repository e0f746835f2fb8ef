//! Statements for both engines: one text with `$1` placeholders.
//!
//! A statement runs on a [`Connection`], which is inside a transaction of the writer, or on the [`Readers`].

use std::{borrow::Cow, sync::Arc};

use parking_lot::Mutex;

pub(crate) use super::row::{FromValue, Row, Value};
use super::{StoreError, postgres, sqlite};

/// A statement and the values of its placeholders.
#[derive(Debug)]
pub(crate) struct Query {
    text: Cow<'static, str>,
    values: Vec<Value>,
}

/// A statement of which only the first column of each row is wanted.
#[derive(Debug)]
pub(crate) struct ScalarQuery(Query);

/// A connection that may write. SQLite runs statements on the calling thread.
#[derive(Debug)]
pub(crate) enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(deadpool_postgres::Object),
}

/// Connections that only read.
#[derive(Debug, Clone)]
pub(crate) enum Readers {
    /// Threads with a connection each; a read is one message there and one back.
    Sqlite(sqlite::ReaderThreads),
    /// The one connection of a database in memory, used by the calling thread.
    Inline(Arc<Mutex<Connection>>),
    Postgres(postgres::Pool),
}

/// Where a reading statement runs.
#[derive(Debug)]
pub(crate) enum Executor<'c> {
    Connection(&'c mut Connection),
    Readers(&'c Readers),
}

impl<'c> From<&'c mut Connection> for Executor<'c> {
    fn from(connection: &'c mut Connection) -> Self {
        Self::Connection(connection)
    }
}

impl<'c> From<&'c Readers> for Executor<'c> {
    fn from(readers: &'c Readers) -> Self {
        Self::Readers(readers)
    }
}

/// A statement.
pub(crate) fn query(text: impl Into<Cow<'static, str>>) -> Query {
    Query { text: text.into(), values: Vec::new() }
}

/// A statement whose rows have one column.
pub(crate) fn query_scalar(text: impl Into<Cow<'static, str>>) -> ScalarQuery {
    ScalarQuery(query(text))
}

impl Query {
    /// Adds the value of the next placeholder.
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs the statement; returns the number of rows that it wrote.
    pub(crate) async fn execute(self, connection: &mut Connection) -> Result<u64, StoreError> {
        match connection {
            Connection::Sqlite(connection) => sqlite::execute(connection, &self.text, &self.values),
            Connection::Postgres(client) => postgres::execute(client, &self.text, &self.values).await,
        }
    }

    /// All rows.
    pub(crate) async fn fetch_all<'c>(self, on: impl Into<Executor<'c>>) -> Result<Vec<Row>, StoreError> {
        match on.into() {
            Executor::Connection(connection) => connection.fetch(&self.text, &self.values).await,
            Executor::Readers(Readers::Sqlite(threads)) => threads.fetch(self.text, self.values).await,
            Executor::Readers(Readers::Inline(shared)) => {
                let mut connection = shared.lock();
                sqlite::complete(connection.fetch(&self.text, &self.values))?
            }
            Executor::Readers(Readers::Postgres(pool)) => pool.fetch(&self.text, &self.values).await,
        }
    }

    /// The first row, if there is any.
    pub(crate) async fn fetch_optional<'c>(self, on: impl Into<Executor<'c>>) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch_all(on).await?.into_iter().next())
    }

    /// The first row of a statement that always gives one.
    pub(crate) async fn fetch_one<'c>(self, on: impl Into<Executor<'c>>) -> Result<Row, StoreError> {
        self.fetch_optional(on).await?.ok_or_else(without_row)
    }
}

fn without_row() -> StoreError {
    StoreError::Database("a statement that always gives a row gave none".into())
}

impl ScalarQuery {
    /// Adds the value of the next placeholder.
    pub(crate) fn bind(self, value: impl Into<Value>) -> Self {
        Self(self.0.bind(value))
    }

    /// The first column of all rows.
    pub(crate) async fn fetch_all<'c, T: FromValue>(self, on: impl Into<Executor<'c>>) -> Result<Vec<T>, StoreError> {
        self.0.fetch_all(on).await?.into_iter().map(Row::first).collect()
    }

    /// The first column of the first row, if there is any.
    pub(crate) async fn fetch_optional<'c, T: FromValue>(
        self,
        on: impl Into<Executor<'c>>,
    ) -> Result<Option<T>, StoreError> {
        self.0.fetch_optional(on).await?.map(Row::first).transpose()
    }

    /// The first column of the first row.
    pub(crate) async fn fetch_one<'c, T: FromValue>(self, on: impl Into<Executor<'c>>) -> Result<T, StoreError> {
        self.fetch_optional(on).await?.ok_or_else(without_row)
    }
}

impl Connection {
    async fn fetch(&mut self, text: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(connection) => sqlite::fetch(connection, text, values),
            Self::Postgres(client) => postgres::fetch(client, text, values).await,
        }
    }

    /// Runs one statement without values that returns no rows, prepared once.
    pub(crate) async fn run(&mut self, statement: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => sqlite::execute(connection, statement, &[]).map(drop),
            Self::Postgres(client) => Ok(client.batch_execute(statement).await?),
        }
    }

    /// Runs statements without values, separated by semicolons.
    pub(crate) async fn run_script(&mut self, script: &str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch(script)?),
            Self::Postgres(client) => Ok(client.batch_execute(script).await?),
        }
    }
}
