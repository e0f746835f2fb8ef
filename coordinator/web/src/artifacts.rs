//! Artifacts of a run: their list, and their archives.

use super::{Refusal, Web, auth::Caller, dto::ArtifactView, links, run_lookup};
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use domain::id::RunId;
use domain::run;
use store::Artifact;

/// Artifacts of a run, in the order in which they were made.
pub(super) async fn of(web: &Web, caller: &Caller, state: &run::RunState) -> Result<Vec<ArtifactView>, Refusal> {
    let base = web.settings.public_url.as_str().trim_end_matches('/');
    let link = |artifact: &Artifact| {
        let path = format!("/api/runs/{}/artifacts/{}", state.id, artifact.id);
        links::link(web, caller.key.as_deref(), &state.visibility, &path)
    };
    let view = |(link, artifact): (String, Artifact)| ArtifactView {
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
    };
    let all = current(web, &state.id).await?.into_iter();
    Ok(all.map(|artifact| (link(&artifact), artifact)).map(view).collect())
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
    let all = current(&web, &state.id).await?;
    // An artifact's name may look like the id of another one.
    let by_id = all.iter().find(|artifact| artifact.id.to_string() == wanted);
    let found = by_id.or_else(|| all.iter().find(|artifact| artifact.name == wanted));
    let gone = || Refusal::new(StatusCode::NOT_FOUND, "the run has no such artifact, or its time is over");
    let artifact = found.ok_or_else(gone)?;
    let bytes = web.blobs.get(&artifact.sha256, None).await?.ok_or_else(gone)?;
    let mut response = Body::from_stream(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    headers.insert(header::CONTENT_LENGTH, artifact.size.into());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    // Names have no quotes; one that a header can't hold is left out.
    let named = HeaderValue::from_str(&format!("attachment; filename=\"{}.zip\"", artifact.name));
    let plain = HeaderValue::from_static("attachment; filename=\"artifact.zip\"");
    let named = named.ok().filter(|_| artifact.name.is_ascii()).unwrap_or(plain);
    headers.insert(header::CONTENT_DISPOSITION, named);
    Ok(response)
}

async fn current(web: &Web, run: &RunId) -> Result<Vec<Artifact>, Refusal> {
    let now = (web.settings.now)();
    let mut artifacts = web.store.artifacts(run).await?;
    artifacts.retain(|artifact| artifact.expires_at > now);
    Ok(artifacts)
}
