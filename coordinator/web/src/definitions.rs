//! Workflow definitions over the API: their versions, the difference between two, a check of a text before it is signed,
//! and the publication of a signed one.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use bytes::Bytes;
use nostr::{Event, JsonUtil};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{IntoParams, ToSchema};
use workflow::{
    diagnostic::Diagnostic,
    dialect::{outline::Outline, surroundings::Surroundings},
    plan::Dialect,
};

use super::{
    DefinitionOutcome, QueryParams, Refusal, Web,
    auth::Caller,
    diff::{self, DiffLine},
    request_limits::{self, Client},
};
use domain::run::Millis;
use store::DefinitionRow;

/// Most bytes of a text to check.
const LONGEST: usize = 128 * 1024;

/// A version of a workflow definition.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DefinitionView {
    /// Id of its event (kind 35417), 64 hex.
    pub(super) event: String,
    pub(super) repository: String,
    /// Path of the workflow file that it replaces.
    pub(super) path: String,
    /// 64 hex.
    pub(super) author: String,
    /// Unix seconds, by its author's clock.
    pub(super) created_at: u64,
    /// SHA-256 of its text, hex.
    pub(super) sha256: String,
    /// Bytes of its text.
    pub(super) size: u64,
    /// It withdraws the definition of the path.
    pub(super) withdrawn: bool,
    /// It is the version in force for its path.
    pub(super) in_force: bool,
    /// When the pool received it.
    pub(super) seen_at: Millis,
}

/// A version with its text.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DefinitionText {
    definition: DefinitionView,
    text: String,
    /// The event, as NIP-01 writes it.
    #[schema(value_type = Object)]
    signed: serde_json::Value,
}

/// The difference between two versions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DefinitionDiff {
    /// Event of the older one; none: it is the first.
    from: Option<String>,
    /// Event of the newer one.
    to: String,
    lines: Vec<DiffLine>,
}

/// Which versions are compared.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct DiffQuery {
    /// Event of the version to compare with; without it the one before.
    from: Option<String>,
}

/// A text to check.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft {
    /// Address of the repository; with it the answer has the tags to sign.
    repository: Option<String>,
    /// Path of the workflow file.
    path: String,
    /// Its text.
    text: String,
    /// Withdraw the definition of the path; there is no text then.
    #[serde(default)]
    withdraw: bool,
}

/// Findings about a text, and the jobs it would run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Preview {
    pub(super) findings: Vec<Finding>,
    /// Missing if there is an error.
    #[schema(value_type = Option<Object>)]
    pub(super) outline: Option<Outline>,
    /// Tags of the event of kind 35417 to sign; its content is the text.
    tags: Option<Vec<Vec<String>>>,
}

/// A finding about a file.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Finding {
    /// `error` or `warning`.
    pub(super) level: &'static str,
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
    pub(super) message: String,
    /// How to fix it; may be empty.
    pub(super) help: String,
}

/// A signed definition.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct SignedDefinition {
    /// As NIP-01 writes it.
    #[schema(value_type = Object)]
    event: serde_json::Value,
}

/// A definition that was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// Its id.
    event: String,
    /// Relays that it is sent to.
    relays: Vec<String>,
}

impl DefinitionView {
    fn of(row: DefinitionRow, in_force: bool) -> Self {
        Self {
            event: row.event,
            repository: row.repository,
            path: row.path,
            author: row.author,
            created_at: row.made_at,
            sha256: row.sha256,
            size: row.size,
            withdrawn: row.withdrawn,
            in_force,
            seen_at: row.seen_at,
        }
    }
}

impl From<Diagnostic> for Finding {
    fn from(found: Diagnostic) -> Self {
        Self {
            level: found.severity.as_str(),
            line: found.span.line,
            column: found.span.column,
            message: found.message,
            help: found.help.unwrap_or_default(),
        }
    }
}

/// Versions of a repository's workflow definitions by owner and maintainers, by path, the newest first.
#[utoipa::path(get, path = "/api/repositories/{address}/definitions", tag = "definitions",
    params(("address" = String, Path, description = "30617:KEY:NAME")),
    responses((status = 200, body = [DefinitionView])))]
pub(super) async fn list(
    State(web): State<Web>,
    caller: Caller,
    Path(address): Path<String>,
) -> Result<Json<Vec<DefinitionView>>, Refusal> {
    Ok(Json(versions(&web, &caller, &address).await?))
}

pub(super) async fn versions(web: &Web, caller: &Caller, address: &str) -> Result<Vec<DefinitionView>, Refusal> {
    let found = web.control.definitions(address, &caller.reader).await?;
    Ok(found.into_iter().map(|(row, in_force)| DefinitionView::of(row, in_force)).collect())
}

/// One version with its text and its event.
#[utoipa::path(get, path = "/api/definitions/{event}", tag = "definitions", params(("event" = String, Path)),
    responses((status = 200, body = DefinitionText), (status = 404, body = super::Problem)))]
pub(super) async fn one(
    State(web): State<Web>,
    caller: Caller,
    Path(event): Path<String>,
) -> Result<Json<DefinitionText>, Refusal> {
    let row = find(&web, &caller, &event).await?;
    let signed: serde_json::Value = serde_json::from_str(&row.signed)?;
    let text = text(&row);
    let all = web.control.definitions(&row.repository, &caller.reader).await?;
    let in_force = all.iter().any(|(other, counts)| *counts && other.event == row.event);
    Ok(Json(DefinitionText { definition: DefinitionView::of(row, in_force), text, signed }))
}

/// The difference of a version to another one of the same path.
#[utoipa::path(get, path = "/api/definitions/{event}/diff", tag = "definitions",
    params(("event" = String, Path), DiffQuery), responses(
    (status = 200, body = DefinitionDiff), (status = 400, body = super::Problem), (status = 404, body = super::Problem),
))]
pub(super) async fn diff(
    State(web): State<Web>,
    caller: Caller,
    client: Client,
    Path(event): Path<String>,
    QueryParams(DiffQuery { from }): QueryParams<DiffQuery>,
) -> Result<Json<DefinitionDiff>, Refusal> {
    let newer = find(&web, &caller, &event).await?;
    let older = match &from {
        Some(from) => Some(find(&web, &caller, from).await?),
        None => match before(&versions(&web, &caller, &newer.repository).await?, &newer.path, &newer.event) {
            Some(event) => Some(find(&web, &caller, &event).await?),
            None => None,
        },
    };
    if older.as_ref().is_some_and(|older| older.path != newer.path || older.repository != newer.repository) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "only versions of the same path can be compared"));
    }
    let texts = (older.as_ref().map(text).unwrap_or_default(), text(&newer));
    let lines = compared(&web, client, texts).await?;
    Ok(Json(DefinitionDiff { from: older.map(|older| older.event), to: newer.event, lines }))
}

/// The lines of an older and a newer text.
pub(super) async fn compared(
    web: &Web,
    client: Client,
    (older, newer): (String, String),
) -> Result<Vec<DiffLine>, Refusal> {
    let permit = request_limits::permit(&web.limits.renderings, client, "comparisons")?;
    Ok(tokio::task::spawn_blocking(move || (diff::lines(&older, &newer), permit)).await?.0)
}

/// The version of a path that came before this one.
pub(super) fn before(all: &[DefinitionView], path: &str, event: &str) -> Option<String> {
    let mut of_path = all.iter().filter(|version| version.path == path);
    of_path.find(|version| version.event == event)?;
    of_path.next().map(|version| version.event.clone())
}

/// Checks a workflow text: findings, and the jobs it would run. Nothing is stored.
#[utoipa::path(post, path = "/api/preview", tag = "definitions", request_body = Draft, responses(
    (status = 200, body = Preview), (status = 400, body = super::Problem), (status = 413, body = super::Problem),
    (status = 429, body = super::Problem), (status = 503, body = super::Problem),
))]
pub(super) async fn preview(State(web): State<Web>, client: Client, body: Bytes) -> Result<Json<Preview>, Refusal> {
    let draft: Draft = read(&body, "{\"path\": …, \"text\": …}")?;
    if draft.text.len() > LONGEST {
        let reason = format!("the text has {} bytes, {LONGEST} are allowed", draft.text.len());
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason));
    }
    let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
    let tags = match &draft.repository {
        Some(repository) => {
            let text = (!draft.withdraw).then_some(draft.text.as_str());
            Some(web.control.definition_tags(repository, &draft.path, text).map_err(bad)?)
        }
        None => None,
    };
    if draft.withdraw {
        return Ok(Json(Preview { findings: Vec::new(), outline: None, tags }));
    }
    let permit = request_limits::permit(&web.limits.renderings, client, "checks of workflows")?;
    let labels = PoolLabels::of(&web).await?;
    // The permit is held for as long as the work takes, also where its client went away.
    let looked = tokio::task::spawn_blocking(move || (look(&draft.path, &draft.text, &labels), permit)).await?.0;
    Ok(Json(Preview { tags, ..looked }))
}

/// What is known around a text that is checked here: the labels of the pool's workers.
pub(super) struct PoolLabels(Vec<String>);

impl PoolLabels {
    pub(super) async fn of(web: &Web) -> Result<Self, Refusal> {
        Ok(Self(web.store.workers().await?.into_iter().flat_map(|worker| worker.labels).collect()))
    }
}

impl Surroundings for PoolLabels {
    fn worker_labels(&self) -> &[String] {
        &self.0
    }
}

/// Findings about a text, as `longshore lint` has them of the file alone, and the jobs it would run.
pub(super) fn look(path: &str, text: &str, labels: &PoolLabels) -> Preview {
    let dialect = Dialect::of_any_path(path);
    let (plan, findings) = dialect.parse(path, text);
    let findings = dialect.lint(path, text, findings, labels);
    let outline = plan.as_ref().map(|plan| plan.dialect.outline(plan));
    Preview { findings: findings.into_iter().map(Finding::from).collect(), outline, tags: None }
}

/// Stores a signed definition and sends it to the repository's relays. The event's signature authorizes it: its author
/// must be owner or maintainer of the repository, and may run here.
#[utoipa::path(post, path = "/api/definitions", tag = "definitions", request_body = SignedDefinition, responses(
    (status = 202, body = Accepted), (status = 400, body = super::Problem), (status = 403, body = super::Problem),
    (status = 409, body = super::Problem), (status = 422, body = super::Problem), (status = 503, body = super::Problem),
))]
pub(super) async fn define(State(web): State<Web>, body: Bytes) -> Result<(StatusCode, Json<Accepted>), Refusal> {
    let bad = |reason: &str| Refusal::new(StatusCode::BAD_REQUEST, reason);
    let signed: SignedDefinition = read(&body, "{\"event\": {…}}")?;
    let event = Event::from_json(signed.event.to_string()).map_err(|_| bad("this is no Nostr event"))?;
    event.verify().map_err(|_| bad("the event's signature does not fit"))?;
    let refused = |status, reason: String| Err(Refusal::new(status, reason));
    match web.control.define(&event).await? {
        DefinitionOutcome::Taken(relays) => {
            Ok((StatusCode::ACCEPTED, Json(Accepted { event: event.id.to_hex(), relays })))
        }
        DefinitionOutcome::Malformed(why) => refused(StatusCode::BAD_REQUEST, why),
        DefinitionOutcome::Refused(why) => refused(StatusCode::FORBIDDEN, why),
        DefinitionOutcome::Faulty(why) => refused(StatusCode::UNPROCESSABLE_ENTITY, why),
        DefinitionOutcome::Busy => {
            let reason = "too many definitions are being taken in: publish it again in a moment";
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason).retry_after(5))
        }
        DefinitionOutcome::Older(newer) => {
            let reason = format!("a newer definition counts already, {newer}: look at it, then publish again");
            refused(StatusCode::CONFLICT, reason)
        }
    }
}

fn read<T: DeserializeOwned>(body: &Bytes, form: &str) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("send {form}: {error}")))
}

pub(super) async fn find(web: &Web, caller: &Caller, event: &str) -> Result<DefinitionRow, Refusal> {
    let found = web.control.definition(event, &caller.reader).await?;
    found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "no such definition, or its author does not count"))
}

/// The text of a version.
pub(super) fn text(row: &DefinitionRow) -> String {
    Event::from_json(&row.signed).map(|event| event.content).unwrap_or_default()
}
