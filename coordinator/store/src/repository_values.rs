//! Secrets and variables that maintainers store for a repository, or for one of its environments: of each name the newest
//! order counts.

use std::collections::BTreeMap;

use domain::run::Millis;

use super::{
    Store, StoreError,
    columns::{integer, natural},
    sql::{Connection, Query, Row, query},
};

/// Bytes of one value (GitHub docs, "Secrets reference" and "Variables reference").
pub const MAX_VALUE: usize = 48 << 10;
/// Secrets, and variables, of a repository, and of each of its environments; environments that have any.
pub const MAX_VALUES: u64 = 100;
/// Bytes of the variables of a repository, and of each of its environments (GitHub docs, "Variables reference").
pub const MAX_VARIABLES: u64 = 256 << 10;
/// Bytes of all values that one person stored, and of those of all.
const MAX_OF_AUTHOR: u64 = 32 << 20;
const MAX_OF_ALL: u64 = 1 << 30;
/// Rows of a repository, those of removed names among them.
const MAX_ROWS: u64 = 50_000;
/// Bytes that a row takes beside its value.
const ROW: u64 = 256;

type Found<T> = Result<T, StoreError>;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueKind {
    /// Given to jobs, masked in their output, and shown to nobody.
    Secret,
    /// Given to jobs and shown to maintainers.
    Variable,
}

impl ValueKind {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Variable => "variable",
        }
    }
}

/// What a name stands for, and by whose order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryValue {
    /// Address of the repository.
    pub repository: String,
    /// The environment whose jobs have it, in lower case; empty: all jobs have it.
    pub environment: String,
    /// What it is.
    pub kind: ValueKind,
    /// In upper case.
    pub name: String,
    /// Unix seconds of the order, by its author's clock.
    pub ordered_at: u64,
    /// Id of the order. Of two of one second the lower id is the later one (NIP-C1).
    pub event: String,
    /// Who ordered it, 64 hex.
    pub author: String,
    /// `None`: it is removed.
    pub content: Option<ValueContent>,
}

/// A value as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueContent {
    /// Of a variable.
    Plain(String),
    /// Of a secret.
    Sealed {
        /// Sealed under a data key of its own.
        value: Vec<u8>,
        /// That key, wrapped by the store key.
        wrapped_key: Vec<u8>,
    },
}

impl ValueContent {
    fn size(&self) -> u64 {
        let bytes = match self {
            Self::Plain(text) => text.len(),
            Self::Sealed { value, .. } => value.len(),
        };
        ROW + bytes as u64
    }
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderOutcome {
    /// It counts. Whether the name stood for something before.
    Taken {
        /// It did.
        replaces: bool,
    },
    /// A newer order of this name, or this one, counts already.
    Older,
    /// There is no room; the text says of what, for people.
    Full(String),
}

/// A name in a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedValue {
    /// The environment whose jobs have it; empty: all jobs have it.
    pub environment: String,
    /// What it is.
    pub kind: ValueKind,
    /// In upper case.
    pub name: String,
    /// Unix seconds.
    pub ordered_at: u64,
    /// Who ordered it, 64 hex.
    pub author: String,
    /// Of a variable.
    pub value: Option<String>,
}

impl Store {
    /// Carries an order out where it is the newest of its name and there is room.
    ///
    /// # Errors
    /// The store can't be written.
    pub async fn order_value(&self, order: RepositoryValue) -> Found<OrderOutcome> {
        self.transaction(&[], |connection| Box::pin(async move { perform_order(connection, &order).await })).await
    }

    /// Carries several out, each as [`Store::order_value`] does: all of them, or none where the store can't be written.
    ///
    /// # Errors
    /// The store can't be written.
    pub async fn order_values(&self, orders: Vec<RepositoryValue>) -> Found<Vec<OrderOutcome>> {
        self.transaction(&[], |connection| {
            Box::pin(async move {
                let mut outcomes = Vec::with_capacity(orders.len());
                for order in &orders {
                    outcomes.push(perform_order(&mut *connection, order).await?);
                }
                Ok(outcomes)
            })
        })
        .await
    }

    /// What jobs of a repository may have: what is stored for it, and for one of its environments where one is named. In
    /// the order of environments, the repository's first.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn repository_values(
        &self,
        repository: &str,
        environment: Option<&str>,
        kinds: &[ValueKind],
    ) -> Found<Vec<RepositoryValue>> {
        let words: Vec<String> = kinds.iter().map(|kind| format!("'{}'", kind.as_str())).collect();
        let statement = query(format!(
            "SELECT environment, kind, name, ordered_at, event, author, value, wrapped FROM repository_values
             WHERE repository = $1 AND environment IN ('', $2) AND kind IN ({}) AND value IS NOT NULL
             ORDER BY environment, name",
            words.join(", ")
        ));
        let statement = statement.bind(repository).bind(environment.unwrap_or_default());
        let rows = statement.fetch_all(&self.readers).await?;
        rows.iter().map(|row| value(repository, row)).collect()
    }

    /// All names that stand for something, by environment, kind and name; variables with their values.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn list_repository_values(&self, repository: &str) -> Found<Vec<ListedValue>> {
        let statement = query(
            "SELECT environment, kind, name, ordered_at, author, CASE WHEN kind = 'variable' THEN value END
             FROM repository_values WHERE repository = $1 AND value IS NOT NULL ORDER BY environment, kind, name",
        );
        let rows = statement.bind(repository).fetch_all(&self.readers).await?;
        let listed = |row: &Row| {
            Ok(ListedValue {
                environment: row.get(0)?,
                kind: kind(row, 1)?,
                name: row.get(2)?,
                ordered_at: natural(row, 3)?,
                author: row.get(4)?,
                value: row.get::<Option<Vec<u8>>>(5)?.map(text).transpose()?,
            })
        };
        rows.iter().map(listed).collect()
    }

    /// Names of secrets with their environments, and which environments have variables (a name is empty there).
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn repository_value_names(&self, repository: &str) -> Found<Vec<(ValueKind, String, String)>> {
        let statement = query(
            "SELECT DISTINCT kind, environment, CASE WHEN kind = 'secret' THEN name ELSE '' END
             FROM repository_values WHERE repository = $1 AND value IS NOT NULL ORDER BY 1, 2, 3",
        );
        let rows = statement.bind(repository).fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok((kind(row, 0)?, row.get(1)?, row.get(2)?))).collect()
    }

    /// Addresses of repositories that have any, with those (64 hex) who set them.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn repositories_with_values(&self) -> Found<BTreeMap<String, Vec<String>>> {
        let statement = query("SELECT DISTINCT repository, author FROM repository_values ORDER BY repository, author");
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in statement.fetch_all(&self.readers).await? {
            found.entry(row.get(0)?).or_default().push(row.get(1)?);
        }
        Ok(found)
    }

    /// Notes whether the pool still runs anything for a repository. Once it has not for `grace` milliseconds all values are
    /// forgotten; returns how many there were.
    ///
    /// # Errors
    /// The store can't be written.
    pub async fn note_served(&self, repository: &str, served: bool, now: Millis, grace: Millis) -> Found<u64> {
        let repository = repository.to_owned();
        self.transaction(&[], move |connection| {
            Box::pin(async move { note_served(connection, &repository, served, now, grace).await })
        })
        .await
    }

    /// Forgets that names were removed before a moment: orders of that age are no longer taken in.
    ///
    /// # Errors
    /// The store can't be written.
    pub async fn forget_removed_values(&self, before: Millis) -> Found<u64> {
        let statement = query("DELETE FROM repository_values WHERE value IS NULL AND ordered_at < $1");
        let statement = statement.bind(before / 1000);
        self.transaction(&[], |connection| Box::pin(statement.execute(connection))).await
    }
}

async fn note_served(
    connection: &mut Connection,
    repository: &str,
    served: bool,
    now: Millis,
    grace: Millis,
) -> Found<u64> {
    if served {
        let statement = query(
            "UPDATE repository_values SET unserved_since = NULL WHERE repository = $1 AND unserved_since IS NOT NULL",
        );
        statement.bind(repository).execute(connection).await?;
        return Ok(0);
    }
    let statement =
        query("UPDATE repository_values SET unserved_since = $2 WHERE repository = $1 AND unserved_since IS NULL");
    statement.bind(repository).bind(now).execute(&mut *connection).await?;
    let statement = query(
        "DELETE FROM repository_values WHERE repository = $1
         AND NOT EXISTS (SELECT 1 FROM repository_values WHERE repository = $1 AND unserved_since > $2)",
    );
    statement.bind(repository).bind(now.saturating_sub(grace)).execute(connection).await
}

async fn perform_order(connection: &mut Connection, order: &RepositoryValue) -> Found<OrderOutcome> {
    let name = |text: String| {
        query(text).bind(&order.repository).bind(&order.environment).bind(order.kind.as_str()).bind(&order.name)
    };
    let of_name = "repository = $1 AND environment = $2 AND kind = $3 AND name = $4";
    let before = name(format!(
        "SELECT ordered_at, event, CASE WHEN value IS NULL THEN 0 ELSE 1 END FROM repository_values WHERE {of_name}"
    ));
    let before = before.fetch_optional(&mut *connection).await?;
    let mut replaces = false;
    if let Some(before) = &before {
        let (at, event): (u64, String) = (natural(before, 0)?, before.get(1)?);
        // NIP-C1: at equal times the lower id is the later order.
        if order.ordered_at < at || order.ordered_at == at && order.event >= event {
            return Ok(OrderOutcome::Older);
        }
        replaces = before.get(2)?;
    }
    let size = order.content.as_ref().map_or(ROW, ValueContent::size);
    if order.content.is_some()
        && let Some(why) = no_room(connection, order, size).await?
    {
        return Ok(OrderOutcome::Full(why));
    }
    name(format!("DELETE FROM repository_values WHERE {of_name}")).execute(&mut *connection).await?;
    let (bytes, wrapped) = match &order.content {
        None => (None, None),
        Some(ValueContent::Plain(text)) => (Some(text.as_bytes()), None),
        Some(ValueContent::Sealed { value, wrapped_key }) => (Some(value.as_slice()), Some(wrapped_key.as_slice())),
    };
    let statement = name(
        "INSERT INTO repository_values
             (repository, environment, kind, name, ordered_at, event, author, size, value, wrapped)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
            .to_owned(),
    );
    let statement = statement.bind(integer(order.ordered_at)).bind(&order.event).bind(&order.author).bind(size);
    statement.bind(bytes).bind(wrapped).execute(connection).await?;
    Ok(OrderOutcome::Taken { replaces })
}

/// What there is no room for, without what the order replaces.
async fn no_room(connection: &mut Connection, order: &RepositoryValue, size: u64) -> Found<Option<String>> {
    let (repository, environment, kind) = (&order.repository, &order.environment, order.kind.as_str());
    let of_scope = "FROM repository_values WHERE repository = $1 AND environment = $2 AND kind = $3 AND name <> $4
                    AND value IS NOT NULL";
    let in_scope = |what: &str| {
        query_of(format!("SELECT {what} {of_scope}")).bind(repository).bind(environment).bind(kind).bind(&order.name)
    };
    let place = if environment.is_empty() { "the repository" } else { "the environment" };
    if number(in_scope("count(*)"), connection).await? >= MAX_VALUES {
        return Ok(Some(format!("{place} has {MAX_VALUES} {kind}s already: remove some")));
    }
    if order.kind == ValueKind::Variable && number(in_scope(SUM), connection).await? + size > MAX_VARIABLES {
        return Ok(Some(format!("the variables of {place} take more than {} KiB together", MAX_VARIABLES >> 10)));
    }
    let others = query_of(
        "SELECT count(DISTINCT environment) FROM repository_values
         WHERE repository = $1 AND environment NOT IN ('', $2) AND value IS NOT NULL"
            .to_owned(),
    );
    if !environment.is_empty() && number(others.bind(repository).bind(environment), connection).await? >= MAX_VALUES {
        return Ok(Some(format!("{MAX_VALUES} environments of the repository have values already: remove some")));
    }
    let rows = query_of("SELECT count(*) FROM repository_values WHERE repository = $1".to_owned()).bind(repository);
    if number(rows, connection).await? >= MAX_ROWS {
        return Ok(Some("too many names of the repository were stored and removed: wait a few days".to_owned()));
    }
    let of_author = query_of(format!("SELECT {SUM} FROM repository_values WHERE author = $1")).bind(&order.author);
    if number(of_author, connection).await? + size > MAX_OF_AUTHOR {
        return Ok(Some(format!("all that this key stored here takes more than {} MiB", MAX_OF_AUTHOR >> 20)));
    }
    let of_all = query_of(format!("SELECT {SUM} FROM repository_values"));
    if number(of_all, connection).await? + size > MAX_OF_ALL {
        return Ok(Some("this pool has no room for more values: ask its operator".to_owned()));
    }
    Ok(None)
}

/// PostgreSQL sums BIGINT to NUMERIC.
const SUM: &str = "CAST(coalesce(sum(size), 0) AS BIGINT)";

fn query_of(text: String) -> Query {
    query(text)
}

async fn number(statement: Query, connection: &mut Connection) -> Found<u64> {
    natural(&statement.fetch_one(connection).await?, 0)
}

fn value(repository: &str, row: &Row) -> Found<RepositoryValue> {
    let bytes: Vec<u8> = row.get(6)?;
    let content = match row.get::<Option<Vec<u8>>>(7)? {
        Some(wrapped_key) => ValueContent::Sealed { value: bytes, wrapped_key },
        None => ValueContent::Plain(text(bytes)?),
    };
    Ok(RepositoryValue {
        repository: repository.to_owned(),
        environment: row.get(0)?,
        kind: kind(row, 1)?,
        name: row.get(2)?,
        ordered_at: natural(row, 3)?,
        event: row.get(4)?,
        author: row.get(5)?,
        content: Some(content),
    })
}

fn kind(row: &Row, column: usize) -> Found<ValueKind> {
    let word: String = row.get(column)?;
    match word.as_str() {
        "secret" => Ok(ValueKind::Secret),
        "variable" => Ok(ValueKind::Variable),
        _ => Err(StoreError::Database(format!("a stored value is of the unknown kind `{word}`"))),
    }
}

fn text(bytes: Vec<u8>) -> Found<String> {
    String::from_utf8(bytes).map_err(|_| StoreError::Database("a stored variable is no text".into()))
}
