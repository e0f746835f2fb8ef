//! Statements for both engines: one text with `$1` placeholders, values of three types, rows of owned values.
//!
//! A statement runs on a [`Connection`], which is inside a transaction of the writer, or on the [`Readers`].

use std::{borrow::Cow, sync::Arc};

use parking_lot::Mutex;

use super::{StoreError, postgres, sqlite};

/// A value of a column: TEXT, BIGINT or BYTEA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A row of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row(pub(crate) Vec<Value>);

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

    /// Runs statements without values, separated by semicolons.
    pub(crate) async fn run_script(&mut self, script: &str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch(script)?),
            Self::Postgres(client) => Ok(client.batch_execute(script).await?),
        }
    }
}

impl Row {
    /// A column, counted from 0.
    pub(crate) fn get<T: FromValue>(&self, column: usize) -> Result<T, StoreError> {
        let missing = || StoreError::Database(format!("a row has no column {column}"));
        T::from_value(self.0.get(column).cloned().ok_or_else(missing)?)
    }

    fn first<T: FromValue>(self) -> Result<T, StoreError> {
        let missing = || StoreError::Database("a row has no column".into());
        T::from_value(self.0.into_iter().next().ok_or_else(missing)?)
    }
}

/// What a column is read as.
pub(crate) trait FromValue: Sized {
    fn from_value(value: Value) -> Result<Self, StoreError>;
}

fn unexpected(wanted: &str, value: &Value) -> StoreError {
    let found = match value {
        Value::Null => "NULL",
        Value::Integer(_) => "BIGINT",
        Value::Text(_) => "TEXT",
        Value::Bytes(_) => "BYTEA",
    };
    StoreError::Database(format!("a column holds {found} and not {wanted}"))
}

impl FromValue for String {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Text(text) => Ok(text),
            other => Err(unexpected("TEXT", &other)),
        }
    }
}

impl FromValue for i64 {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Integer(number) => Ok(number),
            other => Err(unexpected("BIGINT", &other)),
        }
    }
}

impl FromValue for u64 {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        let number = i64::from_value(value)?;
        Self::try_from(number).map_err(|_| StoreError::Database(format!("a column holds the negative {number}")))
    }
}

impl FromValue for u32 {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        let number = i64::from_value(value)?;
        Self::try_from(number).map_err(|_| StoreError::Database(format!("a column holds {number}, beyond 32 bits")))
    }
}

impl FromValue for bool {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        Ok(i64::from_value(value)? != 0)
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(unexpected("BYTEA", &other)),
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Null => Ok(None),
            other => T::from_value(other).map(Some),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u64> for Value {
    /// BIGINT is signed; nothing that is counted here comes near the end of it.
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(i64::from(number))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Integer(i64::from(flag))
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
