//! Caches, version 2 of the protocol.
//!
//! Source of the rules: GitHub docs, "Dependency caching reference". An entry belongs to the ref of the run that saved it
//! and never changes; a run restores from its own ref first, then from those it is based on.

use axum::{Json, extract::State, http::HeaderMap};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ActionsApi, Authorized, EXISTS, JobIdentity, Refusal, base, storage::UploadKind};
use blobs::BlobError;
use domain::run::Millis;
use store::{Blob, Cache, CacheChange, CacheOutcome, CacheUse, Change, StoreError};
use workflow::time::DAY_MS;

/// Longest key, in bytes; GitHub's limit.
const KEY: usize = 512;
/// Keys of one look-up; GitHub's limit.
const KEYS: usize = 10;
/// Entries of one repository: a look-up reads those of a ref.
const ENTRIES: u64 = 10_000;
/// Entries read at once to make room.
const EVICTED: u32 = 100;

#[derive(Debug, Deserialize)]
pub(super) struct CacheRequest {
    key: String,
    version: String,
    #[serde(default, alias = "sizeBytes")]
    size_bytes: Option<Value>,
    #[serde(default, alias = "restoreKeys")]
    restore_keys: Vec<String>,
}

/// A number in the JSON form of protobuf: as text, or plain.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

impl ActionsApi {
    /// Looks up the entry for a key; an exact match comes first. The outcome is stored as part of the run.
    pub(super) async fn restore(
        &self,
        identity: &JobIdentity,
        keys: &[&str],
        version: &str,
    ) -> Result<Option<Cache>, StoreError> {
        if identity.repository.is_empty() {
            return Ok(None);
        }
        let now = self.now();
        let unused = now.saturating_sub(self.limits.cache_days.saturating_mul(DAY_MS));
        let found = self.best(identity, keys, version, unused).await?;
        let key = keys.first().copied().unwrap_or_default();
        let mut batch = vec![match &found {
            Some(entry) => used(identity, CacheOutcome::Hit, key, Some(entry), now),
            None => used(identity, CacheOutcome::Miss, key, None, now),
        }];
        batch.extend(found.iter().map(|entry| Change::Cache(CacheChange::Touch { id: entry.id, at: now })));
        self.store.commit(batch).await?;
        Ok(found)
    }

    /// By scope, then by key.
    async fn best(
        &self,
        identity: &JobIdentity,
        keys: &[&str],
        version: &str,
        since: Millis,
    ) -> Result<Option<Cache>, StoreError> {
        for scope in std::iter::once(&identity.reference).chain(&identity.bases) {
            for key in keys {
                let found = self.store.cache_for(&identity.repository, scope, version, key, since).await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// Deletes an entry and its bytes. Deleting one that is gone is harmless.
    ///
    /// # Errors
    /// The store or the bytes can't be written.
    pub async fn delete_cache(&self, entry: &Cache) -> Result<(), BlobError> {
        self.remove_cache(entry).await
    }

    pub(super) async fn remove_cache(&self, entry: &Cache) -> Result<(), BlobError> {
        self.store.commit(vec![Change::Cache(CacheChange::Remove { id: entry.id })]).await?;
        self.blobs.delete(&entry.sha256, &owner(entry.id)).await
    }

    /// Makes an uploaded blob an entry, then evicts old entries beyond the limit.
    pub(super) async fn keep_cache(
        &self,
        identity: &JobIdentity,
        key: &str,
        version: &str,
        blob: Blob,
    ) -> Result<u64, Refusal> {
        let id = self.store.next("caches").await?;
        let now = self.now();
        let entry = Cache {
            id,
            repository: identity.repository.clone(),
            scope: identity.reference.clone(),
            key: key.to_owned(),
            version: version.to_owned(),
            sha256: blob.sha256.clone(),
            size: blob.size,
            made_at: now,
            used_at: now,
        };
        // Its lifetime is that of the entry.
        let kept = Blob { owner: owner(id), expires_at: i64::MAX.unsigned_abs(), ..blob.clone() };
        let gone = Change::BlobGone { sha256: blob.sha256, owner: blob.owner };
        let saved = used(identity, CacheOutcome::Saved, key, Some(&entry), now);
        self.store.commit(vec![Change::Cache(CacheChange::Add(entry)), Change::Blob(kept), gone, saved]).await?;
        self.make_room(Some(&identity.repository), self.limits.cache_bytes).await?;
        Ok(id)
    }

    /// Removes entries of a repository, or of all, until they take no more than a limit.
    pub(super) async fn make_room(&self, repository: Option<&str>, limit: u64) -> Result<(), BlobError> {
        let mut total = self.store.caches_total(repository).await?;
        let mut more = match repository {
            Some(repository) => self.store.caches_number(repository).await?.saturating_sub(ENTRIES),
            None => 0,
        };
        while total > limit || more > 0 {
            let oldest = self.store.caches_least_used(repository, EVICTED).await?;
            if oldest.is_empty() {
                break;
            }
            for entry in oldest {
                if total <= limit && more == 0 {
                    break;
                }
                total = total.saturating_sub(entry.size);
                more = more.saturating_sub(1);
                self.remove_cache(&entry).await?;
            }
        }
        Ok(())
    }

    /// Why an attempt may not save this entry.
    pub(super) async fn saves(&self, identity: &JobIdentity, key: &str, version: &str) -> Result<(), Refusal> {
        let refused = |reason: &str| Refusal::new(axum::http::StatusCode::FORBIDDEN, "permission_denied", reason);
        if key.is_empty() || key.len() > KEY || key.contains(',') || version.is_empty() || version.len() > KEY {
            return Err(Refusal::invalid("a cache's key has 1 to 512 bytes and no comma"));
        }
        if identity.repository.is_empty() {
            return Err(refused("the job has no repository, so no caches"));
        }
        if !identity.trusted {
            return Err(refused("caches are read-only here: the commit is not in the maintainers' state"));
        }
        match self.saved(identity, key, version).await? {
            Some(_) => Err(Refusal::exists(format!("cache {key} exists already; entries never change"))),
            None => Ok(()),
        }
    }

    /// The entry that another job saved under just this key.
    async fn saved(&self, identity: &JobIdentity, key: &str, version: &str) -> Result<Option<Cache>, StoreError> {
        let found = self.store.cache_for(&identity.repository, &identity.reference, version, key, 0).await?;
        Ok(found.filter(|entry| entry.key == key))
    }
}

fn used(identity: &JobIdentity, outcome: CacheOutcome, key: &str, entry: Option<&Cache>, at: Millis) -> Change {
    Change::Cache(CacheChange::Use(CacheUse {
        run: identity.run.clone(),
        job: identity.job.clone(),
        attempt: identity.attempt,
        outcome,
        // GitHub sets no limit for the keys of a look-up.
        key: key.chars().take(KEY).collect(),
        found: entry.map(|entry| entry.key.clone()),
        size: entry.map_or(0, |entry| entry.size),
        at,
    }))
}

/// Owner of an entry's bytes.
fn owner(id: u64) -> String {
    format!("cache:{id}")
}

/// Name of an upload.
fn name(entry: &CacheRequest) -> String {
    format!("{}:{} {}", entry.key.len(), entry.key, entry.version)
}

pub(super) async fn create(
    State(api): State<ActionsApi>,
    Authorized(identity, _): Authorized,
    headers: HeaderMap,
    Json(entry): Json<CacheRequest>,
) -> Result<Json<Value>, Refusal> {
    if let Err(refusal) = api.saves(&identity, &entry.key, &entry.version).await {
        // The toolkit makes a warning of a message, and without one an information that another job has the key. Neither is
        // an error of the job.
        return Ok(Json(match refusal.code {
            EXISTS => json!({ "ok": false }),
            _ => json!({ "ok": false, "message": refusal.reason }),
        }));
    }
    let url = api.upload_url(&base(&headers), &identity, UploadKind::Cache, &name(&entry));
    Ok(Json(json!({ "ok": true, "signed_upload_url": url })))
}

pub(super) async fn finalize(
    State(api): State<ActionsApi>,
    Authorized(identity, _): Authorized,
    Json(entry): Json<CacheRequest>,
) -> Result<Json<Value>, Refusal> {
    match save(&api, &identity, &entry).await {
        Ok(id) => Ok(Json(json!({ "ok": true, "entry_id": id.to_string() }))),
        // Another job was faster, which is nothing to warn of: what it saved is there.
        Err(refusal) if refusal.code == EXISTS => {
            let saved = api.saved(&identity, &entry.key, &entry.version).await?.ok_or(refusal)?;
            api.finish_upload(&identity, UploadKind::Cache, &name(&entry));
            Ok(Json(json!({ "ok": true, "entry_id": saved.id.to_string(), "existed": true })))
        }
        Err(refusal) => Err(refusal),
    }
}

async fn save(api: &ActionsApi, identity: &JobIdentity, entry: &CacheRequest) -> Result<u64, Refusal> {
    api.saves(identity, &entry.key, &entry.version).await?;
    let uploaded = api.uploaded(identity, UploadKind::Cache, &name(entry)).await?;
    let blob = uploaded.ok_or_else(|| Refusal::missing("nothing was uploaded for this entry"))?;
    if entry.size_bytes.as_ref().and_then(number).is_some_and(|size| size != blob.size) {
        return Err(Refusal::invalid(format!("{} bytes came in, others were announced", blob.size)));
    }
    let id = api.keep_cache(identity, &entry.key, &entry.version, blob).await?;
    api.finish_upload(identity, UploadKind::Cache, &name(entry));
    Ok(id)
}

pub(super) async fn find(
    State(api): State<ActionsApi>,
    Authorized(identity, _): Authorized,
    headers: HeaderMap,
    Json(entry): Json<CacheRequest>,
) -> Result<Json<Value>, Refusal> {
    let keys: Vec<&str> =
        std::iter::once(&entry.key).chain(&entry.restore_keys).map(String::as_str).take(KEYS).collect();
    let Some(found) = api.restore(&identity, &keys, &entry.version).await? else {
        return Ok(Json(json!({ "ok": false })));
    };
    let url = api.download_url(&base(&headers), &identity, &found.sha256, "cache");
    Ok(Json(json!({ "ok": true, "signed_download_url": url, "matched_key": found.key })))
}
