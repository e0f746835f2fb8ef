//! Which store key a database is sealed under, and sealing it under another.

use std::sync::Arc;

use domain::id::RunId;

use super::{
    Store, StoreError,
    seal::{self, SealOwner, StoreKey},
    sql::{Connection, Readers, query, query_scalar},
};

/// Why a store key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreKeyError {
    /// The database is sealed under another one.
    #[error(
        "the database is sealed under another store key than the one in store_key_file: where `longshore store rekey` \
         changed it, name the file with the new key; where it was cut off, run it again"
    )]
    Other,
    /// Something could not be opened or sealed.
    #[error(transparent)]
    Seal(#[from] seal::SealError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Checks that the database is sealed under this key. One that was never asked before is, from now on.
    ///
    /// # Errors
    /// It is sealed under another; the store can't be read or written.
    pub async fn check_store_key(&self, key: &StoreKey) -> Result<(), StoreKeyError> {
        match self.store_key_mark().await? {
            Some(mark) if mark == key.mark() => Ok(()),
            Some(_) => Err(StoreKeyError::Other),
            None => {
                // An earlier version wrote no mark: what it sealed says which key it had.
                let sealed = query("SELECT run, wrapped FROM run_keys ORDER BY run DESC LIMIT 1");
                if let Some(row) = sealed.fetch_optional(&self.readers).await? {
                    let (run, wrapped): (RunId, Vec<u8>) = (row.get(0)?, row.get(1)?);
                    seal::open(key, &SealOwner::from(&run), &[], &wrapped).map_err(|_| StoreKeyError::Other)?;
                }
                let mark = key.mark();
                self.transaction(&[], |connection| Box::pin(async move { write_mark(connection, &mark).await }))
                    .await?;
                // Where two coordinators began at the same time, the other one's may count.
                match self.store_key_mark().await?.as_deref() == Some(key.mark().as_str()) {
                    true => Ok(()),
                    false => Err(StoreKeyError::Other),
                }
            }
        }
    }

    /// What the key is known by that the database is sealed under; `None`: nobody asked yet.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn store_key_mark(&self) -> Result<Option<String>, StoreError> {
        query_scalar("SELECT mark FROM store_keys WHERE id = 1").fetch_optional(&self.readers).await
    }

    /// Wraps every data key by the new store key instead of the old one, in one transaction; returns their number. The
    /// sealed values stay as they are. No coordinator may use the database meanwhile.
    ///
    /// # Errors
    /// Nothing is changed then: the database is sealed under another key, a data key can't be opened, or the store can't
    /// be read or written.
    pub async fn rekey(&self, old: Arc<StoreKey>, new: Arc<StoreKey>) -> Result<usize, StoreKeyError> {
        self.check_store_key(&old).await?;
        self.transaction(&[], |connection| Box::pin(async move { rewrap_all(connection, &old, &new).await })).await?
    }

    /// Connections that coordinators have to the same PostgreSQL database; this store's own count where it was opened
    /// with [`Self::connect`]. 0 for SQLite, whose file belongs to one process.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn coordinator_connections(&self) -> Result<u64, StoreError> {
        match &self.readers {
            Readers::Postgres(_) => {
                let statement = query_scalar(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                     AND application_name = 'longshore'",
                );
                statement.fetch_one(&self.readers).await
            }
            Readers::Sqlite(_) | Readers::Inline(_) => Ok(0),
        }
    }
}

async fn write_mark(connection: &mut Connection, mark: &str) -> Result<(), StoreError> {
    let statement = query("INSERT INTO store_keys (id, mark) VALUES (1, $1) ON CONFLICT (id) DO NOTHING");
    statement.bind(mark).execute(connection).await.map(drop)
}

/// The inner error leaves nothing written: what is written is written after the last key was wrapped.
async fn rewrap_all(
    connection: &mut Connection,
    old: &StoreKey,
    new: &StoreKey,
) -> Result<Result<usize, StoreKeyError>, StoreError> {
    let mut runs: Vec<(String, Vec<u8>)> = Vec::new();
    for row in query("SELECT run, wrapped FROM run_keys").fetch_all(&mut *connection).await? {
        let (run, wrapped): (RunId, Vec<u8>) = (row.get(0)?, row.get(1)?);
        match seal::rewrap(old, new, &SealOwner::from(&run), &wrapped) {
            Ok(wrapped) => runs.push((run.to_string(), wrapped)),
            Err(error) => return Ok(Err(error.into())),
        }
    }
    let mut values: Vec<([String; 3], Vec<u8>)> = Vec::new();
    let sealed =
        query("SELECT repository, environment, name, wrapped FROM repository_values WHERE wrapped IS NOT NULL");
    for row in sealed.fetch_all(&mut *connection).await? {
        let of: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
        let owner = SealOwner::repository(&of[0], &of[1]);
        match seal::rewrap(old, new, &owner, &row.get::<Vec<u8>>(3)?) {
            Ok(wrapped) => values.push((of, wrapped)),
            Err(error) => return Ok(Err(error.into())),
        }
    }
    let wrapped = runs.len() + values.len();
    for (run, wrapped) in runs {
        let statement = query("UPDATE run_keys SET wrapped = $2 WHERE run = $1").bind(run).bind(wrapped);
        statement.execute(&mut *connection).await?;
    }
    for ([repository, environment, name], wrapped) in values {
        let statement = query(
            "UPDATE repository_values SET wrapped = $4
             WHERE repository = $1 AND environment = $2 AND name = $3 AND kind = 'secret'",
        );
        let statement = statement.bind(repository).bind(environment).bind(name).bind(wrapped);
        statement.execute(&mut *connection).await?;
    }
    query("UPDATE store_keys SET mark = $1 WHERE id = 1").bind(new.mark()).execute(connection).await?;
    Ok(Ok(wrapped))
}
