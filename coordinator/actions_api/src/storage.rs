//! Uploads and downloads of bytes in the protocol of Azure's blob service, as far as GitHub's toolkit and similar clients
//! use it.
//!
//! Source of the rules: Azure's documentation of "Put Blob", "Put Block", "Put Block List" and "Get Blob".

use std::collections::HashSet;

use axum::{
    body::{Body, to_bytes},
    extract::{Path, Query, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use domain::id::BlobHash;

use super::{ActionsApi, Caller, JobIdentity, Refusal, caller};
use blobs::{BlobError, ByteRange, Deposit, content_range};
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

    /// Counts an upload from the moment that it has a name.
    pub(super) fn announce_upload(&self, caller: &Caller, kind: UploadKind, name: &str) -> Result<(), Refusal> {
        let upload = self.tokens.upload(&caller.identity, kind.as_str(), name);
        Ok(self.uploads.begin(&caller.identity, &caller.held, &upload)?)
    }

    /// Notes that what was uploaded under a name is kept, and no upload any more.
    pub(super) fn finish_upload(&self, identity: &JobIdentity, kind: UploadKind, name: &str) {
        self.uploads.finish(identity, &self.tokens.upload(identity, kind.as_str(), name));
    }

    /// Removes an earlier upload of the same name.
    pub(super) async fn forget_upload(&self, upload: &str) -> Result<(), BlobError> {
        let owner = owner(upload);
        for earlier in self.store.blobs_of(&owner, 16).await? {
            self.blobs.delete(&earlier.sha256, &owner).await?;
        }
        Ok(())
    }

    fn limit(&self, kind: UploadKind) -> u64 {
        match kind {
            UploadKind::Cache => self.limits.cache_bytes,
            UploadKind::Artifact => self.limits.artifact_bytes,
        }
    }
}

/// Owner of uploaded bytes that belong to no cache or artifact yet.
pub(super) fn owner(upload: &str) -> String {
    format!("upload:{upload}")
}

pub(super) async fn put(
    State(api): State<ActionsApi>,
    Path((kind, id, _)): Path<(String, String, String)>,
    Query(asked): Query<StorageQuery>,
    parts: Parts,
    body: Body,
) -> Result<Response, Refusal> {
    let caller = caller(&parts)?;
    if !api.tokens.is_path(&asked.sig, &caller.identity, "put", parts.uri.path()) {
        return Err(Refusal::unauthorized("the URL is not one that this job was given"));
    }
    let kind = UploadKind::parse(&kind).ok_or_else(|| Refusal::missing("nothing is uploaded here"))?;
    let limit = api.limit(kind);
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
    api.begin_upload(&caller, &id)?;
    match asked.comp.as_deref() {
        None => {
            api.forget_upload(&id).await?;
            api.blobs.put(api.counted(caller, id, body), deposit).await?;
        }
        Some("block") => {
            let block = asked.blockid.ok_or_else(|| Refusal::invalid("Put Block needs `blockid`"))?;
            api.blobs.stage(&id, &block, api.counted(caller, id.clone(), body), limit).await?;
        }
        Some("blocklist") => {
            let list =
                to_bytes(body, BLOCK_LIST).await.map_err(|_| Refusal::too_large("the block list is too long"))?;
            let blocks = block_list(&String::from_utf8_lossy(&list))?;
            api.forget_upload(&id).await?;
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

/// Ids of `<Latest>`, `<Uncommitted>` and `<Committed>` elements in order. Base64 has nothing that XML escapes. No client
/// names a block twice: its bytes would be written twice, and were counted once.
fn block_list(xml: &str) -> Result<Vec<String>, Refusal> {
    let (mut blocks, mut known) = (Vec::new(), HashSet::new());
    let mut rest = xml;
    while let Some((_, after)) = rest.split_once('<') {
        let wrong = || Refusal::invalid("the block list is not valid XML");
        let (tag, after) = after.split_once('>').ok_or_else(wrong)?;
        rest = after;
        if matches!(tag, "Latest" | "Uncommitted" | "Committed") {
            let (id, after) = after.split_once('<').ok_or_else(wrong)?;
            let id = id.trim();
            if !known.insert(id) {
                return Err(Refusal::invalid("the block list names a block twice"));
            }
            blocks.push(id.to_owned());
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
