//! Repositories whose pushes start workflows: listed, added and removed by the operator.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use bytes::Bytes;
use nostr::{Kind, nips::nip01::Coordinate};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Problem, Refusal, Web,
    auth::{Action, Caller},
};
use domain::run::Millis;
use store::{CONFIGURATION, FollowChange, FollowedRepository, Reader};

/// A repository that is followed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FollowedView {
    /// `30617:KEY:NAME`.
    repository: String,
    /// The key that added it, 64 hex, or `configuration`.
    added_by: String,
    /// When, in milliseconds since the Unix epoch.
    added_at: Millis,
    /// Whether its announcement was found, so that its pushes are heard.
    found: bool,
    /// Id of the newest state (30618) that counted; empty: none was found yet.
    state: String,
}

impl From<FollowedRepository> for FollowedView {
    fn from(row: FollowedRepository) -> Self {
        Self {
            found: !row.maintainers.is_empty(),
            repository: row.address,
            added_by: row.added_by,
            added_at: row.added_at,
            state: row.state_event,
        }
    }
}

/// A repository to follow.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewFollowed {
    /// `30617:KEY:NAME`, the key in hex.
    repository: String,
}

/// Repositories whose pushes start workflows. For the operator.
#[utoipa::path(get, path = "/api/followed", tag = "pool", responses(
    (status = 200, body = [FollowedView]), (status = 401, body = Problem), (status = 403, body = Problem),
))]
pub(super) async fn list(State(web): State<Web>, caller: Caller) -> Result<Json<Vec<FollowedView>>, Refusal> {
    caller.signed()?;
    for_operator(&caller)?;
    Ok(Json(web.store.followed_repositories().await?.into_iter().map(FollowedView::from).collect()))
}

/// Lets pushes to a repository start workflows from now on. For the operator. The signature must cover the body (NIP-98,
/// `payload`).
#[utoipa::path(post, path = "/api/followed", tag = "pool", request_body = NewFollowed, responses(
    (status = 202, description = "It is followed"), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem),
))]
pub(super) async fn add(State(web): State<Web>, caller: Caller, body: Bytes) -> Result<StatusCode, Refusal> {
    let by = caller.signed_with(&body)?.to_owned();
    for_operator(&caller)?;
    let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
    let NewFollowed { repository: address } = serde_json::from_slice(&body)
        .map_err(|error| bad(format!("send {{\"repository\": \"30617:KEY:NAME\"}}: {error}")))?;
    let parsed = Coordinate::parse(&address).ok();
    let parsed = parsed.filter(|one| one.kind == Kind::GitRepoAnnouncement && !one.identifier.is_empty());
    let Some(Coordinate { public_key, identifier, .. }) = parsed else {
        return Err(bad(format!("`{address}` is no address of a repository: write 30617:KEY:NAME, the key in hex")));
    };
    let address = format!("30617:{public_key}:{identifier}");
    caller.spend(&web, Action::Decides)?;
    let at = (web.settings.now)();
    web.store.commit(vec![FollowChange::Add { address, by, at }.into()]).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Pushes to a repository start nothing any more. For the operator.
#[utoipa::path(delete, path = "/api/followed/{address}", tag = "pool", params(("address" = String, Path)), responses(
    (status = 202, description = "It is followed no more"), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
))]
pub(super) async fn remove(
    State(web): State<Web>,
    caller: Caller,
    Path(address): Path<String>,
) -> Result<StatusCode, Refusal> {
    caller.signed()?;
    for_operator(&caller)?;
    let Some((followed, _)) = web.store.followed_repository(&address).await? else {
        let reason = "this repository is not followed: `longshore repository list` shows those that are";
        return Err(Refusal::new(StatusCode::NOT_FOUND, reason));
    };
    if followed.added_by == CONFIGURATION {
        let reason = "the coordinator's configuration names this repository: take it out of triggers.repositories";
        return Err(Refusal::new(StatusCode::CONFLICT, reason));
    }
    caller.spend(&web, Action::Decides)?;
    web.store.commit(vec![FollowChange::Remove { address }.into()]).await?;
    Ok(StatusCode::ACCEPTED)
}

fn for_operator(caller: &Caller) -> Result<(), Refusal> {
    match caller.reader {
        Reader::Operator => Ok(()),
        _ => Err(Refusal::new(StatusCode::FORBIDDEN, "only the operator may say which repositories are followed")),
    }
}
