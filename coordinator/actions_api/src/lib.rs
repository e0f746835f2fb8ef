//! The services that actions call: caches, artifacts and OIDC tokens, with the protocols of GitHub's.
//!
//! One HTTP origin, reached only through a job's own tunnel: a connection belongs to one attempt, and every request must
//! carry the attempt's token as well, but what git asks [`repository`]. [`cache`] and [`artifact`] speak twirp as GitHub's toolkit does, [`cache_v1`] and
//! [`artifact_v3`] the protocols before it. [`storage`] stores bytes in the protocol of Azure's blob service, [`token`]
//! makes and checks signed tokens, [`oidc`] issues ID tokens.

mod archive;
mod artifact;
mod artifact_files;
mod artifact_v3;
mod cache;
mod cache_v1;
mod github_api;
mod junit;
mod oidc;
mod repository;
mod storage;
mod test_reports;
mod token;
mod upload_account;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use futures::{Stream, TryStreamExt as _};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::{
    archive::{ArchiveError, Existing, unpack_archive},
    artifact::owner as artifact_owner,
    oidc::{Issuer, grants},
    repository::{GitRequest, JobRepository},
};
use self::{
    token::Tokens,
    upload_account::{Exhausted, UploadAccount, UploadLimits},
};
use blobs::{BlobError, Blobs};
use domain::id::{JobKey, RunId};
use domain::run::{Millis, RunState};
use store::{Store, StoreError};
use workflow::{git_ref, time::DAY_MS};

/// Most unfinished artifacts whose expiry is known; beyond it the one that was idle longest is dropped.
const COUNTED: u64 = 65_536;
/// Most unfinished uploads of caches by version 1 of the protocol.
const RESERVED: usize = 4096;
/// Idle time after which that expiry is dropped.
const FORGOTTEN: Duration = Duration::from_millis(DAY_MS);

/// The services. Clones share them.
#[derive(Clone)]
pub struct ActionsApi {
    store: Store,
    archives: archive::Archives,
    /// The same for people who look into artifacts: jobs do not wait for them.
    looked_into: archive::Archives,
    blobs: Blobs,
    tokens: Arc<Tokens>,
    limits: config::CacheAndArtifactLimits,
    clock: fn() -> Millis,
    issuer: Option<Arc<Issuer>>,
    /// Where runs are looked up that jobs ask of; `None`: in the store.
    runs: Option<Arc<dyn RunLookup>>,
    /// Where git in jobs finds their repositories; `None`: nowhere.
    repositories: Option<Arc<dyn JobRepository>>,
    /// Unfinished uploads of caches by version 1 of the protocol.
    reserved: Arc<Mutex<BTreeMap<u64, cache_v1::ReservedCache>>>,
    uploads: UploadAccount,
    /// Expiry that jobs asked for unfinished artifacts. After a restart such an artifact gets the operator's default.
    expiries: moka::sync::Cache<String, Millis>,
    /// How many archives were read for the tests in them, by run.
    reported: moka::sync::Cache<String, u32>,
}

/// The job that a connection belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobIdentity {
    /// Run id.
    pub run: RunId,
    /// Job key.
    pub job: JobKey,
    /// Attempt.
    pub attempt: u32,
    /// Address of the repository; empty: it has none, and so no caches.
    pub repository: String,
    /// Who asked for the run, 64 hex.
    pub author: String,
    /// Full ref it runs on: where it saves caches, and where they are looked for first.
    pub reference: String,
    /// Further full refs whose caches it may restore, in the order of look-ups.
    pub bases: Vec<String>,
    /// Its commit is in the maintainers' state, so it may save caches.
    pub trusted: bool,
    /// It may request OIDC tokens.
    pub id_token: bool,
    /// The environment that it was let into, for the subject of OIDC tokens.
    pub environment: Option<String>,
    /// Why its author's requests count: `maintainer` (the owner too) or `named`, a key that the operator or the
    /// maintainers named; `anybody`, where a pull request makes the base's own files run. A claim of OIDC tokens.
    pub actor_trust: &'static str,
    /// The run's `github` context, for the claims of OIDC tokens.
    pub github: serde_json::Map<String, serde_json::Value>,
}

impl JobIdentity {
    /// Refs whose caches a run may restore besides its own, by its `github` context: the base of a pull request, and
    /// the default branch.
    pub fn bases_of(github: &serde_json::Map<String, serde_json::Value>) -> Vec<String> {
        let default = github.get("event").and_then(|event| event["repository"]["default_branch"].as_str());
        let base = github.get("base_ref").and_then(serde_json::Value::as_str);
        let names = base.into_iter().chain(default).filter(|name| !name.is_empty());
        names.map(|name| format!("refs/heads/{}", git_ref::short_name(name))).collect()
    }

    /// The attempt as signed text. Each field is preceded by its length, so that no two attempts have the same text.
    fn text(&self) -> String {
        format!("{}:{}/{}:{}/{}", self.run.as_str().len(), self.run, self.job.as_str().len(), self.job, self.attempt)
    }
}

/// Runs that stand elsewhere than in the store.
pub trait RunLookup: Send + Sync {
    /// A run as it stands.
    fn run(&self, id: &RunId) -> Option<RunState>;
}

/// Whether the worker still holds the attempt.
pub type LeaseCheck = Arc<dyn Fn() -> bool + Send + Sync>;

/// A connection's attempt.
#[derive(Clone)]
struct Caller {
    identity: Arc<JobIdentity>,
    held: LeaseCheck,
}

impl ActionsApi {
    /// Services over a store and its blobs. `key` signs tokens and URLs: the same on every coordinator.
    pub fn new(
        store: Store,
        blobs: Blobs,
        key: &[u8; 32],
        limits: config::CacheAndArtifactLimits,
        clock: fn() -> Millis,
    ) -> Self {
        let tokens = Arc::new(Tokens::new(key));
        let uploads = UploadAccount::new(UploadLimits {
            of_attempt: limits.cache_bytes.saturating_add(limits.artifact_bytes),
            of_author: limits.cache_bytes.saturating_add(limits.artifact_bytes_per_author),
        });
        Self {
            store,
            archives: archive::Archives::new(blobs.clone()),
            looked_into: archive::Archives::new(blobs.clone()),
            blobs,
            tokens,
            limits,
            clock,
            issuer: None,
            runs: None,
            repositories: None,
            reserved: Arc::default(),
            uploads,
            expiries: least_recently_used(),
            reported: least_recently_used(),
        }
    }

    /// The same, where git in jobs finds their repositories.
    #[must_use]
    pub fn with_repositories(self, repositories: Arc<dyn JobRepository>) -> Self {
        Self { repositories: Some(repositories), ..self }
    }

    /// The same, where runs stand elsewhere than in the store.
    #[must_use]
    pub fn with_runs(self, runs: Arc<dyn RunLookup>) -> Self {
        Self { runs: Some(runs), ..self }
    }

    /// A run as it stands.
    async fn run(&self, id: &RunId) -> Result<Option<RunState>, StoreError> {
        match &self.runs {
            Some(runs) => Ok(runs.run(id)),
            None => self.store.run(id).await,
        }
    }

    /// `ACTIONS_RUNTIME_TOKEN` of an attempt.
    pub fn token(&self, identity: &JobIdentity) -> String {
        self.tokens.runtime(identity)
    }

    /// Serves one connection of an attempt to its end.
    pub async fn serve<S>(&self, identity: Arc<JobIdentity>, held: LeaseCheck, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let router = self.router().layer(Extension(Caller { identity, held }));
        let serving = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        if let Err(error) = serving.await {
            tracing::debug!(%error, "a connection of a job ended");
        }
        if let Err(error) = self.remove_unfinished().await {
            tracing::warn!(%error, "uploads of a job that is over stay for a day");
        }
    }

    /// Removes what attempts uploaded and did not finish, once they are over: nobody can finish it any more.
    async fn remove_unfinished(&self) -> Result<(), BlobError> {
        let (attempts, uploads) = self.uploads.over();
        if !attempts.is_empty() {
            self.reserved.lock().retain(|_, cache| !attempts.contains(cache.identity()));
        }
        for upload in uploads {
            self.forget_upload(&upload).await?;
            self.blobs.unstage(&upload).await?;
        }
        Ok(())
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/twirp/github.actions.results.api.v1.CacheService/CreateCacheEntry", post(cache::create))
            .route("/twirp/github.actions.results.api.v1.CacheService/FinalizeCacheEntryUpload", post(cache::finalize))
            .route("/twirp/github.actions.results.api.v1.CacheService/GetCacheEntryDownloadURL", post(cache::find))
            .route("/twirp/github.actions.results.api.v1.ArtifactService/CreateArtifact", post(artifact::create))
            .route("/twirp/github.actions.results.api.v1.ArtifactService/FinalizeArtifact", post(artifact::finalize))
            .route("/twirp/github.actions.results.api.v1.ArtifactService/ListArtifacts", post(artifact::list))
            .route("/twirp/github.actions.results.api.v1.ArtifactService/GetSignedArtifactURL", post(artifact::url))
            .route("/twirp/github.actions.results.api.v1.ArtifactService/DeleteArtifact", post(artifact::delete))
            .route("/storage/{kind}/{id}/{name}", axum::routing::put(storage::put).get(storage::get))
            .route("/_apis/artifactcache/cache", axum::routing::get(cache_v1::find))
            .route("/_apis/artifactcache/caches", post(cache_v1::reserve))
            .route("/_apis/artifactcache/caches/{id}", axum::routing::patch(cache_v1::chunk).post(cache_v1::commit))
            .route("/_apis/pipelines/workflows/{run}/artifacts", {
                axum::routing::get(artifact_v3::list).post(artifact_v3::upload).patch(artifact_v3::upload)
            })
            .route("/_apis/resources/Containers/{id}", axum::routing::get(artifact_v3::items))
            .route("/_apis/resources/Containers/{id}/items/{index}", axum::routing::get(artifact_v3::content))
            .route("/oidc/token", axum::routing::get(oidc::token))
            .route("/api/v3/{*path}", any(github_api::answer))
            .route("/api/{*path}", any(async || github_api::not_here()))
            .route("/{owner}/{name}/info/refs", axum::routing::get(repository::advertise))
            .route("/{owner}/{name}/git-upload-pack", post(repository::fetch))
            .route("/{owner}/{name}/git-receive-pack", post(repository::read_only))
            .fallback(nothing)
            .with_state(self.clone())
    }

    /// Removes caches that were not used for long, and artifacts whose time is over; then the oldest of what takes more
    /// room than all repositories together may.
    pub async fn expire(&self, now: Millis, limits: &config::Retention) -> Result<(), BlobError> {
        let unused = now.saturating_sub(self.limits.cache_days.saturating_mul(DAY_MS));
        for entry in self.store.caches_unused(unused).await? {
            self.remove_cache(&entry).await?;
        }
        self.make_room(None, limits.cache_bytes).await?;
        self.remove_unfinished().await?;
        for artifact in self.store.artifacts_expired(now).await? {
            self.remove_artifact(&artifact).await?;
        }
        self.make_artifact_room(limits.artifact_bytes).await
    }

    /// Counts an object of an upload that is about to be written.
    fn begin_upload(&self, caller: &Caller, upload: &str) -> Result<(), Refusal> {
        self.check_free().and_then(|()| Ok(self.uploads.begin(&caller.identity, &caller.held, upload)?))
    }

    fn check_free(&self) -> Result<(), Refusal> {
        match self.store.has_free(self.limits.min_free) {
            true => Ok(()),
            false => Err(Refusal::too_large("the pool has no room left for uploads: ask its operator")),
        }
    }

    /// The bytes of a body, each counted before it is given.
    fn counted(
        &self,
        caller: Caller,
        upload: String,
        body: Body,
    ) -> impl Stream<Item = std::io::Result<bytes::Bytes>> + Send + use<> {
        let api = self.clone();
        body.into_data_stream().map_err(std::io::Error::other).and_then(move |piece| {
            let counted = api
                .check_free()
                .and_then(|()| Ok(api.uploads.write(&caller.identity, &caller.held, &upload, piece.len() as u64)?));
            std::future::ready(counted.map(|()| piece).map_err(|refusal| std::io::Error::other(refusal.reason)))
        })
    }

    fn now(&self) -> Millis {
        (self.clock)()
    }
}

fn least_recently_used<V: Clone + Send + Sync + 'static>() -> moka::sync::Cache<String, V> {
    let cache = moka::sync::Cache::builder().max_capacity(COUNTED).time_to_idle(FORGOTTEN);
    cache.eviction_policy(moka::policy::EvictionPolicy::lru()).build()
}

/// A request with the token of its attempt.
struct Authorized(Arc<JobIdentity>, LeaseCheck);

impl Authorized {
    fn caller(&self) -> Caller {
        Caller { identity: self.0.clone(), held: self.1.clone() }
    }
}

impl FromRequestParts<ActionsApi> for Authorized {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &ActionsApi) -> Result<Self, Refusal> {
        let caller = caller(parts)?;
        let shown = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = shown.and_then(|value| value.split_once(' ')).map(|(_, token)| token.trim());
        if token.is_some_and(|token| api.tokens.is_runtime(token, &caller.identity)) {
            return Ok(Self(caller.identity, caller.held));
        }
        Err(Refusal::unauthorized("send the ACTIONS_RUNTIME_TOKEN of this very job as `Authorization: Bearer`"))
    }
}

/// The attempt of the connection, while its lease is held.
fn caller(parts: &Parts) -> Result<Caller, Refusal> {
    let caller = parts.extensions.get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| Refusal::unauthorized("the connection belongs to no job"))?;
    if (caller.held)() {
        Ok(caller)
    } else {
        Err(Refusal::unauthorized("the attempt is over: its token counts no longer"))
    }
}

/// Base of URLs for this caller, from its `Host` header.
fn base(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("ci.localhost:4480");
    format!("http://{host}")
}

/// The code of what is there already.
const EXISTS: &str = "already_exists";

/// An error of a call, in the form of twirp.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
    reason: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, reason: impl Into<String>) -> Self {
        Self { status, code, reason: reason.into() }
    }

    fn unauthorized(reason: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", reason)
    }

    fn invalid(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_argument", reason)
    }

    fn missing(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", reason)
    }

    fn exists(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, EXISTS, reason)
    }

    fn too_large(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "resource_exhausted", reason)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "code": self.code, "msg": self.reason, "message": self.reason }))).into_response()
    }
}

impl From<Exhausted> for Refusal {
    fn from(error: Exhausted) -> Self {
        Self::too_large(error.to_string())
    }
}

impl From<BlobError> for Refusal {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::TooLarge(limit) => Self::too_large(format!("more than the {limit} bytes that may be kept")),
            BlobError::Body(cause) => Self::invalid(format!("the upload broke off: {cause}")),
            error => internal(&error),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Stale(what) => Self::exists(format!("{what} is there already")),
            error => internal(&error),
        }
    }
}

/// An internal error is logged; the caller learns only that there was one.
fn internal(error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!("a service of jobs failed: {error}");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "this failed on the coordinator; its log says why")
}

async fn nothing(State(_): State<ActionsApi>) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "bad_route", "no such service here: caches and artifacts are what there is")
}

#[cfg(test)]
mod tests;
