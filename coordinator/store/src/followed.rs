//! Repositories whose events start workflows, and what was known of each when it was last looked at.

use super::{
    Change, Millis, Store, StoreError,
    columns::{fenced, integer, natural},
    sql::{Connection, Row, query},
};

type Found<T> = Result<T, StoreError>;

/// Who added a repository that the configuration names.
pub const CONFIGURATION: &str = "configuration";

/// A repository that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedRepository {
    /// `30617:<owner>:<d>`.
    pub address: String,
    /// Who wanted it: a key (64 hex), or [`CONFIGURATION`].
    pub added_by: String,
    /// When.
    pub added_at: Millis,
    /// Whose word counts, 64 hex, as looked up last; empty before the first look.
    pub maintainers: Vec<String>,
    /// Where it is published, likewise.
    pub relays: Vec<String>,
    /// Id of the state event that was taken over last; empty before.
    pub state_event: String,
    /// Ids of the events that the last look found.
    pub events: Vec<String>,
}

/// A change of what is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowChange {
    /// One more; nothing where it is followed already.
    Add {
        /// Its address.
        address: String,
        /// As [`FollowedRepository::added_by`].
        by: String,
        /// When.
        at: Millis,
    },
    /// It is followed no more.
    Remove {
        /// Its address.
        address: String,
    },
    /// What a look found.
    Looked(RepositoryScan),
}

/// What a look at a followed repository found. Where another state than `known` is stored, it fails its batch with
/// [`StoreError::Stale`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryScan {
    /// Its address.
    pub address: String,
    /// Id of the state event that was known; empty: none.
    pub known: String,
    /// Id of the one that is known now.
    pub state_event: String,
    /// What it says, as its reader writes it.
    pub state: String,
    /// Whose word counts for it, 64 hex.
    pub maintainers: Vec<String>,
    /// Where it is published.
    pub relays: Vec<String>,
    /// Ids of the events that were found.
    pub events: Vec<String>,
    /// Whether `maintainers` or `relays` are others than before: then it is to be listened for elsewhere.
    pub moved: bool,
}

impl From<FollowChange> for Change {
    fn from(change: FollowChange) -> Self {
        Self::Follow(change)
    }
}

/// Columns of [`FollowedRepository`].
const COLUMNS: &str = "address, added_by, added_at, maintainers, relays, state_event, events";

impl Store {
    /// Everything that is followed, by address.
    pub async fn followed_repositories(&self) -> Found<Vec<FollowedRepository>> {
        let text = format!("SELECT {COLUMNS} FROM followed_repositories ORDER BY address");
        query(text).fetch_all(&self.readers).await?.iter().map(followed).collect()
    }

    /// One of them, with its state as it was written last; `None`: it is not followed.
    pub async fn followed_repository(&self, address: &str) -> Found<Option<(FollowedRepository, String)>> {
        let text = format!("SELECT {COLUMNS}, state FROM followed_repositories WHERE address = $1");
        let Some(row) = query(text).bind(address).fetch_optional(&self.readers).await? else { return Ok(None) };
        Ok(Some((followed(&row)?, row.get(7)?)))
    }
}

pub(super) async fn apply(connection: &mut Connection, change: &FollowChange) -> Result<(), StoreError> {
    match change {
        FollowChange::Add { address, by, at } => {
            let statement = query(
                "INSERT INTO followed_repositories
                     (address, added_by, added_at, maintainers, relays, state_event, state, events)
                 VALUES ($1, $2, $3, '[]', '[]', '', '', '[]') ON CONFLICT (address) DO NOTHING",
            );
            statement.bind(address).bind(by).bind(integer(*at)).execute(connection).await?;
        }
        FollowChange::Remove { address } => {
            query("DELETE FROM followed_repositories WHERE address = $1").bind(address).execute(connection).await?;
        }
        FollowChange::Looked(scan) => {
            let statement = query(
                "UPDATE followed_repositories SET state_event = $3, state = $4, maintainers = $5, relays = $6, events = $7
                 WHERE address = $1 AND state_event = $2",
            )
            .bind(&scan.address)
            .bind(&scan.known)
            .bind(&scan.state_event)
            .bind(&scan.state)
            .bind(serde_json::to_string(&scan.maintainers)?)
            .bind(serde_json::to_string(&scan.relays)?)
            .bind(serde_json::to_string(&scan.events)?);
            fenced(statement.execute(connection).await?, "followed repository", &scan.address)?;
        }
    }
    Ok(())
}

fn followed(row: &Row) -> Found<FollowedRepository> {
    Ok(FollowedRepository {
        address: row.get(0)?,
        added_by: row.get(1)?,
        added_at: natural(row, 2)?,
        maintainers: serde_json::from_str(&row.get::<String>(3)?)?,
        relays: serde_json::from_str(&row.get::<String>(4)?)?,
        state_event: row.get(5)?,
        events: serde_json::from_str(&row.get::<String>(6)?)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    crate::testing::on_each_engine! {
        a_followed_repository_keeps_its_state_and_a_stale_write_is_refused,
    }

    fn look(known: &str, event: &str) -> Change {
        let scan = RepositoryScan {
            address: "30617:o:r".into(),
            known: known.into(),
            state_event: event.into(),
            state: "{}".into(),
            maintainers: vec!["o".into()],
            relays: vec!["wss://relay.example".into()],
            events: vec![event.into()],
            moved: false,
        };
        FollowChange::Looked(scan).into()
    }

    async fn a_followed_repository_keeps_its_state_and_a_stale_write_is_refused(store: &Store) {
        let address = "30617:o:r".to_owned();
        let add = |by: &str| FollowChange::Add { address: address.clone(), by: by.into(), at: 5 }.into();
        store.commit(vec![add(CONFIGURATION)]).await.unwrap();
        assert_eq!(store.followed_repositories().await.unwrap()[0].maintainers, Vec::<String>::new());
        store.commit(vec![look("", "1")]).await.unwrap();
        store.commit(vec![add("k")]).await.unwrap();
        let (found, state) = store.followed_repository(&address).await.unwrap().unwrap();
        assert_eq!((found.added_by.as_str(), found.state_event.as_str(), state.as_str()), (CONFIGURATION, "1", "{}"));
        assert_eq!((found.maintainers.len(), found.relays.len(), &found.events), (1, 1, &vec!["1".to_owned()]));
        assert_eq!(store.followed_repositories().await.unwrap(), [found]);

        assert!(matches!(store.commit(vec![look("", "2")]).await, Err(StoreError::Stale(_))));
        store.commit(vec![look("1", "2")]).await.unwrap();
        store.commit(vec![FollowChange::Remove { address: address.clone() }.into()]).await.unwrap();
        assert!(store.followed_repository(&address).await.unwrap().is_none());
        assert!(matches!(store.commit(vec![look("2", "3")]).await, Err(StoreError::Stale(_))));
    }
}
