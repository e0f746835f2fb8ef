//! Deliveries of webhooks: a record of each for the operator, beside the row of work that sends it.

use strum::{EnumString, IntoStaticStr};

use domain::id::RunId;

use super::{
    Change, Millis, NewWork, Store, StoreError, WorkChange, WorkKind,
    columns::{integer, natural},
    sql::{Connection, Row, query},
    work,
};

/// Something to tell over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWebhookDelivery {
    /// Made of what it tells: the same thing twice is one delivery. Its row of work has the same id.
    pub id: String,
    /// Where to.
    pub url: String,
    /// Which event.
    pub event: String,
    /// Run id.
    pub run: RunId,
    /// JSON; the payload of its row of work.
    pub body: String,
    /// When it happened.
    pub made_at: Millis,
}

/// What became of a delivery so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDelivery {
    /// As in [`NewWebhookDelivery`].
    pub id: String,
    /// As in [`NewWebhookDelivery`].
    pub url: String,
    /// As in [`NewWebhookDelivery`].
    pub event: String,
    /// As in [`NewWebhookDelivery`].
    pub run: RunId,
    /// As in [`NewWebhookDelivery`].
    pub made_at: Millis,
    /// Tries, one that is under way included.
    pub tries: u32,
    /// How far it came.
    pub state: DeliveryState,
    /// What the last try brought, for people.
    pub answer: String,
    /// When it is tried next; `None`: it is tried no more.
    pub due: Option<Millis>,
}

/// How far a delivery came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryState {
    /// It is tried, again where need be.
    Pending,
    /// It was taken.
    Delivered,
    /// It is tried no more.
    GivenUp,
}

impl DeliveryState {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A change of deliveries.
#[derive(Debug, Clone)]
pub enum WebhookDeliveryChange {
    /// A new one, with the work of sending it; one that is known already stays as it is.
    Add(NewWebhookDelivery),
    /// One is tried no more. Its row of work is the caller's to complete.
    End {
        /// Its id.
        id: String,
        /// How it ended.
        state: DeliveryState,
        /// How often it was tried.
        tries: u32,
        /// What the last try brought, for people.
        answer: String,
    },
}

impl From<WebhookDeliveryChange> for Change {
    fn from(change: WebhookDeliveryChange) -> Self {
        Self::WebhookDelivery(change)
    }
}

impl Store {
    /// Deliveries of webhooks, the newest first.
    pub async fn webhook_deliveries(&self, limit: u32) -> Result<Vec<WebhookDelivery>, StoreError> {
        let text = "SELECT d.id, d.url, d.event, d.run, d.made_at, coalesce(w.tries, d.tries), d.state,
                        coalesce(w.failure, d.answer), w.due
                    FROM webhook_deliveries d LEFT JOIN work w ON w.id = d.id ORDER BY d.made_at DESC, d.id LIMIT $1";
        query(text).bind(limit).fetch_all(&self.readers).await?.iter().map(delivery).collect()
    }
}

pub(super) async fn apply(connection: &mut Connection, change: &WebhookDeliveryChange) -> Result<(), StoreError> {
    match change {
        WebhookDeliveryChange::Add(new) => {
            let statement = query(
                "INSERT INTO webhook_deliveries (id, url, event, run, made_at, tries, state, answer)
                 VALUES ($1, $2, $3, $4, $5, 0, $6, '') ON CONFLICT (id) DO NOTHING",
            )
            .bind(&new.id)
            .bind(&new.url)
            .bind(&new.event)
            .bind(&new.run)
            .bind(integer(new.made_at))
            .bind(DeliveryState::Pending.as_str());
            if statement.execute(&mut *connection).await? == 0 {
                return Ok(());
            }
            let sending = NewWork {
                lane: new.url.clone(),
                payload: new.body.clone(),
                ..NewWork::new(&new.id, WorkKind::Webhook, Some(&new.run), new.made_at)
            };
            work::apply(connection, &WorkChange::Add(sending)).await
        }
        WebhookDeliveryChange::End { id, state, tries, answer } => {
            let statement =
                query("UPDATE webhook_deliveries SET state = $2, tries = $3, answer = $4 WHERE id = $1").bind(id);
            let statement = statement.bind(state.as_str()).bind(*tries).bind(answer);
            statement.execute(connection).await.map(drop)
        }
    }
}

fn delivery(row: &Row) -> Result<WebhookDelivery, StoreError> {
    let state: String = row.get(6)?;
    Ok(WebhookDelivery {
        id: row.get(0)?,
        url: row.get(1)?,
        event: row.get(2)?,
        run: row.get(3)?,
        made_at: natural(row, 4)?,
        tries: row.get(5)?,
        state: state
            .parse()
            .map_err(|_| StoreError::Database(format!("a stored delivery has the unknown state `{state}`")))?,
        answer: row.get(7)?,
        due: row.get(8)?,
    })
}
