//! Downloads of artifacts by clients before version 4: an artifact is a container of files, each with its own URL.
//!
//! The files come out of the archives that version 4 uploads. Uploads by the earlier versions are refused.

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ActionsApi, Authorized, JobIdentity, Refusal, archive::ArchiveError, base, internal};
use store::Artifact;

/// Bytes of a list of files.
const LISTED: usize = 4 << 20;
/// Bytes of it that are sent at a time.
const PIECE: usize = 64 << 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ItemQuery {
    item_path: Option<String>,
}

impl From<ArchiveError> for Refusal {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::TooLarge(limit) => Self::too_large(format!(
                "it unpacks to more than {limit} bytes: read it with actions/download-artifact@v4, which unpacks it in \
                 the job"
            )),
            ArchiveError::TooMany => Self::too_large(format!(
                "{error}: read it with actions/download-artifact@v4, which unpacks it in the job"
            )),
            ArchiveError::Missing => Self::missing(error.to_string()),
            ArchiveError::Unreadable(_)
            | ArchiveError::LargeFile(_)
            | ArchiveError::Occupied(_)
            | ArchiveError::Unwritten { .. } => Self::invalid(error.to_string()),
        }
    }
}

impl ActionsApi {
    async fn container(&self, identity: &JobIdentity, id: u64) -> Result<Artifact, Refusal> {
        let found = self.store.artifacts(&identity.run).await?.into_iter().find(|artifact| artifact.id == id);
        found.ok_or_else(|| Refusal::missing("the run has no such artifact"))
    }
}

/// Only the artifacts of the job's own run.
fn own(identity: &JobIdentity, run: &str) -> Result<(), Refusal> {
    match identity.github.get("run_id").map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned)) {
        Some(id) if id != run => Err(Refusal::missing(format!("artifacts of another run ({run}) are not given"))),
        _ => Ok(()),
    }
}

pub(super) async fn list(
    State(api): State<ActionsApi>,
    Authorized(identity, _): Authorized,
    Path(run): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    own(&identity, &run)?;
    let base = base(&headers);
    let shown = |artifact: &Artifact| {
        let resource = format!("{base}/_apis/resources/Containers/{}", artifact.id);
        json!({
            "containerId": artifact.id, "size": artifact.size, "signedContent": null, "type": "actions_storage",
            "name": artifact.name, "url": resource, "fileContainerResourceUrl": resource,
        })
    };
    let artifacts: Vec<Value> = api.store.artifacts(&identity.run).await?.iter().map(shown).collect();
    Ok(Json(json!({ "count": artifacts.len(), "value": artifacts })))
}

pub(super) async fn items(
    State(api): State<ActionsApi>,
    authorized: Authorized,
    Path(id): Path<u64>,
    Query(within): Query<ItemQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Authorized(identity, held) = authorized;
    let artifact = api.container(&identity, id).await?;
    if within.item_path.is_some_and(|wanted| wanted != artifact.name) {
        return Err(Refusal::missing("list an artifact by its name"));
    }
    // Until the answer was read: a job that does not read it waits for itself alone.
    let turn = api.uploads.answers(&identity, &held).acquire_owned().await.map_err(|error| internal(&error))?;
    let limit = api.limits.artifact_bytes;
    let entries = api.archives.entries(&artifact.sha256, artifact.size, limit).await?;
    let base = base(&headers);
    let mut list = format!("{{\"count\":{},\"value\":[", entries.len());
    for (number, entry) in entries.iter().enumerate() {
        let shown = json!({
            "containerId": id, "path": format!("{}/{}", artifact.name, entry.path), "itemType": "file",
            "status": "created", "fileLength": entry.size, "contentId": "",
            "contentLocation": format!("{base}/_apis/resources/Containers/{id}/items/{}", entry.index),
        });
        list.push_str(if number > 0 { "," } else { "" });
        list.push_str(&shown.to_string());
        if list.len() > LISTED {
            return Err(ArchiveError::TooMany.into());
        }
    }
    list.push_str("]}");
    // In pieces: the turn is held until the last of them is to be sent.
    let pieces = futures::stream::unfold((bytes::Bytes::from(list), turn), |(mut list, turn)| async move {
        let piece = list.split_to(PIECE.min(list.len()));
        (!piece.is_empty()).then_some((Ok::<_, std::convert::Infallible>(piece), (list, turn)))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response())
}

pub(super) async fn content(
    State(api): State<ActionsApi>,
    Authorized(identity, held): Authorized,
    Path((id, index)): Path<(u64, usize)>,
) -> Result<Response, Refusal> {
    let artifact = api.container(&identity, id).await?;
    let turn = api.uploads.files(&identity, &held).acquire_owned().await.map_err(|error| internal(&error))?;
    let limit = api.limits.artifact_bytes;
    let (length, pieces) = api.archives.file(&artifact.sha256, artifact.size, index, limit, turn).await?;
    let mut response = Body::from_stream(pieces).into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

/// The earlier clients print status and headers of a refusal. They do not read its body: an open connection would keep
/// their process from ending.
pub(super) async fn upload(Authorized(..): Authorized) -> Response {
    const REMEDY: &str = "artifacts are uploaded by version 4 of the protocol here: use actions/upload-artifact@v4, or \
                          @actions/artifact 2 or newer";
    let mut response = Refusal::new(StatusCode::GONE, "unimplemented", REMEDY).into_response();
    response.headers_mut().insert("x-reason", HeaderValue::from_static(REMEDY));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
