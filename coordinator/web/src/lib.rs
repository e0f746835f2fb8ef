//! Pages, API, live logs and the Blossom endpoint. The only place that knows HTML.
//!
//! A caller who may not read a run gets the same answer as for a run that does not exist.

mod actions;
mod api;
mod approve;
mod artifacts;
mod assets;
mod auth;
mod authors;
mod badge;
mod blossom;
mod byte_size;
mod changes;
mod definitions;
mod diff;
mod dto;
mod edit;
mod failure;
mod followed;
mod graph;
mod health;
mod history;
mod hooks;
mod html;
mod http_port;
mod job_details;
mod job_list;
mod links;
mod live;
mod log_lines;
mod log_page;
mod log_text;
mod markdown;
mod page;
mod people;
mod pool;
mod reader_session;
mod repositories;
mod repository_caches;
mod repository_values;
mod request_limits;
mod run_detail;
mod run_feed;
mod run_lookup;
mod run_page;
mod run_search;
mod settings_page;
mod signer;
mod spent_signatures;
mod state;
mod test_reports;
mod time;
mod timing;
mod transfer_limits;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{FromRequestParts, Query},
    http::{HeaderValue, StatusCode, header, request::Parts},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{future::BoxFuture, stream::BoxStream};
use nostr::Event;
use serde::{Serialize, de::DeserializeOwned};
use tower_http::{set_header::SetResponseHeaderLayer, timeout::RequestBodyTimeoutLayer};
use url::Url;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use blobs::Blobs;
use domain::id::{JobKey, RunId};
use domain::run::{ApprovalVerdict, Millis};
use logs::Logs;
use store::{Artifact, Cache, DefinitionRow, Reader, Store, ValueKind};

pub use self::http_port::{REFUSALS, serve};
use self::{request_limits::RequestLimits, run_feed::RunFeed, spent_signatures::SpentSignatures};

/// Content security policy: only our own style and script, and no page in a frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
                      form-action 'self'; frame-ancestors 'none'";

/// Longest pause between two parts of a request's body.
const BODY: Duration = Duration::from_secs(30);

/// The parts that pages and API are built from.
pub struct Config {
    /// Runs, workers, blob rows.
    pub store: Store,
    /// Live and stored logs.
    pub logs: Logs,
    /// Stored bytes.
    pub blobs: Blobs,
    /// Performs what requests ask for.
    pub control: Arc<dyn Control>,
    /// Renders what `/metrics` answers.
    pub metrics: Arc<dyn Metrics>,
    /// Settings of the operator.
    pub settings: Settings,
}

impl Config {
    /// The state of the handlers.
    pub fn build(self) -> Web {
        let Self { store, logs, blobs, control, metrics, settings } = self;
        let feed = RunFeed::new(store.clone());
        let (limits, spent) = (Arc::new(RequestLimits::new(&settings)), Arc::default());
        let (settings, queue) = (Arc::new(settings), pool::QueueCache::new());
        Web { store, logs, blobs, control, metrics, settings, feed, queue, limits, spent }
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
    limits: Arc<RequestLimits>,
    spent: Arc<SpentSignatures>,
}

/// Source of `/metrics`.
pub trait Metrics: Send + Sync {
    /// All of them, as OpenMetrics text.
    fn render(&self) -> BoxFuture<'_, anyhow::Result<String>>;
}

/// Settings of the operator.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the pool.
    pub name: String,
    /// Base of every URL that is signed or published.
    pub public_url: Url,
    /// The pool's key, 64 hex.
    pub pubkey: String,
    /// Relays that it reads.
    pub relays: Vec<String>,
    /// What everybody is told where strangers may run programs here: cause and remedy.
    pub openness: Option<String>,
    /// Keys (64 hex) that may read everything, cancel and drain.
    pub operators: Vec<String>,
    /// Keys (64 hex) that may upload besides the publishers of this pool's runs.
    pub writers: Vec<String>,
    /// Signs links into private runs.
    pub link_key: [u8; 32],
    /// Documents of other packages, by their names below `/.well-known/`.
    pub well_known: BTreeMap<String, serde_json::Value>,
    /// How long the header of a request may take, and how long a connection may be idle.
    pub idle: Duration,
    /// Event streams and whole logs that are sent at a time.
    pub streams: usize,
    /// The same, to one client.
    pub streams_per_address: usize,
    /// Most bytes of one upload.
    pub max_blob: u64,
    /// Most bytes of all uploads.
    pub max_total: u64,
    /// Milliseconds an upload is kept.
    pub keep: Millis,
    /// The clock.
    pub now: fn() -> Millis,
}

/// Actions of requests that other packages perform.
pub trait Control: Send + Sync {
    /// Ends a run. Repeating it is harmless.
    fn cancel<'a>(&'a self, run: &'a RunId, by: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// Records an approver's decision about a job; returns whether it counts.
    fn decide<'a>(
        &'a self,
        run: &'a RunId,
        job: &'a JobKey,
        verdict: ApprovalVerdict,
        by: &'a str,
        comment: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<bool>>;
    /// A worker takes no new jobs from now on.
    fn drain<'a>(&'a self, worker: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// A token with which one new worker can join, good for an hour.
    fn enrolment_token(&self) -> String;
    /// Names of people (64 hex) from their profiles, as far as they are known now: others may be known the next time.
    fn names(&self, keys: &[&str]) -> HashMap<String, String>;
    /// The workers connected to this coordinator.
    fn workers(&self) -> Vec<WorkerConnection>;
    /// The configured relays that are in use.
    fn relays(&self) -> Vec<RelayView>;
    /// Whether events are received and results are sent.
    fn readiness(&self) -> BoxFuture<'_, Readiness>;
    /// Sends events of one author, whose signatures were checked, to the relays that the pool reads.
    fn publish<'a>(&'a self, events: &'a [Event]) -> BoxFuture<'a, anyhow::Result<Sent>>;
    /// Versions of a repository's workflow definitions whose authors count, and whether each is in force; by path, the
    /// newest first. None where the reader may not see the repository.
    fn definitions<'a>(
        &'a self,
        repository: &'a str,
        reader: &'a Reader,
    ) -> BoxFuture<'a, anyhow::Result<Vec<(DefinitionRow, bool)>>>;
    /// One version, if its author counts and the reader may see its repository.
    fn definition<'a>(
        &'a self,
        event: &'a str,
        reader: &'a Reader,
    ) -> BoxFuture<'a, anyhow::Result<Option<DefinitionRow>>>;
    /// The tags of a definition with this text; without a text, of a withdrawal. The error is for people.
    fn definition_tags(&self, repository: &str, path: &str, text: Option<&str>) -> Result<Vec<Vec<String>>, String>;
    /// Stores and publishes a definition whose signature was checked.
    fn define<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, anyhow::Result<DefinitionOutcome>>;
    /// Sends an encrypted message, whose signature was checked, to a remote signer at a relay.
    fn send_to_signer<'a>(&'a self, relay: &'a str, event: &'a Event)
    -> BoxFuture<'a, Result<(), OperatorActionError>>;
    /// Encrypted messages to a key at a relay, from now on.
    fn answers<'a>(
        &'a self,
        relay: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Event>, OperatorActionError>>;
    /// Whether a key (64 hex) manages a repository's secrets, variables and caches.
    fn may_manage<'a>(
        &'a self,
        repository: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<Result<(), SettingsRefusal>>>;
    /// Sets or removes a secret or a variable, for somebody who manages the repository.
    fn order_value(&self, order: ValueOrder) -> BoxFuture<'_, anyhow::Result<ValueAnswer>>;
    /// Paths of the files of an artifact, with their unpacked bytes.
    fn artifact_files<'a>(
        &'a self,
        artifact: &'a Artifact,
    ) -> BoxFuture<'a, Result<Vec<(String, u64)>, ArtifactRefusal>>;
    /// A file of an artifact; `kept` is dropped with it.
    fn artifact_file<'a>(
        &'a self,
        artifact: &'a Artifact,
        path: &'a str,
        kept: Box<dyn Send>,
    ) -> BoxFuture<'a, Result<ArtifactContent, ArtifactRefusal>>;
    /// Deletes an entry of the caches.
    fn delete_cache<'a>(&'a self, entry: &'a Cache) -> BoxFuture<'a, anyhow::Result<()>>;
    /// The workflow files of a repository at a commit, if the commit is in the mirror: nothing is fetched.
    fn workflows<'a>(&'a self, repository: &'a str, commit: &'a str) -> BoxFuture<'a, anyhow::Result<Vec<File>>>;
}

/// A file of an artifact.
pub struct ArtifactContent {
    /// Bytes that follow.
    pub length: u64,
    /// What the job wrote.
    pub bytes: BoxStream<'static, std::io::Result<bytes::Bytes>>,
}

/// Why an artifact, or a file of it, is not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArtifactRefusal {
    /// It has no such file.
    Missing,
    /// Why it can't be looked into, for people.
    Unreadable(String),
}

/// Why somebody may not manage a repository's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingsRefusal {
    /// Others do, or there is no such repository here.
    Others,
    /// Too many are being looked at.
    Busy,
}

/// An order to set a secret or a variable, or to remove it.
pub struct ValueOrder {
    /// Address of the repository.
    pub repository: String,
    /// The environment whose jobs have it, in lower case; empty: every job.
    pub environment: String,
    /// What it is.
    pub kind: ValueKind,
    /// In upper case.
    pub name: String,
    /// A variable's text, or a secret's NIP-44 payload; `None`: it is to be removed.
    pub value: Option<String>,
    /// Who signed the order, 64 hex.
    pub by: String,
    /// Id of the event that was signed.
    pub event: String,
    /// Its time, Unix seconds.
    pub at: u64,
}

/// What came of such an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueAnswer {
    /// It counts. Whether the name stood for something before.
    Taken {
        /// It did.
        replaces: bool,
    },
    /// A later one counts already.
    Older,
    /// The value can't be stored; the text says why.
    Unusable(String),
}

/// A relay of the configuration.
#[derive(Debug, Clone)]
pub struct RelayView {
    /// Its URL.
    pub url: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// Since when, in milliseconds since the Unix epoch.
    pub since: Millis,
    /// Why it is not connected, for people.
    pub error: Option<String>,
}

/// Whether events are received and results are sent. The texts are for people.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// Reasons why not; empty: it is ready.
    pub failures: Vec<String>,
    /// Other problems.
    pub warnings: Vec<String>,
}

/// The outcome of sending events.
#[derive(Debug, Clone)]
pub enum Sent {
    /// These relays accepted all.
    Taken(Vec<String>),
    /// Their author may not run here; the text says why.
    Refused(String),
    /// No relay accepted them; the text says what they answered.
    NoRelay(String),
}

/// The outcome of publishing a workflow definition.
#[derive(Debug, Clone)]
pub enum DefinitionOutcome {
    /// It is stored and will be sent to these relays.
    Taken(Vec<String>),
    /// It does not have the form of a definition.
    Malformed(String),
    /// Its text is not a valid workflow; one finding a line.
    Faulty(String),
    /// Its author may not define workflows; the text says why.
    Refused(String),
    /// This version is newer, so nothing would change.
    Older(String),
    /// Too many are being taken in.
    Busy,
}

/// Why a message between a page and its signer is not forwarded; the text is for people.
#[derive(Debug, Clone)]
pub enum OperatorActionError {
    /// It is not such a message.
    Wrong(String),
    /// Too many messages at a time.
    Busy(String),
    /// The relay does not accept it.
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

/// A connected worker.
#[derive(Debug, Clone)]
pub struct WorkerConnection {
    /// Its id in the pool.
    pub worker: String,
    /// Version of its program.
    pub version: String,
    /// CPU architecture of its machine.
    pub architecture: String,
    /// What its jobs run in: `docker` or `host`.
    pub sandbox: String,
    /// Jobs it has or is offered.
    pub busy: usize,
    /// It takes no new jobs.
    pub draining: bool,
}

/// All routes.
pub fn router(web: Web) -> Router {
    let header = |name, value| SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value));
    let (api, document) = api().split_for_parts();
    Router::new()
        .route("/", get(page::runs))
        .route("/runs/{id}", get(run_page::run))
        .route("/runs/{id}/log", get(log_page::log))
        .route("/runs/{id}/artifacts/{artifact}", get(artifacts::page))
        .route("/pool", get(repositories::pool))
        .route("/repositories", get(repositories::repositories))
        .route("/repositories/{address}", get(repositories::repository))
        .route("/repositories/{address}/edit", get(edit::page))
        .route("/repositories/{address}/settings", get(settings_page::page))
        .route("/avatars/{name}", get(people::avatar))
        .route("/assets/{*name}", get(assets::asset))
        .merge(api)
        .route("/api/openapi.json", get(async move || Json(document)))
        .route("/.well-known/{name}", get(page::well_known))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .merge(blossom::routes())
        .fallback(html::nothing)
        .layer(from_fn_with_state(web.clone(), html::finished))
        .layer(RequestBodyTimeoutLayer::new(BODY))
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

/// The API; each route is documented at its handler.
fn api() -> OpenApiRouter<Web> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(api::runs))
        .routes(routes!(api::run))
        .routes(routes!(api::cancel))
        .routes(routes!(approve::approve))
        .routes(routes!(artifacts::list))
        .routes(routes!(artifacts::download))
        .routes(routes!(artifacts::files))
        .routes(routes!(artifacts::file))
        .routes(routes!(live::logs))
        .routes(routes!(log_lines::lines))
        .routes(routes!(log_lines::steps))
        .routes(routes!(log_lines::search))
        .routes(routes!(changes::changes))
        .routes(routes!(badge::badge))
        .routes(routes!(pool::queue))
        .routes(routes!(pool::workers))
        .routes(routes!(pool::enrolment_token))
        .routes(routes!(pool::drain))
        .routes(routes!(actions::pool))
        .routes(routes!(actions::me))
        .routes(routes!(actions::session))
        .routes(routes!(actions::publisher))
        .routes(routes!(actions::events))
        .routes(routes!(definitions::list))
        .routes(routes!(definitions::one))
        .routes(routes!(definitions::diff))
        .routes(routes!(definitions::preview))
        .routes(routes!(definitions::define))
        .routes(routes!(repository_values::list, repository_values::order))
        .routes(routes!(repository_caches::list))
        .routes(routes!(repository_caches::delete))
        .routes(routes!(signer::messages))
        .routes(routes!(signer::answers))
        .routes(routes!(hooks::deliveries))
        .routes(routes!(followed::list, followed::add))
        .routes(routes!(followed::remove))
}

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
struct Problem {
    /// Cause, and what to do, for people.
    error: String,
}

/// An error of a request: for people, and in `X-Reason` for Blossom clients.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    reason: String,
    /// Seconds after which the request may be repeated.
    retry_after: Option<u16>,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), retry_after: None }
    }

    fn retry_after(self, seconds: u16) -> Self {
        Self { retry_after: Some(seconds), ..self }
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
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A query string; an invalid one gives an error in the form of all others.
struct QueryParams<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(asked)| Self(asked)).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))
    }
}

/// An internal error is logged; the caller learns only that there was one.
impl<E: Into<anyhow::Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        tracing::error!("a request failed: {:#}", error.into());
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "this failed on the server; its log says why")
    }
}
