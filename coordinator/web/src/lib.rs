//! Pages, API, live logs and the Blossom endpoint. The only place that knows HTML.
//!
//! Whoever may not read a run gets the same answer as for a run that does not exist.

mod actions;
mod api;
mod approve;
mod artifacts;
mod auth;
mod badge;
mod blossom;
mod changes;
mod definitions;
mod diff;
mod dto;
mod edit;
mod graph;
mod health;
mod hooks;
mod html;
mod job_details;
mod links;
mod live;
mod log_page;
mod markdown;
mod page;
mod pool;
mod range;
mod repositories;
mod run_detail;
mod run_feed;
mod run_lookup;
mod signer;
mod why;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{FromRequestParts, Query},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{future::BoxFuture, stream::BoxStream};
use nostr::Event;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::set_header::SetResponseHeaderLayer;
use url::Url;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use blobs::Blobs;
use domain::run::{ApprovalVerdict, Millis};
use logs::Logs;
use store::{DefinitionRow, Store};

use run_feed::RunFeed;

/// Nothing but our own style and script; a page is framed by nobody.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
                      form-action 'self'; frame-ancestors 'none'";

/// How long readers of live logs get at shutdown.
const LAST_READERS: Duration = Duration::from_secs(1);

/// What pages and API are built from.
pub struct Config {
    /// Runs, workers, blob rows.
    pub store: Store,
    /// Live and stored logs.
    pub logs: Logs,
    /// Stored bytes.
    pub blobs: Blobs,
    /// Carries out what a request asks for.
    pub control: Arc<dyn Control>,
    /// Renders what `/metrics` answers.
    pub metrics: Arc<dyn Metrics>,
    /// What the operator set.
    pub settings: Settings,
}

impl Config {
    /// The state of the handlers.
    pub fn build(self) -> Web {
        let Self { store, logs, blobs, control, metrics, settings } = self;
        let feed = RunFeed::new(store.clone());
        Web { store, logs, blobs, control, metrics, settings: Arc::new(settings), feed, queue: pool::QueueCache::new() }
    }
}

/// What the handlers need. Clones share it.
#[derive(Clone)]
pub struct Web {
    store: Store,
    logs: Logs,
    blobs: Blobs,
    control: Arc<dyn Control>,
    metrics: Arc<dyn Metrics>,
    settings: Arc<Settings>,
    feed: RunFeed,
    queue: pool::QueueCache,
}

/// Where the numbers of `/metrics` come from.
pub trait Metrics: Send + Sync {
    /// All of them, as OpenMetrics text.
    fn render(&self) -> BoxFuture<'_, anyhow::Result<String>>;
}

/// What the operator set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the pool.
    pub name: String,
    /// Base of every URL that is signed or published.
    pub public_url: Url,
    /// The pool's key, 64 hex.
    pub pubkey: String,
    /// Relays it hears.
    pub relays: Vec<String>,
    /// Keys (64 hex) that may read everything, cancel and drain.
    pub operators: Vec<String>,
    /// Keys (64 hex) that may upload besides the publishers of this pool's runs.
    pub writers: Vec<String>,
    /// Signs links into private runs.
    pub link_key: [u8; 32],
    /// Documents of other stages, by their names below `/.well-known/`.
    pub well_known: BTreeMap<String, serde_json::Value>,
    /// Bytes of one upload.
    pub max_blob: u64,
    /// Bytes of all uploads.
    pub max_total: u64,
    /// Milliseconds an upload is kept.
    pub keep: Millis,
    /// The clock.
    pub now: fn() -> Millis,
}

/// What a request can make happen.
pub trait Control: Send + Sync {
    /// Ends a run. Repeating it is harmless.
    fn cancel<'a>(&'a self, run: &'a str, by: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// Tells a job what somebody who is asked says of it; whether that counts.
    fn decide<'a>(
        &'a self,
        run: &'a str,
        job: &'a str,
        verdict: ApprovalVerdict,
        by: &'a str,
        comment: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<bool>>;
    /// A worker takes no new jobs from now on.
    fn drain<'a>(&'a self, worker: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// A token with which one new worker can join, good for an hour.
    fn enrolment_token(&self) -> String;
    /// What each connected worker does.
    fn loads(&self) -> Vec<Load>;
    /// The relays that the operator named, as far as they are used.
    fn relays(&self) -> Vec<RelayView>;
    /// Whether events are taken in and results go out.
    fn readiness(&self) -> BoxFuture<'_, Readiness>;
    /// Sends events of one author, whose signatures were checked, to the relays that the pool hears.
    fn publish<'a>(&'a self, events: &'a [Event]) -> BoxFuture<'a, anyhow::Result<Sent>>;
    /// Versions of a repository's workflow definitions whose authors count, and whether each is in force; by path, the
    /// newest first.
    fn definitions<'a>(&'a self, repository: &'a str) -> BoxFuture<'a, anyhow::Result<Vec<(DefinitionRow, bool)>>>;
    /// One version, if its author counts.
    fn definition<'a>(&'a self, event: &'a str) -> BoxFuture<'a, anyhow::Result<Option<DefinitionRow>>>;
    /// The tags of a definition of this text; without one it withdraws what stands there. The error is for people.
    fn definition_tags(&self, repository: &str, path: &str, text: Option<&str>) -> Result<Vec<Vec<String>>, String>;
    /// Keeps and publishes a definition, whose signature was checked, for its author.
    fn define<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, anyhow::Result<Defined>>;
    /// Sends a sealed message, whose signature was checked, to somebody's remote signer at a relay.
    fn send_to_signer<'a>(&'a self, relay: &'a str, event: &'a Event)
    -> BoxFuture<'a, Result<(), OperatorActionError>>;
    /// Sealed messages to a key at a relay, from now on.
    fn answers<'a>(
        &'a self,
        relay: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Event>, OperatorActionError>>;
    /// The workflow files of a repository at a commit, as far as they are here: nothing is fetched.
    fn workflows<'a>(&'a self, repository: &'a str, commit: &'a str) -> BoxFuture<'a, anyhow::Result<Vec<File>>>;
}

/// A relay that the operator named.
#[derive(Debug, Clone)]
pub struct RelayView {
    /// Its URL.
    pub url: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// Since when, in milliseconds since the Unix epoch.
    pub since: Millis,
    /// Why it is not, for people.
    pub error: Option<String>,
}

/// Whether events are taken in and results go out. The texts are for people.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// What keeps it from that; empty: it is ready.
    pub failures: Vec<String>,
    /// What is amiss, but does not keep it from that.
    pub warnings: Vec<String>,
}

/// What became of events.
#[derive(Debug, Clone)]
pub enum Sent {
    /// These relays took all.
    Taken(Vec<String>),
    /// Their author may not run here; the text says why.
    Refused(String),
    /// No relay took them; the text says what they answered.
    NoRelay(String),
}

/// What became of a workflow definition.
#[derive(Debug, Clone)]
pub enum Defined {
    /// It is kept, and on its way to these relays.
    Taken(Vec<String>),
    /// It is not written as definitions are.
    Malformed(String),
    /// Its text is no workflow; one finding a line.
    Faulty(String),
    /// Its author may not; the text says why.
    Refused(String),
    /// This one is newer, so nothing would change.
    Older(String),
}

/// Why nothing is carried between a page and its signer; the text is for people.
#[derive(Debug, Clone)]
pub enum OperatorActionError {
    /// It is none of what is carried.
    Wrong(String),
    /// Too much at a time.
    Busy(String),
    /// The relay does not take it.
    Relay(String),
}

/// A file of a repository.
#[derive(Debug, Clone)]
pub struct File {
    /// Its path.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// What a connected worker does.
#[derive(Debug, Clone)]
pub struct Load {
    /// Its id in the pool.
    pub worker: String,
    /// Version of its program.
    pub version: String,
    /// Jobs it has or is offered.
    pub busy: usize,
    /// It takes no new jobs.
    pub draining: bool,
}

/// Serves until told to stop.
pub async fn serve(listener: TcpListener, web: Web, stop: CancellationToken) -> anyhow::Result<()> {
    let graceful = axum::serve(listener, router(web)).with_graceful_shutdown(stop.clone().cancelled_owned());
    // Live logs never end by themselves: a reader must not hold the shutdown up.
    tokio::select! {
        served = graceful => Ok(served?),
        () = async { stop.cancelled().await; tokio::time::sleep(LAST_READERS).await } => Ok(()),
    }
}

/// All routes.
pub fn router(web: Web) -> Router {
    let header = |name, value| SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value));
    let (api, document) = api().split_for_parts();
    Router::new()
        .route("/", get(page::runs))
        .route("/runs/{id}", get(page::run))
        .route("/runs/{id}/log", get(log_page::log))
        .route("/pool", get(repositories::pool))
        .route("/repositories", get(repositories::repositories))
        .route("/repositories/{address}", get(repositories::repository))
        .route("/repositories/{address}/edit", get(edit::page))
        .route("/assets/{*name}", get(page::asset))
        .merge(api)
        .route("/api/openapi.json", get(async move || Json(document)))
        .route("/.well-known/{name}", get(page::well_known))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .merge(blossom::routes())
        .fallback(html::nothing)
        .layer(header(header::CONTENT_SECURITY_POLICY, POLICY))
        .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(header::REFERRER_POLICY, "no-referrer"))
        .with_state(web)
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Longshore",
        description = "Runs of a pool, their logs, its workers and its queue. Who signs a \
        request with NIP-98 sees the private runs that the key may read."
    ),
    components(schemas(dto::RunView))
)]
struct Document;

/// The API: a route is documented where its handler is.
fn api() -> OpenApiRouter<Web> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(api::runs))
        .routes(routes!(api::run))
        .routes(routes!(api::cancel))
        .routes(routes!(approve::approve))
        .routes(routes!(artifacts::list))
        .routes(routes!(artifacts::download))
        .routes(routes!(live::logs))
        .routes(routes!(range::lines))
        .routes(routes!(range::search))
        .routes(routes!(changes::changes))
        .routes(routes!(badge::badge))
        .routes(routes!(pool::queue))
        .routes(routes!(pool::workers))
        .routes(routes!(pool::enrolment_token))
        .routes(routes!(pool::drain))
        .routes(routes!(actions::pool))
        .routes(routes!(actions::me))
        .routes(routes!(actions::publisher))
        .routes(routes!(actions::events))
        .routes(routes!(definitions::list))
        .routes(routes!(definitions::one))
        .routes(routes!(definitions::diff))
        .routes(routes!(definitions::preview))
        .routes(routes!(definitions::define))
        .routes(routes!(signer::messages))
        .routes(routes!(signer::answers))
        .routes(routes!(hooks::deliveries))
}

/// An answer that says what is wrong.
#[derive(Debug, Serialize, ToSchema)]
struct Problem {
    /// Cause and remedy, for people.
    error: String,
}

/// Why a request is not answered: for people, and in `X-Reason` for Blossom clients.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    reason: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    fn no_run(caller: &auth::Caller) -> Self {
        let reason = match &caller.key {
            Some(key) => format!("no such run, or it is not open to {}", auth::short(key)),
            None => "no such run, or it is not open to you: sign the request (NIP-98)".to_owned(),
        };
        Self::new(StatusCode::NOT_FOUND, reason)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(Problem { error: self.reason.clone() })).into_response();
        if let Ok(reason) = HeaderValue::from_str(&self.reason) {
            response.headers_mut().insert("x-reason", reason);
        }
        response
    }
}

/// What a query asks for; one that can't be read is refused like everything else.
struct QueryParams<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(asked)| Self(asked)).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))
    }
}

/// What went wrong on our side is for our log; a stranger learns only that it did.
impl<E: Into<anyhow::Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        tracing::error!("a request failed: {:#}", error.into());
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "this failed on the server; its log says why")
    }
}
