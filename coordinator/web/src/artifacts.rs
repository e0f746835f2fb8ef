//! Artifacts of a run: their list, their archives, and the files in them.

use super::{
    ArtifactRefusal, QueryParams, Refusal, Web,
    auth::Caller,
    byte_size::byte_size,
    dto::ArtifactView,
    html::{HtmlError, rendered},
    links,
    log_text::strip_ansi,
    request_limits::{self, Client},
    run_lookup,
};
use askama::Template;
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use domain::id::RunId;
use domain::run::RunState;
use serde::{Deserialize, Serialize};
use store::Artifact;
use utoipa::{IntoParams, ToSchema};

/// Files on a page.
const SHOWN: usize = 1000;

/// A file of an artifact.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ArtifactFileView {
    path: String,
    /// Bytes, unpacked.
    size: u64,
    /// Where it is; of a private run for an hour, for this caller.
    url: String,
    /// The same as a path.
    #[serde(skip)]
    link: String,
}

/// Which file is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FileQuery {
    /// Its path in the artifact.
    path: String,
}

#[derive(Template)]
#[template(path = "artifact.html")]
struct ArtifactPage<'a> {
    pool: &'a str,
    run: &'a RunState,
    /// Name and number of the run.
    heading: String,
    artifact: &'a ArtifactView,
    files: &'a [ArtifactFileView],
    /// How many further files there are.
    more: usize,
    /// Why it can't be looked into.
    problem: Option<String>,
}

/// Artifacts of a run, in the order in which they were made.
pub(super) async fn of(web: &Web, caller: &Caller, state: &RunState) -> Result<Vec<ArtifactView>, Refusal> {
    let all = current(web, &state.id).await?.into_iter();
    Ok(all.map(|artifact| view(web, caller, state, artifact)).collect())
}

fn view(web: &Web, caller: &Caller, state: &RunState, artifact: Artifact) -> ArtifactView {
    let base = web.settings.public_url.as_str().trim_end_matches('/');
    let path = format!("/api/runs/{}/artifacts/{}", state.id, artifact.id);
    let link = links::link(web, caller.key.as_deref(), &state.visibility, &path);
    ArtifactView {
        url: format!("{base}{link}"),
        link,
        id: artifact.id,
        name: artifact.name,
        carried_from: state.jobs.get(&artifact.job).and_then(|job| job.reused.clone()),
        job: artifact.job,
        attempt: artifact.attempt,
        size: artifact.size,
        sha256: artifact.sha256,
        made_at: artifact.made_at,
        expires_at: artifact.expires_at,
    }
}

/// Artifacts of a run, in the order in which they were made.
#[utoipa::path(get, path = "/api/runs/{id}/artifacts", tag = "runs", params(("id" = String, Path)), responses(
    (status = 200, body = Vec<ArtifactView>), (status = 404, body = super::Problem),
))]
pub(super) async fn list(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Vec<ArtifactView>>, Refusal> {
    let state = run_lookup::find(&web, &caller, &id).await?;
    Ok(Json(of(&web, &caller, &state).await?))
}

/// The archive of an artifact, by its id or its name.
#[utoipa::path(get, path = "/api/runs/{id}/artifacts/{artifact}", tag = "runs",
    params(("id" = String, Path), ("artifact" = String, Path)), responses(
    (status = 200, content_type = "application/zip"), (status = 404, body = super::Problem),
))]
pub(super) async fn download(
    State(web): State<Web>,
    caller: Caller,
    Path((id, wanted)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let state = run_lookup::find(&web, &caller, &id).await?;
    let artifact = find(&web, &state.id, &wanted).await?;
    let bytes = web.blobs.get(&artifact.sha256, None).await?.ok_or_else(gone)?;
    let kind = HeaderValue::from_static("application/zip");
    Ok(attachment(Body::from_stream(bytes), kind, artifact.size, (&format!("{}.zip", artifact.name), "artifact.zip")))
}

/// The files of an artifact, by its id or its name: some 10,000 at most.
#[utoipa::path(get, path = "/api/runs/{id}/artifacts/{artifact}/files", tag = "runs",
    params(("id" = String, Path), ("artifact" = String, Path)), responses(
    (status = 200, body = Vec<ArtifactFileView>), (status = 404, body = super::Problem),
    (status = 422, body = super::Problem),
))]
pub(super) async fn files(
    State(web): State<Web>,
    caller: Caller,
    client: Client,
    Path((id, wanted)): Path<(String, String)>,
) -> Result<Json<Vec<ArtifactFileView>>, Refusal> {
    let state = run_lookup::find(&web, &caller, &id).await?;
    let artifact = find(&web, &state.id, &wanted).await?;
    Ok(Json(listed(&web, &caller, client, (&state, &artifact)).await?))
}

/// One file of an artifact, of 64 MiB at most. It is always a download: what a job wrote is not shown as a page of this
/// server.
#[utoipa::path(get, path = "/api/runs/{id}/artifacts/{artifact}/file", tag = "runs",
    params(("id" = String, Path), ("artifact" = String, Path), FileQuery), responses(
    (status = 200, content_type = "application/octet-stream"), (status = 400, body = super::Problem),
    (status = 404, body = super::Problem), (status = 422, body = super::Problem),
))]
pub(super) async fn file(
    State(web): State<Web>,
    caller: Caller,
    client: Client,
    Path((id, wanted)): Path<(String, String)>,
    QueryParams(FileQuery { path }): QueryParams<FileQuery>,
) -> Result<Response, Refusal> {
    let state = run_lookup::find(&web, &caller, &id).await?;
    let artifact = find(&web, &state.id, &wanted).await?;
    let permit = request_limits::permit(&web.limits.renderings, client, "looks into artifacts")?;
    let found = web.control.artifact_file(&artifact, &path, Box::new(permit)).await?;
    let kind = HeaderValue::from_static("application/octet-stream");
    let name = path.rsplit('/').next().unwrap_or(&path);
    Ok(attachment(Body::from_stream(found.bytes), kind, found.length, (name, "file")))
}

/// The page of an artifact: its files.
pub(super) async fn page(
    State(web): State<Web>,
    caller: Caller,
    client: Client,
    Path((id, wanted)): Path<(String, String)>,
) -> Result<Html<String>, HtmlError> {
    let state = run_lookup::find(&web, &caller, &id).await?;
    let found = find(&web, &state.id, &wanted).await?;
    let (mut files, problem) = match listed(&web, &caller, client, (&state, &found)).await {
        Ok(files) => (files, None),
        Err(refusal) if refusal.status == StatusCode::UNPROCESSABLE_ENTITY => (Vec::new(), Some(refusal.reason)),
        Err(refusal) => return Err(refusal.into()),
    };
    let more = files.len().saturating_sub(SHOWN);
    files.truncate(SHOWN);
    let artifact = view(&web, &caller, &state, found);
    let planned = state.planned.as_ref();
    let name = planned.map_or(state.request.workflow.as_str(), |planned| planned.plan.name.as_str());
    rendered(&ArtifactPage {
        pool: &web.settings.name,
        heading: format!("{name} #{}", state.number),
        run: &state,
        artifact: &artifact,
        files: &files,
        more,
        problem,
    })
}

async fn listed(
    web: &Web,
    caller: &Caller,
    client: Client,
    (state, artifact): (&RunState, &Artifact),
) -> Result<Vec<ArtifactFileView>, Refusal> {
    let _permit = request_limits::permit(&web.limits.renderings, client, "looks into artifacts")?;
    let found = web.control.artifact_files(artifact).await?;
    let base = web.settings.public_url.as_str().trim_end_matches('/');
    let view = |(path, size): (String, u64)| {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("path", &path).finish();
        let place = format!("/api/runs/{}/artifacts/{}/file?{query}", state.id, artifact.id);
        let link = links::link(web, caller.key.as_deref(), &state.visibility, &place);
        ArtifactFileView { path, size, url: format!("{base}{link}"), link }
    };
    Ok(found.into_iter().map(view).collect())
}

impl ArtifactFileView {
    /// The path for people.
    fn shown(&self) -> String {
        strip_ansi(&self.path)
    }

    fn size(&self) -> String {
        byte_size(self.size)
    }
}

impl From<ArtifactRefusal> for Refusal {
    fn from(refusal: ArtifactRefusal) -> Self {
        match refusal {
            ArtifactRefusal::Missing => Self::new(StatusCode::NOT_FOUND, "the artifact has no such file"),
            ArtifactRefusal::Unreadable(why) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, why),
        }
    }
}

fn gone() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "the run has no such artifact, or its time is over")
}

/// An artifact by its id or its name: a name may look like the id of another one.
async fn find(web: &Web, run: &RunId, wanted: &str) -> Result<Artifact, Refusal> {
    let mut all = current(web, run).await?;
    let by_id = all.iter().position(|artifact| artifact.id.to_string() == wanted);
    let found = by_id.or_else(|| all.iter().position(|artifact| artifact.name == wanted));
    found.map(|index| all.swap_remove(index)).ok_or_else(gone)
}

/// A download. A name that a header can't hold is replaced.
fn attachment(body: Body, kind: HeaderValue, length: u64, (name, plain): (&str, &str)) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    let is_plain = name.is_ascii() && !name.contains(['"', '\\']);
    let named = |name: &str| HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")).ok();
    let disposition = named(name).filter(|_| is_plain).or_else(|| named(plain));
    headers.extend(disposition.map(|disposition| (header::CONTENT_DISPOSITION, disposition)));
    response
}

async fn current(web: &Web, run: &RunId) -> Result<Vec<Artifact>, Refusal> {
    let now = (web.settings.now)();
    let mut artifacts = web.store.artifacts(run).await?;
    artifacts.retain(|artifact| artifact.expires_at > now);
    Ok(artifacts)
}
