//! Uploads and downloads of bytes in the protocol of Azure's blob service, as far as GitHub's toolkit and similar clients
//! use it.
//!
//! Source of the rules: Azure's documentation of "Put Blob", "Put Block", "Put Block List" and "Get Blob".

use axum::{
    body::{Body, to_bytes},
    extract::{Path, Query, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures::TryStreamExt as _;
use serde::Deserialize;

use domain::id::BlobHash;

use super::{ActionsApi, JobIdentity, Refusal, caller};
use blobs::{ByteRange, Deposit, content_range};
use store::Blob;
use workflow::time::DAY_MS;

/// Blocks of one upload: Azure's own limit.
const BLOCKS: usize = 50_000;
/// Bytes of a list of blocks.
const BLOCK_LIST: usize = 8 << 20;

/// What is uploaded; it decides the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadKind {
    Cache,
    Artifact,
}

impl UploadKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Artifact => "artifact",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Cache, Self::Artifact].into_iter().find(|kind| kind.as_str() == text)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct StorageQuery {
    sig: String,
    comp: Option<String>,
    blockid: Option<String>,
}

impl ActionsApi {
    /// URL for the upload of a named cache or artifact.
    pub(super) fn upload_url(&self, base: &str, identity: &JobIdentity, kind: UploadKind, name: &str) -> String {
        let path = format!("/storage/{}/{}/upload", kind.as_str(), self.tokens.upload(identity, kind.as_str(), name));
        format!("{base}{path}?sig={}", self.tokens.path(identity, "put", &path))
    }

    /// URL for the download of stored bytes.
    pub(super) fn download_url(&self, base: &str, identity: &JobIdentity, sha256: &BlobHash, name: &str) -> String {
        let path = format!("/storage/blob/{sha256}/{name}");
        format!("{base}{path}?sig={}", self.tokens.path(identity, "get", &path))
    }

    /// What was uploaded under a name.
    pub(super) async fn uploaded(
        &self,
        identity: &JobIdentity,
        kind: UploadKind,
        name: &str,
    ) -> Result<Option<Blob>, Refusal> {
        let owner = owner(&self.tokens.upload(identity, kind.as_str(), name));
        Ok(self.store.blobs_of(&owner, 1).await?.into_iter().next())
    }

    fn limit(&self, kind: UploadKind) -> u64 {
        match kind {
            UploadKind::Cache => self.limits.cache_bytes,
            UploadKind::Artifact => self.limits.artifact_bytes,
        }
    }
}

/// Owner of uploaded bytes that belong to no cache or artifact yet.
fn owner(upload: &str) -> String {
    format!("upload:{upload}")
}

pub(super) async fn put(
    State(api): State<ActionsApi>,
    Path((kind, id, _)): Path<(String, String, String)>,
    Query(asked): Query<StorageQuery>,
    parts: Parts,
    body: Body,
) -> Result<Response, Refusal> {
    let identity = caller(&parts)?.identity;
    if !api.tokens.is_path(&asked.sig, &identity, "put", parts.uri.path()) {
        return Err(Refusal::unauthorized("the URL is not one that this job was given"));
    }
    let kind = UploadKind::parse(&kind).ok_or_else(|| Refusal::missing("nothing is uploaded here"))?;
    let limit = api.limit(kind);
    let (counting, counted) = (api.clone(), identity.clone());
    let bytes = |body: Body| {
        body.into_data_stream().map_err(std::io::Error::other).and_then(move |piece| {
            let within = counting.receives(&counted, piece.len() as u64);
            let refused = || {
                std::io::Error::other(
                    "this job sent more than one job may keep, or the pool has no room left: ask its operator",
                )
            };
            std::future::ready(if within { Ok(piece) } else { Err(refused()) })
        })
    };
    let now = api.now();
    let deposit = Deposit {
        kind: "application/octet-stream".into(),
        owner: owner(&id),
        public: false,
        now,
        expires_at: now.saturating_add(DAY_MS),
        allowed: None,
        limit,
    };
    match asked.comp.as_deref() {
        None => {
            forget(&api, &id).await?;
            api.blobs.put(bytes(body), deposit).await?;
        }
        Some("block") => {
            let block = asked.blockid.ok_or_else(|| Refusal::invalid("Put Block needs `blockid`"))?;
            api.blobs.stage(&id, &block, bytes(body), limit).await?;
        }
        Some("blocklist") => {
            let list =
                to_bytes(body, BLOCK_LIST).await.map_err(|_| Refusal::too_large("the block list is too long"))?;
            let blocks = block_list(&String::from_utf8_lossy(&list))?;
            forget(&api, &id).await?;
            let put = api.blobs.put_staged(&id, &blocks, deposit).await?;
            put.ok_or_else(|| {
                Refusal::new(StatusCode::BAD_REQUEST, "InvalidBlockList", "a block of the list is missing")
            })?;
        }
        Some(other) => return Err(Refusal::invalid(format!("comp={other} is not supported here"))),
    }
    let stamp = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let mut response = StatusCode::CREATED.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::from_static("\"0x1\""));
    headers.insert("x-ms-version", HeaderValue::from_static("2025-01-05"));
    headers.insert("x-ms-request-server-encrypted", HeaderValue::from_static("true"));
    if let Ok(stamp) = HeaderValue::from_str(&stamp) {
        headers.insert(header::LAST_MODIFIED, stamp);
    }
    Ok(response)
}

/// Removes an earlier upload of the same name.
async fn forget(api: &ActionsApi, upload: &str) -> Result<(), Refusal> {
    let owner = owner(upload);
    for earlier in api.store.blobs_of(&owner, 16).await? {
        api.blobs.delete(&earlier.sha256, &owner).await?;
    }
    Ok(())
}

/// Ids of `<Latest>`, `<Uncommitted>` and `<Committed>` elements in order. Base64 has nothing that XML escapes.
fn block_list(xml: &str) -> Result<Vec<String>, Refusal> {
    let mut blocks = Vec::new();
    let mut rest = xml;
    while let Some((_, after)) = rest.split_once('<') {
        let wrong = || Refusal::invalid("the block list is not valid XML");
        let (tag, after) = after.split_once('>').ok_or_else(wrong)?;
        rest = after;
        if matches!(tag, "Latest" | "Uncommitted" | "Committed") {
            let (id, after) = after.split_once('<').ok_or_else(wrong)?;
            blocks.push(id.trim().to_owned());
            rest = after.split_once('>').ok_or_else(wrong)?.1;
        }
        if blocks.len() > BLOCKS {
            return Err(Refusal::too_large("an upload has at most 50,000 blocks"));
        }
    }
    Ok(blocks)
}

pub(super) async fn get(
    State(api): State<ActionsApi>,
    Path((kind, sha256, _)): Path<(String, String, String)>,
    Query(asked): Query<StorageQuery>,
    parts: Parts,
) -> Result<Response, Refusal> {
    let identity = caller(&parts)?.identity;
    if kind != "blob" || !api.tokens.is_path(&asked.sig, &identity, "get", parts.uri.path()) {
        return Err(Refusal::unauthorized("the URL is not one that this job was given"));
    }
    let gone = || Refusal::missing("the bytes were removed meanwhile");
    let sha256: BlobHash = sha256.parse().map_err(|_| gone())?;
    let size = api.store.blob(&sha256).await?.first().ok_or_else(gone)?.size;
    // Azure's clients have a header of their own.
    let range = parts.headers.get("x-ms-range").or_else(|| parts.headers.get(header::RANGE));
    let part = match ByteRange::parse(range.and_then(|value| value.to_str().ok()), size) {
        ByteRange::Whole => None,
        ByteRange::Part(part) => Some(part),
        ByteRange::Unsatisfiable => {
            let reason = "the range lies beyond the bytes";
            return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "out_of_range", reason));
        }
    };
    let length = part.as_ref().map_or(size, |part| part.end - part.start);
    let body = api.blobs.get(&sha256, part.clone()).await?.ok_or_else(gone)?;
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::ETAG, HeaderValue::from_static("\"0x1\""));
    headers.insert("x-ms-blob-type", HeaderValue::from_static("BlockBlob"));
    let kind = if parts.uri.path().ends_with(".zip") { "application/zip" } else { "application/octet-stream" };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(part) = part {
        if let Ok(value) = HeaderValue::from_str(&content_range(&part, size)) {
            headers.insert(header::CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}
