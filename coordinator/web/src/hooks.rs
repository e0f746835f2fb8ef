//! Deliveries of webhooks, for the operator.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Refusal, Web, auth::Caller};
use domain::id::RunId;
use domain::run::Millis;
use store::{Reader, WebhookDelivery};

/// Most deliveries of an answer.
const SHOWN: u32 = 200;

/// A delivery of a webhook.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryView {
    id: String,
    url: String,
    /// `run.queued`, `run.running`, `run.completed` or `job.completed`.
    event: String,
    /// Id of the run.
    #[schema(value_type = String)]
    run: RunId,
    made_at: Millis,
    tries: u32,
    /// `pending`, `delivered` or `given_up`.
    state: &'static str,
    /// Result of the last try, for people.
    answer: String,
    /// When it is tried next; `null`: it is tried no more.
    due: Option<Millis>,
}

/// The newest deliveries of webhooks. For the operator.
#[utoipa::path(get, path = "/api/webhooks", tag = "pool", responses(
    (status = 200, body = Vec<DeliveryView>), (status = 401, body = super::Problem),
    (status = 403, body = super::Problem),
))]
pub(super) async fn deliveries(State(web): State<Web>, caller: Caller) -> Result<Json<Vec<DeliveryView>>, Refusal> {
    caller.signed()?;
    if caller.reader != Reader::Operator {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "only the operator may see webhooks"));
    }
    Ok(Json(web.store.webhook_deliveries(SHOWN).await?.into_iter().map(DeliveryView::from).collect()))
}

impl From<WebhookDelivery> for DeliveryView {
    fn from(one: WebhookDelivery) -> Self {
        Self {
            id: one.id,
            url: one.url,
            event: one.event,
            run: one.run,
            made_at: one.made_at,
            tries: one.tries,
            state: one.state.as_str(),
            answer: one.answer,
            due: one.due,
        }
    }
}
