//! PostgreSQL: a pool of connections, and the feed of changes that other coordinators on the same database commit.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::BytesMut;
use deadpool_postgres::{Manager, ManagerConfig, Object, RecyclingMethod, Runtime};
use tokio_postgres::{
    AsyncMessage, Config, NoTls,
    config::SslMode,
    types::{IsNull, ToSql, Type, to_sql_checked},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    ChangeNotification, StoreError,
    error::{causes, describe},
    row::{Row, Value},
};

/// Connections of one coordinator; one of them writes.
const CONNECTIONS: usize = 8;
/// How long a connection may take to come up, or to become free.
const PATIENCE: Duration = Duration::from_secs(10);
/// The channel of LISTEN and NOTIFY.
const CHANNEL: &str = "longshore_changes";

/// The pool. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pool: deadpool_postgres::Pool,
    config: Arc<Config>,
}

impl Pool {
    /// A pool for the address `postgres://…`; connections are made when they are needed.
    pub(crate) fn new(url: &str, application: &str) -> Result<Self, StoreError> {
        let invalid = |error: &dyn std::fmt::Display| {
            StoreError::Database(format!("store.url is no address of a PostgreSQL database: {error}"))
        };
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| invalid(&describe(&error)))?;
        config.application_name(application);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(PATIENCE);
        }
        let settings = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match config.get_ssl_mode() {
            SslMode::Disable => Manager::from_config(config.clone(), NoTls, settings),
            _ => Manager::from_config(config.clone(), tls()?, settings),
        };
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(CONNECTIONS)
            .wait_timeout(Some(PATIENCE))
            .create_timeout(Some(PATIENCE))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| invalid(&error))?;
        Ok(Self { pool, config: Arc::new(config) })
    }

    /// A connection that is not in use.
    pub(crate) async fn connection(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(|error| StoreError::Database(format!("PostgreSQL: {}", causes(&error))))
    }

    /// Runs a reading statement. A connection that was closed meanwhile, as by a restart of the server, is replaced once.
    pub(crate) async fn fetch(&self, text: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        let client = self.connection().await?;
        let failed = match fetch(&client, text, values).await {
            Err(error) if client.is_closed() => error,
            other => return other,
        };
        tracing::debug!("a read is repeated on a new connection: {failed}");
        drop(client);
        fetch(&self.connection().await?, text, values).await
    }

    /// Receives the notifications of other processes until the connection is lost. `listening` is called once none can
    /// be missed any more.
    pub(crate) async fn listen(
        &self,
        own: u64,
        listening: impl FnOnce() + Send,
        each: impl FnMut(ChangeNotification) + Send,
    ) -> Result<(), StoreError> {
        match self.config.get_ssl_mode() {
            SslMode::Disable => {
                let (client, connection) = self.config.connect(NoTls).await?;
                listen_on(&client, connection, own, listening, each).await
            }
            _ => {
                let (client, connection) = self.config.connect(tls()?).await?;
                listen_on(&client, connection, own, listening, each).await
            }
        }
    }
}

async fn listen_on<S, T>(
    client: &tokio_postgres::Client,
    mut connection: tokio_postgres::Connection<S, T>,
    own: u64,
    listening: impl FnOnce() + Send,
    mut each: impl FnMut(ChangeNotification) + Send,
) -> Result<(), StoreError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
{
    let text = format!("LISTEN {CHANNEL}");
    let mut begun = std::pin::pin!(client.batch_execute(&text));
    let mut listening = Some(listening);
    let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
    loop {
        tokio::select! {
            result = &mut begun, if listening.is_some() => {
                result?;
                if let Some(listening) = listening.take() {
                    listening();
                }
            }
            message = futures::StreamExt::next(&mut messages) => match message {
                None => return Err(StoreError::Database("the connection for notifications was closed".into())),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(AsyncMessage::Notification(note))) => changes(note.payload(), own).for_each(&mut each),
                Some(Ok(_)) => {}
            }
        }
    }
}

/// The changes that a notification tells of; none if this process sent it.
fn changes(payload: &str, own: u64) -> impl Iterator<Item = ChangeNotification> + '_ {
    let mut words = payload.split(' ');
    let other = words.next().and_then(|sender| sender.parse().ok()) != Some(own);
    words.filter(move |_| other).filter_map(ChangeNotification::read)
}

/// Announces changes to other coordinators once the transaction is committed.
pub(crate) async fn notify(client: &Object, own: u64, changed: &[ChangeNotification]) -> Result<(), StoreError> {
    let words: Vec<_> = changed.iter().map(|change| change.as_str()).collect();
    let values = [CHANNEL.into(), format!("{own} {}", words.join(" ")).into()];
    fetch(client, "SELECT 1 FROM (SELECT pg_notify($1, $2)) AS sent", &values).await.map(drop)
}

fn tls() -> Result<MakeRustlsConnect, StoreError> {
    let (connect, _) = MakeRustlsConnect::with_native_certs().map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        StoreError::Database(format!(
            "no certificate authorities of the system for TLS to PostgreSQL: {}. Install ca-certificates, or add \
             `?sslmode=disable` to store.url where the way to the server is trusted",
            errors.join(", ")
        ))
    })?;
    Ok(connect)
}

/// Runs a statement; returns the number of rows that it wrote.
pub(crate) async fn execute(client: &Object, text: &str, values: &[Value]) -> Result<u64, StoreError> {
    let statement = client.prepare_cached(text).await?;
    Ok(client.execute_raw(&statement, values).await?)
}

/// Runs a statement; returns all its rows.
pub(crate) async fn fetch(client: &Object, text: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
    let statement = client.prepare_cached(text).await?;
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
    client.query(&statement, &values).await?.iter().map(read).collect()
}

impl ToSql for Value {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(number) if *kind == Type::INT4 => i32::try_from(*number)?.to_sql(kind, out),
            Self::Integer(number) if *kind == Type::INT8 => number.to_sql(kind, out),
            Self::Text(text) if <&str as ToSql>::accepts(kind) => text.to_sql(kind, out),
            Self::Bytes(bytes) if *kind == Type::BYTEA => bytes.to_sql(kind, out),
            _ => Err(format!("a statement has another value where {kind} stands").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn read(row: &tokio_postgres::Row) -> Result<Row, StoreError> {
    let value = |(index, column): (usize, &tokio_postgres::Column)| {
        let kind = column.type_();
        Ok(if *kind == Type::INT8 {
            row.try_get::<_, Option<i64>>(index)?.map_or(Value::Null, Value::Integer)
        } else if *kind == Type::INT4 {
            row.try_get::<_, Option<i32>>(index)?.map_or(Value::Null, |number| Value::Integer(number.into()))
        } else if *kind == Type::BYTEA {
            row.try_get::<_, Option<Vec<u8>>>(index)?.map_or(Value::Null, Value::Bytes)
        } else {
            row.try_get::<_, Option<String>>(index)?.map_or(Value::Null, Value::Text)
        })
    };
    row.columns().iter().enumerate().map(value).collect::<Result<_, _>>().map(Row)
}
