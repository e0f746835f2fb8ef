//! Caches, version 1 of the protocol, for actions and tools without version 2. The entries are the same.

use std::collections::{BTreeMap, HashMap};

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ActionsApi, Authorized, RESERVED, Refusal, base, storage::owner};
use blobs::Deposit;
use workflow::time::DAY_MS;

/// Most chunks of one upload.
const CHUNKS: usize = 10_000;

/// An unfinished upload. A restart loses it: its upload fails, and the job goes on without the cache.
#[derive(Debug)]
pub(super) struct ReservedCache {
    /// The attempt.
    identity: String,
    key: String,
    version: String,
    /// First byte and bytes of each chunk.
    chunks: BTreeMap<u64, u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LookupQuery {
    keys: String,
    version: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ReserveRequest {
    key: String,
    version: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct CommitRequest {
    size: Option<u64>,
}

impl ReservedCache {
    /// The attempt that reserved it.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }
}

/// Makes room for one more: the attempt that has most loses its oldest.
fn make_room(reserved: &mut BTreeMap<u64, ReservedCache>) {
    if reserved.len() < RESERVED {
        return;
    }
    let mut of_attempt: HashMap<&str, (usize, u64)> = HashMap::new();
    for (id, cache) in reserved.iter() {
        of_attempt.entry(&cache.identity).or_insert((0, *id)).0 += 1;
    }
    let most = of_attempt.into_values().max_by_key(|(number, oldest)| (*number, std::cmp::Reverse(*oldest)));
    if let Some((_, oldest)) = most {
        reserved.remove(&oldest);
    }
}

impl ActionsApi {
    /// Name of an upload's parts.
    fn parts(id: u64) -> String {
        format!("reserved-{id}")
    }

    fn with_reserved<T>(
        &self,
        identity: &str,
        id: u64,
        with: impl FnOnce(&mut ReservedCache) -> T,
    ) -> Result<T, Refusal> {
        let mut reserved = self.reserved.lock();
        let found = reserved.get_mut(&id).filter(|entry| entry.identity == identity);
        found.map(with).ok_or_else(|| Refusal::missing("this job reserved no such cache"))
    }
}

pub(super) async fn find(
    State(api): State<ActionsApi>,
    Authorized(identity, _): Authorized,
    Query(wanted): Query<LookupQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let keys: Vec<&str> = wanted.keys.split(',').take(10).collect();
    let Some(found) = api.restore(&identity, &keys, &wanted.version).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let url = api.download_url(&base(&headers), &identity, &found.sha256, "cache");
    Ok(Json(json!({ "result": "hit", "archiveLocation": url, "cacheKey": found.key, "scope": found.scope }))
        .into_response())
}

pub(super) async fn reserve(
    State(api): State<ActionsApi>,
    authorized: Authorized,
    Json(entry): Json<ReserveRequest>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let identity = authorized.0.clone();
    api.saves(&identity, &entry.key, &entry.version).await?;
    let id = api.store.next("reserved caches").await?;
    api.begin_upload(&authorized.caller(), &ActionsApi::parts(id))?;
    let mut reserved = api.reserved.lock();
    make_room(&mut reserved);
    let ReserveRequest { key, version } = entry;
    reserved.insert(id, ReservedCache { identity: identity.text(), key, version, chunks: BTreeMap::new() });
    Ok((StatusCode::CREATED, Json(json!({ "cacheId": id }))))
}

pub(super) async fn chunk(
    State(api): State<ActionsApi>,
    authorized: Authorized,
    Path(id): Path<u64>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let identity = authorized.0.clone();
    let chunks = api.with_reserved(&identity.text(), id, |entry| entry.chunks.len())?;
    if chunks >= CHUNKS {
        return Err(Refusal::too_large("an upload has at most 10,000 chunks"));
    }
    let range = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    let start = start.ok_or_else(|| Refusal::invalid("a chunk needs `Content-Range: bytes FROM-TO/*`"))?;
    let (caller, upload) = (authorized.caller(), ActionsApi::parts(id));
    api.begin_upload(&caller, &upload)?;
    let bytes = api.counted(caller, upload, body);
    let limit = api.limits.cache_bytes;
    let size = api.blobs.stage(&ActionsApi::parts(id), &start.to_string(), bytes, limit).await?;
    api.with_reserved(&identity.text(), id, |entry| entry.chunks.insert(start, size))?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn commit(
    State(api): State<ActionsApi>,
    Authorized(identity, _): Authorized,
    Path(id): Path<u64>,
    Json(committed): Json<CommitRequest>,
) -> Result<StatusCode, Refusal> {
    let (key, version, chunks) = api.with_reserved(&identity.text(), id, |entry| {
        (entry.key.clone(), entry.version.clone(), entry.chunks.clone())
    })?;
    api.saves(&identity, &key, &version).await?;
    let mut end = 0;
    for (start, size) in &chunks {
        if *start != end {
            return Err(Refusal::invalid("the chunks leave a gap, or lie over each other"));
        }
        end += size;
    }
    if committed.size.is_some_and(|size| size != end) {
        return Err(Refusal::invalid(format!("{end} bytes came in, others were announced")));
    }
    let parts: Vec<String> = chunks.keys().map(ToString::to_string).collect();
    let now = api.now();
    let deposit = Deposit {
        kind: "application/octet-stream".into(),
        owner: owner(&ActionsApi::parts(id)),
        public: false,
        now,
        expires_at: now.saturating_add(DAY_MS),
        allowed: None,
        limit: api.limits.cache_bytes,
    };
    let put = api.blobs.put_staged(&ActionsApi::parts(id), &parts, deposit).await?;
    let put = put.ok_or_else(|| Refusal::missing("a chunk was removed meanwhile"))?;
    api.keep_cache(&identity, &key, &version, put.blob().clone()).await?;
    api.reserved.lock().remove(&id);
    api.uploads.finish(&identity, &ActionsApi::parts(id));
    Ok(StatusCode::NO_CONTENT)
}
