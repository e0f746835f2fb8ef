//! Forwards encrypted messages between a page and its remote signer (NIP-46): a page connects to this server alone.

use std::convert::Infallible;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{
        IntoResponse,
        sse::{self, KeepAlive, Sse},
    },
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use nostr::{Event, JsonUtil};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    OperatorActionError, QueryParams, Refusal, Web,
    request_limits::{self, Client},
};

/// Most bytes of a request.
const LONGEST: usize = 128 * 1024;

/// A page's message.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Message {
    /// The signer's relay.
    relay: String,
    /// As NIP-01 writes it: kind 24133, to the signer, by the key whose answers are listened for.
    #[schema(value_type = Object)]
    event: serde_json::Value,
}

/// A message that was sent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SentMessage {
    /// Id of the event.
    event: String,
}

/// Which answers are requested.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AnswerQuery {
    /// The signer's relay.
    relay: String,
    /// The page's key, 64 hex.
    key: String,
}

impl From<OperatorActionError> for Refusal {
    fn from(not: OperatorActionError) -> Self {
        let (status, reason) = match not {
            OperatorActionError::Wrong(reason) => (StatusCode::BAD_REQUEST, reason),
            OperatorActionError::Busy(reason) => (StatusCode::TOO_MANY_REQUESTS, reason),
            OperatorActionError::Relay(reason) => (StatusCode::BAD_GATEWAY, reason),
        };
        Self::new(status, reason)
    }
}

/// Sends a sealed message to a remote signer (NIP-46), for a page that listens for the answer.
#[utoipa::path(post, path = "/api/signer/messages", tag = "actions", request_body = Message, responses(
    (status = 202, body = SentMessage), (status = 400, body = super::Problem), (status = 429, body = super::Problem),
    (status = 502, body = super::Problem),
))]
pub(super) async fn messages(State(web): State<Web>, body: Bytes) -> Result<(StatusCode, Json<SentMessage>), Refusal> {
    let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
    if body.len() > LONGEST {
        return Err(bad(format!("a message has at most {LONGEST} bytes")));
    }
    let Message { relay, event } =
        serde_json::from_slice(&body).map_err(|error| bad(format!("send {{\"relay\": …, \"event\": …}}: {error}")))?;
    let event = Event::from_json(event.to_string()).map_err(|_| bad("`event` is no Nostr event".into()))?;
    event.verify().map_err(|_| bad("the signature of the event does not fit".into()))?;
    web.control.send_to_signer(&relay, &event).await?;
    Ok((StatusCode::ACCEPTED, Json(SentMessage { event: event.id.to_hex() })))
}

/// Answers of a remote signer to a page's key (NIP-46): `ready` once they are listened for, then an `answer` each.
#[utoipa::path(get, path = "/api/signer/answers", tag = "actions", params(AnswerQuery), responses(
    (status = 200, description = "Events `ready` and `answer` (a Nostr event)", content_type = "text/event-stream",
        body = String),
    (status = 400, body = super::Problem), (status = 429, body = super::Problem), (status = 502, body = super::Problem),
    (status = 503, body = super::Problem),
))]
pub(super) async fn answers(
    State(web): State<Web>,
    client: Client,
    QueryParams(AnswerQuery { relay, key }): QueryParams<AnswerQuery>,
) -> Result<impl IntoResponse, Refusal> {
    let permit = request_limits::permit(&web.limits.signers, client, "pages that listen to signers")?;
    web.limits.dial(client)?;
    let answers = request_limits::while_permitted(web.control.answers(&relay, &key).await?, permit);
    let ready = sse::Event::default().event("ready").data("{}");
    let told = answers.map(|event| sse::Event::default().event("answer").data(event.as_json()));
    let all = stream::iter([ready]).chain(told).map(Ok::<_, Infallible>);
    Ok(([("x-accel-buffering", "no")], Sse::new(all).keep_alive(KeepAlive::default())))
}
