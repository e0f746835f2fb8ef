//! Caches by version 1 of the protocol, for actions and tools that do not speak the newer one. The entries are the same.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::TryStreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Authorized, COUNTED, DAY, Origin, Refusal, base};
use blobs::Deposit;

/// Chunks of one upload.
const CHUNKS: usize = 10_000;

/// An entry that is being uploaded. Lost by a restart, its upload fails, and its job goes on without.
#[derive(Debug)]
pub(super) struct Reserved {
    /// The attempt.
    who: String,
    key: String,
    version: String,
    /// First byte and bytes of each chunk.
    chunks: BTreeMap<u64, u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    keys: String,
    version: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    key: String,
    version: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Committed {
    size: Option<u64>,
}

impl Origin {
    /// Name of an upload's parts.
    fn parts(id: u64) -> String {
        format!("reserved-{id}")
    }

    fn with_reserved<T>(&self, who: &str, id: u64, with: impl FnOnce(&mut Reserved) -> T) -> Result<T, Refusal> {
        let mut reserved = self.reserved.lock();
        let found = reserved.get_mut(&id).filter(|entry| entry.who == who);
        found.map(with).ok_or_else(|| Refusal::missing("this job reserved no such cache"))
    }
}

pub(super) async fn find(
    State(origin): State<Origin>,
    Authorized(who): Authorized,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let keys: Vec<&str> = wanted.keys.split(',').take(10).collect();
    let Some(found) = origin.restore(&who, &keys, &wanted.version).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let url = origin.download_url(&base(&headers), &who, &found.sha256, "cache");
    Ok(Json(json!({ "result": "hit", "archiveLocation": url, "cacheKey": found.key, "scope": found.scope }))
        .into_response())
}

pub(super) async fn reserve(
    State(origin): State<Origin>,
    Authorized(who): Authorized,
    Json(entry): Json<Entry>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    origin.saves(&who, &entry.key, &entry.version).await?;
    let id = origin.store.next("reserved caches").await?;
    let mut reserved = origin.reserved.lock();
    if reserved.len() >= COUNTED {
        reserved.pop_first();
    }
    let Entry { key, version } = entry;
    reserved.insert(id, Reserved { who: who.text(), key, version, chunks: BTreeMap::new() });
    Ok((StatusCode::CREATED, Json(json!({ "cacheId": id }))))
}

pub(super) async fn chunk(
    State(origin): State<Origin>,
    Authorized(who): Authorized,
    Path(id): Path<u64>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    origin.with_reserved(&who.text(), id, |_| ())?;
    let range = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    let start = start.ok_or_else(|| Refusal::invalid("a chunk needs `Content-Range: bytes FROM-TO/*`"))?;
    let (counting, counted) = (origin.clone(), who.clone());
    let bytes = body.into_data_stream().map_err(std::io::Error::other).and_then(move |piece| {
        let within = counting.receives(&counted, piece.len() as u64);
        let refused = || std::io::Error::other("this job sent more than one job may keep");
        std::future::ready(if within { Ok(piece) } else { Err(refused()) })
    });
    let limit = origin.limits.cache_bytes;
    let size = origin.blobs.stage(&Origin::parts(id), &start.to_string(), bytes, limit).await?;
    origin.with_reserved(&who.text(), id, |entry| {
        if entry.chunks.len() >= CHUNKS {
            return Err(Refusal::too_large("an upload has at most 10,000 chunks"));
        }
        entry.chunks.insert(start, size);
        Ok(StatusCode::NO_CONTENT)
    })?
}

pub(super) async fn commit(
    State(origin): State<Origin>,
    Authorized(who): Authorized,
    Path(id): Path<u64>,
    Json(committed): Json<Committed>,
) -> Result<StatusCode, Refusal> {
    let (key, version, chunks) = origin
        .with_reserved(&who.text(), id, |entry| (entry.key.clone(), entry.version.clone(), entry.chunks.clone()))?;
    origin.saves(&who, &key, &version).await?;
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
    let now = origin.now();
    let deposit = Deposit {
        kind: "application/octet-stream".into(),
        owner: format!("upload:{}", Origin::parts(id)),
        public: false,
        now,
        expires_at: now.saturating_add(DAY),
        allowed: Vec::new(),
        limit: origin.limits.cache_bytes,
    };
    let put = origin.blobs.put_staged(&Origin::parts(id), &parts, deposit).await?;
    let put = put.ok_or_else(|| Refusal::missing("a chunk was removed meanwhile"))?;
    origin.keep_cache(&who, &key, &version, put.blob().clone()).await?;
    origin.reserved.lock().remove(&id);
    Ok(StatusCode::NO_CONTENT)
}
