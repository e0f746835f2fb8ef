//! The JSON API.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};

use super::{
    Refusal, Web,
    auth::Caller,
    view::{EventView, RunView},
};
use crate::{
    run,
    store::{Filter, Page, Reader},
};

/// Runs on one page of a list.
const PAGE: u32 = 50;

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    repository: Option<String>,
    actor: Option<String>,
    #[serde(default)]
    unfinished: bool,
    before: Option<u64>,
    limit: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(super) struct Detail {
    #[serde(flatten)]
    run: RunView,
    events: Vec<EventView>,
}

#[derive(Debug, Serialize)]
pub(super) struct WorkerView {
    id: String,
    name: String,
    labels: Vec<String>,
    slots: u32,
    seen_at: u64,
    draining: bool,
}

/// A page of the runs that this caller may see, newest first.
pub(super) async fn list(web: &Web, caller: Caller, wanted: Wanted) -> Result<Vec<RunView>, Refusal> {
    let filter = Filter {
        repository: wanted.repository,
        actor: wanted.actor,
        unfinished: wanted.unfinished,
        reader: caller.reader,
    };
    let page = Page { before: wanted.before, limit: wanted.limit.unwrap_or(PAGE).clamp(1, PAGE) };
    Ok(web.store.runs(&filter, page).await?.into_iter().map(RunView::from).collect())
}

/// A run by its id, its number in the pool, or an event's id, if this caller may see it.
pub(super) async fn find(web: &Web, caller: &Caller, id: &str) -> Result<run::State, Refusal> {
    let mut found = web.store.run(id).await?;
    if found.is_none() {
        found = web.store.run_by_event(id).await?;
    }
    if let (None, Ok(serial)) = (&found, id.parse()) {
        found = web.store.run_by_serial(serial).await?;
    }
    found.filter(|state| caller.reader.may_read(&state.visibility)).ok_or_else(Refusal::no_run)
}

pub(super) async fn runs(
    State(web): State<Web>,
    caller: Caller,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Vec<RunView>>, Refusal> {
    Ok(Json(list(&web, caller, wanted).await?))
}

pub(super) async fn run(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Detail>, Refusal> {
    let state = find(&web, &caller, &id).await?;
    let events = web.store.outbox_of(&state.id).await?.into_iter().map(EventView::from).collect();
    Ok(Json(Detail { run: state.into(), events }))
}

pub(super) async fn cancel(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let key = caller.signed()?.to_owned();
    let state = find(&web, &caller, &id).await?;
    let maintains = state.planned.as_ref().is_some_and(|planned| planned.maintainers.contains(&key));
    let owns = state.request.actor == key || state.request.repository.owner == key;
    if !(maintains || owns || caller.reader == Reader::Operator) {
        let reason = "only the author of the run, the repository's maintainers and the operator may cancel it";
        return Err(Refusal::new(StatusCode::FORBIDDEN, reason));
    }
    web.control.cancel(&state.id, &key).await?;
    Ok(StatusCode::ACCEPTED)
}

pub(super) async fn workers(State(web): State<Web>) -> Result<Json<Vec<WorkerView>>, Refusal> {
    let workers = web.store.workers().await?.into_iter().map(|row| WorkerView {
        id: row.id,
        name: row.name,
        labels: row.labels,
        slots: row.slots,
        seen_at: row.seen_at,
        draining: row.draining,
    });
    Ok(Json(workers.collect()))
}

pub(super) async fn drain(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    caller.signed()?;
    if caller.reader != Reader::Operator {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "only the operator may drain a worker"));
    }
    if !web.store.workers().await?.iter().any(|row| row.id == id) {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "no such worker: `longshore workers` lists them"));
    }
    web.control.drain(&id).await?;
    Ok(StatusCode::ACCEPTED)
}

pub(super) async fn enrolment_token(State(web): State<Web>, caller: Caller) -> Result<String, Refusal> {
    caller.signed()?;
    if caller.reader != Reader::Operator {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "only the operator may let workers in"));
    }
    Ok(web.control.enrolment_token())
}

/// A document that programs look for at a fixed place.
pub(super) async fn well_known(
    State(web): State<Web>,
    Path(name): Path<String>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let known = web.settings.well_known.get(&name).cloned();
    known.map(Json).ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "there is no such document here"))
}

/// Ready once the database answers.
pub(super) async fn ready(State(web): State<Web>) -> Result<&'static str, Refusal> {
    web.store.next_task_due().await?;
    Ok("ready")
}
