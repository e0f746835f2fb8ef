//! The list of runs, the first page of the pool.

use askama::Template;
use axum::{extract::State, http::StatusCode, response::Html};

use super::{
    QueryParams, Refusal, Web, api,
    auth::Caller,
    dto::RunSummary,
    html::{HtmlError, rendered, repository_name},
    request_limits::Client,
    run_search,
    time::span,
};
use domain::run::Millis;

#[derive(Template)]
#[template(path = "runs.html")]
struct Runs<'a> {
    pool: &'a str,
    runs: Vec<RunSummary>,
    wanted: api::RunQuery,
    /// What the search field has, and what it offers.
    search: String,
    suggestions: Vec<String>,
    now: Millis,
    /// Query strings of this page and of the next one.
    query: String,
    next: Option<String>,
    /// Number of the latest change in the list.
    change: u64,
    /// Why the filter is invalid.
    problem: Option<String>,
}

/// Searches that one press asks for.
const TABS: [(&str, &str); 5] = [
    ("All", ""),
    ("Running", "status:running"),
    ("Waiting", "status:waiting,queued"),
    ("Failed", "status:failure"),
    ("Passed", "status:success"),
];

pub(super) async fn runs(
    State(web): State<Web>,
    caller: Caller,
    client: Client,
    QueryParams(wanted): QueryParams<api::RunQuery>,
) -> Result<(StatusCode, Html<String>), HtmlError> {
    let typed = wanted.q.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let wanted = wanted.resolved();
    // Read first: later changes are sent to the live list.
    let latest = match wanted.is_by_status() {
        true => Some(web.store.latest_change().await.map_err(Refusal::from)?),
        false => None,
    };
    let (status, (runs, next), problem) = match api::list(&web, &caller, client, &wanted).await {
        Ok(found) => (StatusCode::OK, found, None),
        Err(refusal) if refusal.status == StatusCode::BAD_REQUEST => {
            (refusal.status, (Vec::new(), None), Some(refusal.reason))
        }
        Err(refusal) => return Err(refusal.into()),
    };
    let (query, next) = (wanted.query(None), next.map(|next| wanted.query(Some(next))));
    let search = typed.unwrap_or_else(|| wanted.search_text());
    let suggestions = run_search::suggestions(&runs);
    let change = latest.or_else(|| runs.iter().map(|run| run.change).max()).unwrap_or(0);
    let pool = &web.settings.name;
    Ok((
        status,
        rendered(&Runs {
            pool,
            runs,
            wanted,
            search,
            suggestions,
            now: (web.settings.now)(),
            query,
            next,
            change,
            problem,
        })?,
    ))
}

impl Runs<'_> {
    fn is_search(&self, term: &str) -> bool {
        self.search == term
    }
}

impl api::RunQuery {
    fn repository(&self) -> &str {
        self.repository.as_deref().unwrap_or_default()
    }

    fn branch(&self) -> &str {
        self.branch.as_deref().unwrap_or_default()
    }
}

impl RunSummary {
    /// Its workflow and number.
    pub(super) fn heading(&self) -> String {
        let name = if self.name.is_empty() { "run" } else { &self.name };
        format!("{name} #{}", self.number)
    }

    /// How long it has run, or ran.
    pub(super) fn took(&self, now: &Millis) -> Option<String> {
        let ended = if self.phase == "done" { self.ended_at? } else { self.ended_at.unwrap_or(*now) };
        Some(span(ended.saturating_sub(self.started_at?)))
    }

    pub(super) fn repository_name(&self) -> String {
        repository_name(&self.repository)
    }
}

/// A document at a well-known path (RFC 8615).
pub(super) async fn well_known(
    axum::extract::State(web): State<Web>,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Result<axum::Json<serde_json::Value>, Refusal> {
    let known = web.settings.well_known.get(&name).cloned();
    known.map(axum::Json).ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "there is no such document here"))
}
