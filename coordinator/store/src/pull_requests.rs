//! Pull requests of followed repositories: the number that each has, and what was known of it last.

use super::{
    Change, Millis, Store, StoreError,
    columns::{fenced, integer, natural},
    counters,
    sql::{Connection, Row, query},
};

type Found<T> = Result<T, StoreError>;

/// A pull request as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPullRequest {
    /// Its number in its repository, from 1.
    pub number: u64,
    /// Grows by one with each change.
    pub version: u64,
    /// What was known last, as its reader writes it.
    pub state: String,
}

/// What is known of a pull request now. A new one gets the next number of its repository. Where another version than `known`
/// is stored, it fails its batch with [`StoreError::Stale`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequestChange {
    /// `30617:<owner>:<d>`.
    pub repository: String,
    /// Id of its event, 64 hex.
    pub root: String,
    /// The version that was known; 0: it is new.
    pub known: u64,
    /// As in [`StoredPullRequest`].
    pub state: String,
    /// Ids of the events that it was read from.
    pub events: Vec<String>,
    /// When.
    pub at: Millis,
}

impl From<PullRequestChange> for Change {
    fn from(change: PullRequestChange) -> Self {
        Self::PullRequest(change)
    }
}

impl Store {
    /// A pull request of a repository; `None`: it is not known.
    pub async fn pull_request(&self, repository: &str, root: &str) -> Found<Option<StoredPullRequest>> {
        let found = query("SELECT number, version, state FROM pull_requests WHERE repository = $1 AND root = $2");
        found.bind(repository).bind(root).fetch_optional(&self.readers).await?.as_ref().map(stored).transpose()
    }

    /// Ids of the events that pull requests were read from which changed since, at most so many of the newest; each with the
    /// address of the repository.
    pub async fn pull_request_events(&self, since: Millis, limit: u32) -> Found<Vec<(String, String)>> {
        let statement = query(
            "SELECT repository, events FROM pull_requests WHERE changed_at >= $1 ORDER BY changed_at DESC LIMIT $2",
        );
        let rows = statement.bind(integer(since)).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        let mut found = Vec::new();
        for row in &rows {
            let (repository, events): (String, String) = (row.get(0)?, row.get(1)?);
            let events: Vec<String> = serde_json::from_str(&events)?;
            found.extend(events.into_iter().map(|event| (repository.clone(), event)));
        }
        Ok(found)
    }
}

pub(super) async fn apply(connection: &mut Connection, change: &PullRequestChange) -> Result<(), StoreError> {
    let events = serde_json::to_string(&change.events)?;
    let rows = if change.known == 0 {
        let number = counters::next(connection, &format!("pull requests of {}", change.repository)).await?;
        let statement = query(
            "INSERT INTO pull_requests (repository, root, number, version, state, events, changed_at)
             VALUES ($1, $2, $3, 1, $4, $5, $6) ON CONFLICT (repository, root) DO NOTHING",
        )
        .bind(&change.repository)
        .bind(&change.root)
        .bind(integer(number))
        .bind(&change.state)
        .bind(&events)
        .bind(integer(change.at));
        statement.execute(connection).await?
    } else {
        let statement = query(
            "UPDATE pull_requests SET version = version + 1, state = $4, events = $5, changed_at = $6
             WHERE repository = $1 AND root = $2 AND version = $3",
        )
        .bind(&change.repository)
        .bind(&change.root)
        .bind(integer(change.known))
        .bind(&change.state)
        .bind(&events)
        .bind(integer(change.at));
        statement.execute(connection).await?
    };
    fenced(rows, "pull request", &change.root)
}

fn stored(row: &Row) -> Found<StoredPullRequest> {
    Ok(StoredPullRequest { number: natural(row, 0)?, version: natural(row, 1)?, state: row.get(2)? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    crate::testing::on_each_engine! {
        a_pull_request_keeps_its_number_and_a_stale_write_is_refused,
    }

    fn change(repository: &str, root: &str, known: u64, at: Millis) -> Change {
        let events = vec![root.to_owned(), format!("{root}{at}")];
        let state = format!("{{\"at\":{at}}}");
        PullRequestChange { repository: repository.into(), root: root.into(), known, state, events, at }.into()
    }

    async fn a_pull_request_keeps_its_number_and_a_stale_write_is_refused(store: &Store) {
        assert_eq!(store.pull_request("r", "a").await.unwrap(), None);
        store.commit(vec![change("r", "a", 0, 5), change("s", "b", 0, 6)]).await.unwrap();
        assert!(matches!(store.commit(vec![change("r", "a", 0, 7)]).await, Err(StoreError::Stale(_))));
        store.commit(vec![change("r", "c", 0, 8)]).await.unwrap();
        let number = async |repository: &str, root: &str| {
            store.pull_request(repository, root).await.unwrap().map(|found| (found.number, found.version))
        };
        assert_eq!(number("r", "a").await, Some((1, 1)));
        assert_eq!(number("s", "b").await, Some((1, 1)), "each repository counts for itself");
        assert_eq!(number("r", "c").await, Some((2, 1)), "a refused write takes no number");
        store.commit(vec![change("r", "a", 1, 9)]).await.unwrap();
        assert_eq!(number("r", "a").await, Some((1, 2)));
        assert!(matches!(store.commit(vec![change("r", "a", 1, 10)]).await, Err(StoreError::Stale(_))));
        assert_eq!(store.pull_request("r", "a").await.unwrap().unwrap().state, "{\"at\":9}");
        let events = store.pull_request_events(8, 1).await.unwrap();
        assert_eq!(events, [("r".to_owned(), "a".to_owned()), ("r".into(), "a9".into())]);
        assert_eq!(store.pull_request_events(8, 9).await.unwrap().len(), 4);
    }
}
