//! Opening the database, and bringing it to the newest schema.

use std::path::Path;

use sqlx::{
    AnyConnection, AnyPool, ConnectOptions, Connection, Executor, any::AnyPoolOptions, sqlite::SqliteConnectOptions,
};

use super::StoreError;

/// Scripts in order; the number of those that ran stands in `schema_version`.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_first.sql"),
    include_str!("../migrations/0002_list.sql"),
    include_str!("../migrations/0003_caches_and_artifacts.sql"),
    include_str!("../migrations/0004_used.sql"),
    include_str!("../migrations/0005_webhooks.sql"),
    include_str!("../migrations/0006_definitions.sql"),
    include_str!("../migrations/0020_work.sql"),
];

/// Connections for reading. SQLite readers block nobody in WAL.
const READERS: u32 = 4;

/// FULL: a commit is on the disk before it is acknowledged. `secure_delete`: erased keys leave no bytes in the file.
const SETTINGS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA busy_timeout = 10000;
    PRAGMA secure_delete = ON;
";

/// The writer's connection, and the readers'.
pub(super) async fn connect(path: &Path) -> Result<(AnyConnection, AnyPool), StoreError> {
    sqlx::any::install_default_drivers();
    let explained = |error: sqlx::Error| {
        StoreError::Database(format!(
            "can't open {}: {error}. The folder must exist and belong to this user",
            path.display()
        ))
    };
    let url = SqliteConnectOptions::new().filename(path).create_if_missing(true).to_url_lossy();
    let mut writer = AnyConnection::connect(url.as_str()).await.map_err(explained)?;
    writer.execute(sqlx::raw_sql(SETTINGS)).await.map_err(explained)?;
    migrate(&mut writer).await?;
    let readers = AnyPoolOptions::new()
        .max_connections(READERS)
        // A file does not go away as a server does; asking first would double the way of a short query.
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute(sqlx::raw_sql(SETTINGS)).await?;
                Ok(())
            })
        })
        .connect(url.as_str())
        .await
        .map_err(explained)?;
    Ok((writer, readers))
}

async fn migrate(connection: &mut AnyConnection) -> Result<(), StoreError> {
    // Another process may open the same file now: one of them migrates, the other finds it done.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    transaction.execute(sqlx::raw_sql("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")).await?;
    let version: i64 =
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM schema_version").fetch_one(&mut *transaction).await?;
    let done = usize::try_from(version).unwrap_or(0);
    if done > MIGRATIONS.len() {
        return Err(StoreError::Database(format!(
            "the database has schema {done}, this version knows {}: start the newer version that wrote it",
            MIGRATIONS.len()
        )));
    }
    for (index, script) in MIGRATIONS.iter().enumerate().skip(done) {
        transaction.execute(sqlx::raw_sql(*script)).await?;
        sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
            .bind(super::write::integer(index as u64 + 1))
            .execute(&mut *transaction)
            .await?;
    }
    super::runs::fill(&mut transaction).await?;
    transaction.commit().await?;
    Ok(())
}
