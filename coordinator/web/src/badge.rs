//! A badge: an SVG image with the outcome of the latest run that ended.

use askama::Template;
use axum::{extract::State, http::header, response::IntoResponse};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    QueryParams, Refusal, Web,
    request_limits::{self, Client},
};
use store::{Filter, Page, Reader};

/// Most runs that are searched for one that ended.
const LOOKED_AT: u32 = 20;

/// Which runs the badge is about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct BadgeQuery {
    /// Address of the repository.
    repository: String,
    /// Path of the workflow; otherwise any.
    workflow: Option<String>,
    /// Branch; otherwise any.
    branch: Option<String>,
}

#[derive(Template)]
#[template(path = "badge.svg")]
struct Badge<'a> {
    label: &'a str,
    word: &'a str,
    /// Widths of the two halves, in pixels.
    left: usize,
    right: usize,
    colour: &'static str,
}

/// A badge (SVG) of public runs.
#[utoipa::path(get, path = "/api/badge.svg", tag = "runs", params(BadgeQuery), responses(
    (status = 200, body = String, content_type = "image/svg+xml"),
    (status = 400, body = super::Problem), (status = 429, body = super::Problem), (status = 503, body = super::Problem),
))]
pub(super) async fn badge(
    State(web): State<Web>,
    client: Client,
    QueryParams(of): QueryParams<BadgeQuery>,
) -> Result<impl IntoResponse, Refusal> {
    let _permit = request_limits::permit(&web.limits.renderings, client, "badges")?;
    let file: String = of.workflow.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or("ci").into();
    let filter = Filter {
        repository: Some(of.repository),
        workflow: of.workflow,
        branch: of.branch,
        reader: Reader::Anyone,
        ..Filter::default()
    };
    let runs = web.store.list(&filter, Page { before: None, limit: LOOKED_AT }).await?;
    let word = runs.iter().find_map(|run| run.conclusion.as_deref()).unwrap_or("no runs");
    let colour = match word {
        "success" => "#1a7f37",
        "failure" => "#cf222e",
        _ => "#57606a",
    };
    let name = runs.iter().map(|run| run.name.as_str()).find(|name| filter.workflow.is_some() && !name.is_empty());
    let label: String = name.unwrap_or(&file).chars().take(40).collect();
    let width = |text: &str| text.chars().count() * 7 + 12;
    let picture = Badge { label: &label, word, left: width(&label), right: width(word), colour }.render()?;
    Ok(([(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, "no-cache, max-age=0")], picture))
}
