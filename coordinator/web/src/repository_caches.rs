//! Caches of a repository over the API: what jobs saved for later jobs, listed and deleted.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Problem, Refusal, Web,
    auth::{Action, Caller},
    repository_values::may_manage,
};
use domain::run::Millis;
use store::Cache;

/// Most entries of an answer, and of one deletion.
const SHOWN: u32 = 1000;

/// An entry.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RepositoryCache {
    pub(super) id: u64,
    pub(super) key: String,
    /// Full ref of the run that saved it.
    pub(super) scope: String,
    /// Bytes.
    pub(super) size: u64,
    pub(super) made_at: Millis,
    /// When it was last saved or restored.
    pub(super) used_at: Millis,
}

/// Which entries are to go: one by its id, or those of a key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Deletion {
    #[serde(default)]
    id: Option<u64>,
    /// The whole key.
    #[serde(default)]
    key: Option<String>,
    /// Only those that runs of this ref saved.
    #[serde(default)]
    scope: Option<String>,
}

/// What was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deleted {
    caches: Vec<RepositoryCache>,
}

/// What jobs of a repository saved for later jobs, the last used first; at most 1000. For its owner and maintainers.
#[utoipa::path(get, path = "/api/repositories/{address}/caches", tag = "repositories",
    params(("address" = String, Path, description = "30617:KEY:NAME")),
    responses(
        (status = 200, body = Vec<RepositoryCache>), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 503, body = Problem),
    ))]
pub(super) async fn list(
    State(web): State<Web>,
    caller: Caller,
    Path(address): Path<String>,
) -> Result<Json<Vec<RepositoryCache>>, Refusal> {
    may_manage(&web, &address, caller.signed()?).await?;
    Ok(Json(listed(&web, &address).await?))
}

pub(super) async fn listed(web: &Web, address: &str) -> Result<Vec<RepositoryCache>, Refusal> {
    Ok(web.store.caches_of(address, SHOWN).await?.into_iter().map(RepositoryCache::from).collect())
}

/// Deletes caches of a repository. For its owner and maintainers. The signature must cover the body (NIP-98, `payload`)
/// and is good once.
#[utoipa::path(post, path = "/api/repositories/{address}/caches/delete", tag = "repositories", request_body = Deletion,
    params(("address" = String, Path, description = "30617:KEY:NAME")),
    responses(
        (status = 200, body = Deleted), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem),
        (status = 503, body = Problem),
    ))]
pub(super) async fn delete(
    State(web): State<Web>,
    caller: Caller,
    Path(address): Path<String>,
    body: Bytes,
) -> Result<Json<Deleted>, Refusal> {
    let by = caller.signed_with(&body)?.to_owned();
    let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
    let Deletion { id, key, scope } =
        serde_json::from_slice(&body).map_err(|error| bad(format!("send {{\"id\": …}} or {{\"key\": …}}: {error}")))?;
    if id.is_none() && key.is_none() {
        return Err(bad("name the caches by `id` or by `key`".into()));
    }
    may_manage(&web, &address, &by).await?;
    caller.spend(&web, Action::Decides)?;
    let meant = |one: &Cache| {
        id.is_none_or(|id| one.id == id)
            && key.as_ref().is_none_or(|key| one.key == *key)
            && scope.as_ref().is_none_or(|scope| one.scope == *scope)
    };
    let mut deleted = Vec::new();
    for one in web.store.caches_of(&address, u32::MAX).await?.into_iter().filter(meant).take(SHOWN as usize) {
        web.control.delete_cache(&one).await?;
        deleted.push(RepositoryCache::from(one));
    }
    match deleted.is_empty() {
        true => Err(Refusal::new(StatusCode::NOT_FOUND, "there is no such cache: it may have made room for others")),
        false => {
            tracing::info!(repository = address, by, number = deleted.len(), "caches are deleted");
            Ok(Json(Deleted { caches: deleted }))
        }
    }
}

impl From<Cache> for RepositoryCache {
    fn from(one: Cache) -> Self {
        let Cache { id, key, scope, size, made_at, used_at, .. } = one;
        Self { id, key, scope, size, made_at, used_at }
    }
}
