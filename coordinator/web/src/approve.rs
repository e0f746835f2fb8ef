//! Approves and rejects runs that are held back, and jobs that wait for an environment's approval.

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
    run_lookup,
};
use domain::id::JobKey;
use domain::run::{ApprovalError, ApprovalVerdict};

/// Most characters of a comment.
const LONGEST: usize = 1000;

/// A decision about what waits for an approval: the run itself, or jobs of it. Without job and environment it is about all
/// that the signer may decide.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Review {
    /// Key of a job, or its id.
    #[serde(default)]
    job: Option<String>,
    /// Name of an environment.
    #[serde(default)]
    environment: Option<String>,
    /// `approved` or `rejected`.
    #[schema(value_type = String)]
    verdict: ApprovalVerdict,
    /// Comment, stored with the run.
    #[serde(default)]
    comment: String,
}

/// The outcome.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Reviewed {
    /// Keys of the jobs; an empty one stands for the run itself.
    #[schema(value_type = Vec<String>)]
    jobs: Vec<JobKey>,
}

/// Approves a run that is held back, or jobs that wait for an approval; or rejects them, which fails them. For the
/// repository's maintainers, or the approvers of the environment. The signature must cover the body (NIP-98, `payload`).
/// An approval of a run is for its commit and its workflow file alone.
#[utoipa::path(post, path = "/api/runs/{id}/approve", tag = "runs", params(("id" = String, Path)), request_body = Review,
    responses(
        (status = 200, body = Reviewed), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
    ),
)]
pub(super) async fn approve(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Reviewed>, Refusal> {
    let key = caller.signed_with(&body)?.to_owned();
    let state = run_lookup::find(&web, &caller, &id).await?;
    let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
    let Review { job, environment, verdict, comment } = serde_json::from_slice(&body)
        .map_err(|error| bad(format!("send {{\"environment\": …, \"verdict\": \"approved\"}}: {error}")))?;
    if comment.chars().count() > LONGEST {
        return Err(bad(format!("the comment is longer than {LONGEST} characters")));
    }
    let jobs = state.decidable(&key, job.as_deref(), environment.as_deref()).map_err(|why| {
        let status = match why {
            ApprovalError::NothingWaits(_) => StatusCode::CONFLICT,
            ApprovalError::NotAsked(..) => StatusCode::FORBIDDEN,
        };
        Refusal::new(status, why.to_string())
    })?;
    caller.spend(&web, Action::Decides)?;
    let mut decided = Vec::new();
    for job in jobs {
        if web.control.decide(&state.id, &job, verdict, &key, &comment).await? {
            decided.push(job);
        }
    }
    if decided.is_empty() {
        return Err(Refusal::new(StatusCode::CONFLICT, "somebody else decided meanwhile"));
    }
    Ok(Json(Reviewed { jobs: decided }))
}
