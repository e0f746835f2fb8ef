//! The job's repository at the job's own address, as git asks for it: read-only (git's smart HTTP protocol).
//!
//! A connection belongs to one attempt, and gives what that attempt's checkout gives: so no credentials are needed, and
//! none stand in a job's configuration of git.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream::BoxStream};

use super::{ActionsApi, JobIdentity, caller};

/// One request of git.
pub struct GitRequest {
    /// What the repository has is asked for; else objects of it.
    pub is_advertisement: bool,
    /// Header `Git-Protocol`.
    pub protocol: String,
    /// Header `Content-Encoding`.
    pub encoding: String,
    /// What git sends.
    pub body: BoxStream<'static, std::io::Result<Bytes>>,
}

/// Gives git what a job may see of its repository.
pub trait JobRepository: Send + Sync {
    /// Answers one request; the error says why not.
    fn serve(
        &self,
        job: Arc<JobIdentity>,
        request: GitRequest,
    ) -> BoxFuture<'static, Result<BoxStream<'static, std::io::Result<Bytes>>, String>>;

    /// What a command of git prints that only reads; `None`: it fails.
    fn read(&self, job: Arc<JobIdentity>, command: Vec<String>) -> BoxFuture<'static, Result<Option<Vec<u8>>, String>>;

    /// Patterns of names of artifacts that hold results of tests, as the repository says at the run's commit. Nothing is
    /// fetched for it.
    fn test_result_names<'a>(&'a self, job: &'a JobIdentity) -> BoxFuture<'a, Arc<Vec<String>>> {
        let _ = job;
        Box::pin(std::future::ready(Arc::default()))
    }
}

#[derive(serde::Deserialize)]
pub(super) struct Service {
    #[serde(default)]
    service: String,
}

/// `GET /OWNER/NAME/info/refs?service=…`.
pub(super) async fn advertise(
    State(api): State<ActionsApi>,
    Path((owner, name)): Path<(String, String)>,
    Query(asked): Query<Service>,
    request: Request,
) -> Response {
    match asked.service.as_str() {
        "git-upload-pack" => serve(api, &owner, &name, request, true).await,
        _ => read_only().await,
    }
}

/// `POST /OWNER/NAME/git-upload-pack`.
pub(super) async fn fetch(
    State(api): State<ActionsApi>,
    Path((owner, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    serve(api, &owner, &name, request, false).await
}

/// `POST /OWNER/NAME/git-receive-pack`.
pub(super) async fn read_only() -> Response {
    let why = "this repository is read-only for jobs: push to a remote of your own, with credentials from a secret\n";
    (StatusCode::FORBIDDEN, why).into_response()
}

async fn serve(api: ActionsApi, owner: &str, name: &str, request: Request, is_advertisement: bool) -> Response {
    let (parts, body) = request.into_parts();
    let caller = match caller(&parts) {
        Ok(caller) => caller,
        Err(refusal) => return refusal.into_response(),
    };
    let text = |headers: &HeaderMap, name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let own = caller.identity.github.get("repository").and_then(serde_json::Value::as_str).unwrap_or_default();
    let asked = format!("{owner}/{}", name.strip_suffix(".git").unwrap_or(name));
    let Some(repositories) = api.repositories.clone().filter(|_| !own.is_empty() && asked.eq_ignore_ascii_case(own))
    else {
        let why = format!("there is no repository {asked} here: a job has its own at this address, {own}\n");
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    let request = GitRequest {
        is_advertisement,
        protocol: text(&parts.headers, "git-protocol"),
        encoding: text(&parts.headers, "content-encoding"),
        body: body.into_data_stream().map_err(std::io::Error::other).boxed(),
    };
    match repositories.serve(Arc::clone(&caller.identity), request).await {
        Ok(answer) => {
            let kind = if is_advertisement { "advertisement" } else { "result" };
            let mut response = Response::new(Body::from_stream(answer));
            let headers = response.headers_mut();
            if let Ok(kind) = HeaderValue::from_str(&format!("application/x-git-upload-pack-{kind}")) {
                headers.insert(header::CONTENT_TYPE, kind);
            }
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            response
        }
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
