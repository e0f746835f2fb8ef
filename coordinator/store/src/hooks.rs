//! Deliveries of webhooks: written with what they tell of, kept until they are done and for a while after.

use super::{
    Millis, Store, StoreError,
    columns::{integer, natural},
    sql::{Connection, Row, query},
};

type Found<T> = Result<T, StoreError>;

/// Something that is told to somebody over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Made of what it tells: the same thing twice is one delivery.
    pub id: String,
    /// Where to.
    pub url: String,
    /// Which event.
    pub event: String,
    /// Run id.
    pub run: String,
    /// JSON.
    pub body: String,
    /// When it happened.
    pub made_at: Millis,
    /// Not before.
    pub due: Millis,
    /// Tries so far.
    pub tries: u32,
    /// How far it came.
    pub state: DeliveryState,
    /// What the last try brought, for people.
    pub answer: String,
}

/// How far a delivery came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It is tried, again where need be.
    Pending,
    /// It was taken.
    Delivered,
    /// It is tried no more.
    GivenUp,
}

impl DeliveryState {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Pending, "pending"), (Self::Delivered, "delivered"), (Self::GivenUp, "given_up")];

    /// In one word.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }
}

/// A change of deliveries.
#[derive(Debug, Clone)]
pub enum Hook {
    /// A new one; one that is known already stays as it is.
    Tell(Delivery),
    /// One was tried: when next, how often so far, how far it came, and what it brought.
    Tried(Delivery),
    /// Those that are done and older than this are forgotten.
    Forget(Millis),
}

impl Store {
    /// The pending delivery to a place that is due first.
    pub async fn next_delivery(&self, url: &str) -> Found<Option<Delivery>> {
        let text = "SELECT id, url, event, run, body, made_at, due, tries, state, answer FROM hooks
                    WHERE url = $1 AND state = 'pending' ORDER BY due, made_at, id LIMIT 1";
        let found = query(text).bind(url).fetch_optional(&self.readers).await?;
        found.as_ref().map(delivery).transpose()
    }

    /// Deliveries, the newest first.
    pub async fn deliveries(&self, limit: u32) -> Found<Vec<Delivery>> {
        let text = "SELECT id, url, event, run, body, made_at, due, tries, state, answer FROM hooks
                    ORDER BY made_at DESC, id LIMIT $1";
        let found = query(text).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        found.iter().map(delivery).collect()
    }

    /// Places that pending deliveries go to.
    pub async fn delivery_places(&self) -> Found<Vec<String>> {
        let found = query("SELECT DISTINCT url FROM hooks WHERE state = 'pending'").fetch_all(&self.readers).await?;
        found.iter().map(|row| row.get(0)).collect()
    }
}

pub(super) async fn apply(connection: &mut Connection, change: &Hook) -> Result<(), StoreError> {
    let statement = match change {
        Hook::Tell(one) => query(
            "INSERT INTO hooks (id, url, event, run, body, made_at, due, tries, state, answer)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO NOTHING",
        )
        .bind(&one.id)
        .bind(&one.url)
        .bind(&one.event)
        .bind(&one.run)
        .bind(&one.body)
        .bind(integer(one.made_at))
        .bind(integer(one.due))
        .bind(i64::from(one.tries))
        .bind(one.state.as_str())
        .bind(&one.answer),
        Hook::Tried(one) => query("UPDATE hooks SET due = $2, tries = $3, state = $4, answer = $5 WHERE id = $1")
            .bind(&one.id)
            .bind(integer(one.due))
            .bind(i64::from(one.tries))
            .bind(one.state.as_str())
            .bind(&one.answer),
        Hook::Forget(before) => {
            query("DELETE FROM hooks WHERE made_at < $1 AND state <> 'pending'").bind(integer(*before))
        }
    };
    statement.execute(connection).await?;
    Ok(())
}

fn delivery(row: &Row) -> Found<Delivery> {
    let word: String = row.get(8)?;
    let state = DeliveryState::ALL.iter().find(|(_, known)| *known == word).map(|(state, _)| *state);
    Ok(Delivery {
        id: row.get(0)?,
        url: row.get(1)?,
        event: row.get(2)?,
        run: row.get(3)?,
        body: row.get(4)?,
        made_at: natural(row, 5)?,
        due: natural(row, 6)?,
        tries: u32::try_from(natural(row, 7)?).unwrap_or(u32::MAX),
        state: state
            .ok_or_else(|| StoreError::Database(format!("a stored delivery has the unknown state `{word}`")))?,
        answer: row.get(9)?,
    })
}
