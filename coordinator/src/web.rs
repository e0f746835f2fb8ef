//! Pages, API, live logs and the Blossom endpoint. The only place that knows HTML.
//!
//! Whoever may not read a run gets the same answer as for a run that does not exist.

mod api;
mod artifacts;
mod auth;
mod blossom;
mod live;
mod page;
mod view;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::set_header::SetResponseHeaderLayer;
use url::Url;

use crate::{blob::Blobs, log::Logs, run::Millis, store::Store};

/// Nothing but our own style and script; a page is framed by nobody.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// How long readers of live logs get at shutdown.
const LAST_READERS: Duration = Duration::from_secs(1);

/// What the handlers need.
#[derive(Clone)]
pub struct Web {
    /// Runs, workers, blob rows.
    pub store: Store,
    /// Live and stored logs.
    pub logs: Logs,
    /// Stored bytes.
    pub blobs: Blobs,
    /// Carries out what a request asks for.
    pub control: Arc<dyn Control>,
    /// What the operator set.
    pub settings: Arc<Settings>,
}

/// What the operator set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the pool.
    pub name: String,
    /// Base of every URL that is signed or published.
    pub public_url: Url,
    /// Keys (64 hex) that may read everything, cancel and drain.
    pub operators: Vec<String>,
    /// Keys (64 hex) that may upload besides the publishers of this pool's runs.
    pub writers: Vec<String>,
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
    /// A worker takes no new jobs from now on.
    fn drain<'a>(&'a self, worker: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// A token with which one new worker can join, good for an hour.
    fn enrolment_token(&self) -> String;
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
    Router::new()
        .route("/", get(page::runs))
        .route("/runs/{id}", get(page::run))
        .route("/assets/live.js", get(page::script))
        .route("/assets/page.css", get(page::style))
        .route("/api/runs", get(api::runs))
        .route("/api/runs/{id}", get(api::run))
        .route("/api/runs/{id}/logs", get(live::logs))
        .route("/api/runs/{id}/artifacts", get(artifacts::list))
        .route("/api/runs/{id}/artifacts/{artifact}", get(artifacts::download))
        .route("/api/runs/{id}/cancel", post(api::cancel))
        .route("/api/workers", get(api::workers))
        .route("/api/workers/token", post(api::enrolment_token))
        .route("/api/workers/{id}/drain", post(api::drain))
        .route("/.well-known/{name}", get(api::well_known))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(api::ready))
        .merge(blossom::routes())
        .layer(header(header::CONTENT_SECURITY_POLICY, POLICY))
        .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(header::REFERRER_POLICY, "no-referrer"))
        .with_state(web)
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

    fn no_run() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no such run, or it is not open to you: sign the request (NIP-98)")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(serde_json::json!({ "error": self.reason }))).into_response();
        if let Ok(reason) = HeaderValue::from_str(&self.reason) {
            response.headers_mut().insert("x-reason", reason);
        }
        response
    }
}

/// What went wrong on our side is for our log; a stranger learns only that it did.
impl<E: Into<anyhow::Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        tracing::error!("a request failed: {:#}", error.into());
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "this failed on the server; its log says why")
    }
}
