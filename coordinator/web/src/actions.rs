//! Signed actions of people: events that the pool publishes for them, and what the pool knows about a signer.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use nostr::{Event, JsonUtil, Keys};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Refusal, Web,
    auth::{Action, Caller},
    reader_session::{self, ReaderSession},
};
use store::Reader;

/// Kinds of events that are published for their authors: run, job, cancel.
const KINDS: [u16; 3] = [5401, 5100, 5102];
/// Most events in one request.
const AT_ONCE: usize = 8;

/// What a page needs to make events for this pool.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PoolView {
    name: String,
    /// Key that jobs are addressed to, 64 hex.
    pubkey: String,
    /// Base of the URLs that NIP-98 signs.
    url: String,
    /// Relays that it reads; results are published there too.
    relays: Vec<String>,
    /// Where strangers may run programs here: why, and how the operator ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    openness: Option<String>,
}

/// What the pool knows about a signer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Me {
    /// 64 hex.
    key: String,
    operator: bool,
}

/// The key with which the result of one run will be signed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PublisherKey {
    /// 64 hex.
    secret: String,
    /// 64 hex.
    public: String,
}

/// Signed events.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Signed {
    /// As NIP-01 writes them: runs (5401), jobs (5100) and cancels (5102), all of one author.
    #[schema(value_type = Vec<Object>)]
    events: Vec<serde_json::Value>,
}

/// The outcome of publishing signed events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Published {
    /// Their ids, in the order given.
    events: Vec<String>,
    /// Relays that took all of them.
    relays: Vec<String>,
}

/// The pool's key, relays and base URL, for making events.
#[utoipa::path(get, path = "/api/pool", tag = "pool", responses((status = 200, body = PoolView)))]
pub(super) async fn pool(State(web): State<Web>) -> Json<PoolView> {
    let settings = &web.settings;
    Json(PoolView {
        name: settings.name.clone(),
        pubkey: settings.pubkey.clone(),
        url: settings.public_url.as_str().trim_end_matches('/').to_owned(),
        relays: settings.relays.clone(),
        openness: settings.openness.clone(),
    })
}

/// Identifies the signer of this request.
#[utoipa::path(get, path = "/api/me", tag = "actions", responses(
    (status = 200, body = Me), (status = 401, body = super::Problem),
))]
pub(super) async fn me(caller: Caller) -> Result<Json<Me>, Refusal> {
    let key = caller.signed()?.to_owned();
    Ok(Json(Me { key, operator: caller.reader == Reader::Operator }))
}

/// Begins a session for the signer of this request: its token may read, for an hour, what the key may read.
#[utoipa::path(post, path = "/api/sessions", tag = "actions", responses(
    (status = 200, body = ReaderSession), (status = 401, body = super::Problem), (status = 429, body = super::Problem),
    (status = 503, body = super::Problem),
))]
pub(super) async fn session(State(web): State<Web>, caller: Caller) -> Result<impl IntoResponse, Refusal> {
    let key = caller.signed()?;
    caller.spend(&web, Action::BeginsSession)?;
    let session = reader_session::begin(&web, key);
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(session)))
}

/// A fresh key for the result of one run. It is not stored: the job's event brings it back, encrypted.
#[utoipa::path(post, path = "/api/publisher", tag = "actions", responses((status = 200, body = PublisherKey)))]
pub(super) async fn publisher() -> (HeaderMap, Json<PublisherKey>) {
    let keys = Keys::generate();
    let key = PublisherKey { secret: keys.secret_key().to_secret_hex(), public: keys.public_key().to_hex() };
    let mut headers = HeaderMap::new();
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    (headers, Json(key))
}

/// Publishes events for their author, who may run here. The signatures of the events are the authority.
#[utoipa::path(post, path = "/api/events", tag = "actions", request_body = Signed, responses(
    (status = 202, body = Published), (status = 400, body = super::Problem), (status = 403, body = super::Problem),
    (status = 502, body = super::Problem),
))]
pub(super) async fn events(State(web): State<Web>, body: Bytes) -> Result<(StatusCode, Json<Published>), Refusal> {
    let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
    let signed: Signed =
        serde_json::from_slice(&body).map_err(|error| bad(format!("send {{\"events\": […]}}: {error}")))?;
    if signed.events.is_empty() || signed.events.len() > AT_ONCE {
        return Err(bad(format!("send 1 to {AT_ONCE} events")));
    }
    let read = |(place, value): (usize, &serde_json::Value)| {
        let event = Event::from_json(value.to_string()).map_err(|_| bad(format!("event {place} is no Nostr event")))?;
        event.verify().map_err(|_| bad(format!("the signature of event {place} does not fit")))?;
        Ok(event)
    };
    let events: Vec<Event> = signed.events.iter().enumerate().map(read).collect::<Result<_, Refusal>>()?;
    for event in &events {
        let kind = event.kind.as_u16();
        if !KINDS.contains(&kind) {
            return Err(bad(format!("events of kind {kind} are not published here: only {KINDS:?}")));
        }
        let named = event.tags.public_keys().any(|key| key.to_hex() == web.settings.pubkey);
        if kind != 5401 && !named {
            return Err(bad(format!("the event of kind {kind} must name this pool in a `p` tag")));
        }
        if events.first().is_some_and(|first| first.pubkey != event.pubkey) {
            return Err(bad("all events must be of one author".into()));
        }
    }
    match web.control.publish(&events).await? {
        super::Sent::Taken(relays) => {
            let events = events.iter().map(|event| event.id.to_hex()).collect();
            Ok((StatusCode::ACCEPTED, Json(Published { events, relays })))
        }
        super::Sent::Refused(reason) => Err(Refusal::new(StatusCode::FORBIDDEN, reason)),
        super::Sent::NoRelay(reason) => Err(Refusal::new(StatusCode::BAD_GATEWAY, reason)),
    }
}
