//! Repositories that are served: who asked for it, and what was said of it last.

use super::{
    Change, Store, StoreError,
    columns::integer,
    sql::{Connection, Row, query},
};

type Found<T> = Result<T, StoreError>;

/// Authors whose wishes for one repository are kept.
const AUTHORS: i64 = 200;

/// A wish that a repository be served, or no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceWish {
    /// Address of the repository.
    pub repository: String,
    /// 64 hex.
    pub author: String,
    /// Whether it is to be served; else no more.
    pub starts: bool,
    /// Id of the event, 64 hex.
    pub event: String,
    /// Seconds, as its author dated it.
    pub made_at: u64,
    /// A relay that had it.
    pub relay: String,
}

/// A repository that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedRepository {
    /// Its address.
    pub repository: String,
    /// Id of the event that says so last, 64 hex.
    pub status: String,
    /// When that was made (s).
    pub stamp: u64,
    /// The event by which it is served; empty: the operator named it.
    pub request: String,
}

/// A change of what is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceChange {
    /// Somebody wishes something. Of one author and kind the newest is kept; of two at one second that with the lower id.
    Wish(ServiceWish),
    /// It is served, and that was said.
    Serve(ServedRepository),
    /// It is served no more.
    End {
        /// Its address.
        repository: String,
    },
}

impl From<ServiceChange> for Change {
    fn from(change: ServiceChange) -> Self {
        Self::Service(change)
    }
}

impl Store {
    /// Wishes for a repository, the newest first.
    pub async fn service_wishes(&self, repository: &str) -> Found<Vec<ServiceWish>> {
        let statement = query(
            "SELECT repository, author, starts, event, made_at, relay FROM service_controls WHERE repository = $1
             ORDER BY made_at DESC, event",
        );
        let found = statement.bind(repository).fetch_all(&self.readers).await?;
        found.iter().map(wish).collect()
    }

    /// Repositories besides this one for which somebody wished something: of its owner, and in all.
    pub async fn wished_repositories(&self, repository: &str) -> Found<(u64, u64)> {
        let owner = repository.rsplit_once(':').map_or(repository, |(owner, _)| owner);
        // A range of the key: `:` is followed by `;` in the order of bytes.
        let statement = query(
            "SELECT count(DISTINCT CASE WHEN repository >= $2 AND repository < $3 THEN repository END),
                 count(DISTINCT repository) FROM service_controls WHERE repository <> $1",
        );
        let statement = statement.bind(repository).bind(format!("{owner}:")).bind(format!("{owner};"));
        let row = statement.fetch_one(&self.readers).await?;
        Ok((row.get::<i64>(0)?.unsigned_abs(), row.get::<i64>(1)?.unsigned_abs()))
    }

    /// Repositories that are served.
    pub async fn served_repositories(&self) -> Found<Vec<ServedRepository>> {
        let found = query("SELECT repository, status, stamp, request FROM served_repositories ORDER BY repository");
        found.fetch_all(&self.readers).await?.iter().map(served).collect()
    }

    /// A repository, where it is served.
    pub async fn served_repository(&self, repository: &str) -> Found<Option<ServedRepository>> {
        let found = query("SELECT repository, status, stamp, request FROM served_repositories WHERE repository = $1");
        found.bind(repository).fetch_optional(&self.readers).await?.as_ref().map(served).transpose()
    }
}

fn wish(row: &Row) -> Found<ServiceWish> {
    Ok(ServiceWish {
        repository: row.get(0)?,
        author: row.get(1)?,
        starts: row.get::<i64>(2)? != 0,
        event: row.get(3)?,
        made_at: row.get::<i64>(4)?.unsigned_abs(),
        relay: row.get(5)?,
    })
}

fn served(row: &Row) -> Found<ServedRepository> {
    Ok(ServedRepository {
        repository: row.get(0)?,
        status: row.get(1)?,
        stamp: row.get::<i64>(2)?.unsigned_abs(),
        request: row.get(3)?,
    })
}

pub(super) async fn apply(connection: &mut Connection, change: &ServiceChange) -> Result<(), StoreError> {
    match change {
        ServiceChange::Wish(wish) => {
            let statement = query(
                "INSERT INTO service_controls (repository, author, starts, event, made_at, relay)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (repository, author, starts) DO UPDATE
                 SET event = excluded.event, made_at = excluded.made_at, relay = excluded.relay
                 WHERE service_controls.made_at < excluded.made_at
                    OR (service_controls.made_at = excluded.made_at AND service_controls.event > excluded.event)",
            );
            let statement = statement.bind(&wish.repository).bind(&wish.author).bind(i64::from(wish.starts));
            let statement = statement.bind(&wish.event).bind(integer(wish.made_at)).bind(&wish.relay);
            statement.execute(&mut *connection).await?;
            // What nobody may say again is dropped: the oldest beyond so many authors.
            let statement = query(
                "DELETE FROM service_controls WHERE repository = $1 AND author NOT IN
                 (SELECT author FROM service_controls WHERE repository = $1 GROUP BY author
                  ORDER BY max(made_at) DESC LIMIT $2)",
            );
            statement.bind(&wish.repository).bind(AUTHORS).execute(connection).await?;
        }
        ServiceChange::Serve(ServedRepository { repository, status, stamp, request }) => {
            let statement = query(
                "INSERT INTO served_repositories (repository, status, stamp, request) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (repository) DO UPDATE
                 SET status = excluded.status, stamp = excluded.stamp, request = excluded.request",
            );
            let statement = statement.bind(repository).bind(status).bind(integer(*stamp)).bind(request);
            statement.execute(connection).await?;
        }
        ServiceChange::End { repository } => {
            let statement = query("DELETE FROM served_repositories WHERE repository = $1").bind(repository);
            statement.execute(connection).await?;
        }
    }
    Ok(())
}
