//! Workflow definitions: every version that came from somebody whose word counted, and whose word counts now.

use super::{
    Millis, Store, StoreError,
    columns::integer,
    sql::{Connection, Row, query, query_scalar},
};

type Found<T> = Result<T, StoreError>;

/// Versions that are kept: of one author and path, and of one author and repository. Nobody can push out another's.
const VERSIONS: i64 = 20;
const OF_AUTHOR: i64 = 500;
/// Rows of one answer.
const ROWS: i64 = 25_000;

/// A version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionRow {
    /// Id of its event, 64 hex.
    pub event: String,
    /// Address of the repository.
    pub repository: String,
    /// Path that it stands for.
    pub path: String,
    /// 64 hex.
    pub author: String,
    /// Seconds, as its author dated it.
    pub made_at: u64,
    /// Of the text, hex.
    pub sha256: String,
    /// Bytes of the text.
    pub size: u64,
    /// It takes away what stood there.
    pub withdrawn: bool,
    /// The event as JSON; empty in lists.
    pub signed: String,
    /// When it was seen first.
    pub seen_at: Millis,
}

/// What a look at a repository's definitions found.
#[derive(Debug, Clone)]
pub struct DefinitionScan {
    /// Address of the repository.
    pub repository: String,
    /// Whose definitions count from now on, 64 hex.
    pub maintainers: Vec<String>,
    /// Definitions by them.
    pub found: Vec<DefinitionRow>,
    /// When.
    pub at: Millis,
}

/// Whose definitions count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maintainers {
    /// 64 hex.
    pub keys: Vec<String>,
    /// As known then.
    pub looked_at: Millis,
}

impl Store {
    /// Whose definitions of a repository count, as was found last; `None`: it was never looked at.
    pub async fn maintainers(&self, repository: &str) -> Found<Option<Maintainers>> {
        let statement = query("SELECT keys, looked_at FROM maintainers WHERE repository = $1");
        let Some(row) = statement.bind(repository).fetch_optional(&self.readers).await? else { return Ok(None) };
        let keys = serde_json::from_str(&row.get::<String>(0)?)?;
        Ok(Some(Maintainers { keys, looked_at: row.get::<i64>(1)?.unsigned_abs() }))
    }

    /// All versions of a repository's definitions, or of one path of it, without their texts, whoever made them.
    pub async fn definitions(&self, repository: &str, path: Option<&str>) -> Found<Vec<DefinitionRow>> {
        let statement = query(
            "SELECT event, repository, path, author, made_at, sha256, size, withdrawn, '', seen_at FROM definitions
             WHERE repository = $1 AND ($2 = '' OR path = $2) ORDER BY path, made_at DESC, event LIMIT $3",
        );
        let statement = statement.bind(repository).bind(path.unwrap_or_default()).bind(ROWS);
        statement.fetch_all(&self.readers).await?.iter().map(definition).collect()
    }

    /// One version by its event's id, whoever made it.
    pub async fn definition(&self, event: &str) -> Found<Option<DefinitionRow>> {
        let statement = query(
            "SELECT event, repository, path, author, made_at, sha256, size, withdrawn, signed, seen_at FROM definitions
             WHERE event = $1",
        );
        statement.bind(event).fetch_optional(&self.readers).await?.as_ref().map(definition).transpose()
    }

    /// Whether a repository had a run, or a definition that was taken in.
    pub async fn knows_repository(&self, repository: &str) -> Found<bool> {
        let found: i64 = query_scalar(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM runs WHERE repository = $1 LIMIT 1) AS r)
                  + (SELECT count(*) FROM maintainers WHERE repository = $1)",
        )
        .bind(repository)
        .fetch_one(&self.readers)
        .await?;
        Ok(found > 0)
    }
}

pub(super) async fn apply(connection: &mut Connection, looked: &DefinitionScan) -> Result<(), StoreError> {
    query(
        "INSERT INTO maintainers (repository, keys, looked_at) VALUES ($1, $2, $3)
         ON CONFLICT (repository) DO UPDATE SET keys = excluded.keys, looked_at = excluded.looked_at
         WHERE maintainers.looked_at <= excluded.looked_at",
    )
    .bind(&looked.repository)
    .bind(serde_json::to_string(&looked.maintainers)?)
    .bind(integer(looked.at))
    .execute(&mut *connection)
    .await?;
    for row in &looked.found {
        let statement = query(
            "INSERT INTO definitions
                 (event, repository, path, author, made_at, sha256, size, withdrawn, signed, seen_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (event) DO NOTHING",
        )
        .bind(&row.event)
        .bind(&row.repository)
        .bind(&row.path)
        .bind(&row.author)
        .bind(integer(row.made_at))
        .bind(&row.sha256)
        .bind(integer(row.size))
        .bind(i64::from(row.withdrawn))
        .bind(&row.signed)
        .bind(integer(row.seen_at));
        if statement.execute(&mut *connection).await? > 0 {
            prune(connection, row).await?;
        }
    }
    Ok(())
}

async fn prune(connection: &mut Connection, row: &DefinitionRow) -> Result<(), StoreError> {
    for (path, keep) in [(row.path.as_str(), VERSIONS), ("", OF_AUTHOR)] {
        query(
            "DELETE FROM definitions WHERE repository = $1 AND author = $2 AND ($3 = '' OR path = $3) AND event NOT IN
                 (SELECT event FROM definitions WHERE repository = $1 AND author = $2 AND ($3 = '' OR path = $3)
                  ORDER BY made_at DESC, event LIMIT $4)",
        )
        .bind(&row.repository)
        .bind(&row.author)
        .bind(path)
        .bind(keep)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

fn definition(row: &Row) -> Found<DefinitionRow> {
    let natural = |column: usize| Ok::<_, StoreError>(row.get::<i64>(column)?.unsigned_abs());
    Ok(DefinitionRow {
        event: row.get(0)?,
        repository: row.get(1)?,
        path: row.get(2)?,
        author: row.get(3)?,
        made_at: natural(4)?,
        sha256: row.get(5)?,
        size: natural(6)?,
        withdrawn: natural(7)? > 0,
        signed: row.get(8)?,
        seen_at: natural(9)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Change;

    fn version(author: &str, path: &str, at: u64) -> DefinitionRow {
        DefinitionRow {
            event: format!("{author} {path} {at}"),
            repository: "30617:o:r".into(),
            path: path.into(),
            author: author.into(),
            made_at: at,
            sha256: String::new(),
            size: 1,
            withdrawn: false,
            signed: "{}".into(),
            seen_at: 1,
        }
    }

    async fn look(store: &Store, maintainers: &[&str], found: Vec<DefinitionRow>, at: Millis) {
        let maintainers = maintainers.iter().map(ToString::to_string).collect();
        let looked = DefinitionScan { repository: "30617:o:r".into(), maintainers, found, at };
        store.commit(vec![Change::DefinitionScan(looked)]).await.unwrap();
    }

    crate::testing::on_each_engine! {
        versions_are_kept_each_once_and_nobody_pushes_out_anothers,
    }

    async fn versions_are_kept_each_once_and_nobody_pushes_out_anothers(store: &Store) {
        assert!(!store.knows_repository("30617:o:r").await.unwrap());
        look(store, &["owner", "other"], vec![version("owner", "a.yml", 1), version("owner", "b.yml", 2)], 5).await;
        let flood: Vec<_> = (10..60).map(|at| version("other", "a.yml", at)).collect();
        look(store, &["owner", "other"], flood.clone(), 6).await;
        look(store, &["owner"], flood, 7).await;
        let of_a = store.definitions("30617:o:r", Some("a.yml")).await.unwrap();
        assert_eq!(of_a.len(), 21);
        assert_eq!((of_a[0].made_at, of_a[20].author.as_str()), (59, "owner"));
        assert_eq!(store.definitions("30617:o:r", None).await.unwrap().len(), 22);
        assert!(store.definitions("30617:o:r", None).await.unwrap().iter().all(|row| row.signed.is_empty()));
        assert_eq!(store.definition("owner a.yml 1").await.unwrap().unwrap().signed, "{}");

        // A look that began earlier says nothing of who counts now.
        look(store, &["owner", "other"], Vec::new(), 6).await;
        let known = store.maintainers("30617:o:r").await.unwrap().unwrap();
        assert_eq!((known.keys, known.looked_at), (vec!["owner".to_owned()], 7));
        assert!(store.knows_repository("30617:o:r").await.unwrap());
    }
}
