//! The plain pages: a list of runs, and one run with its live log.

use askama::Template;
use axum::{
    extract::{Path, Query, State},
    http::header,
    response::{Html, IntoResponse},
};

use super::{
    Refusal, Web, api,
    auth::Caller,
    view::{RunView, time},
};

#[derive(Template)]
#[template(path = "runs.html")]
struct Runs<'a> {
    pool: &'a str,
    runs: Vec<RunView>,
}

#[derive(Template)]
#[template(path = "run.html")]
struct Run<'a> {
    pool: &'a str,
    run: RunView,
}

pub(super) async fn runs(
    State(web): State<Web>,
    caller: Caller,
    Query(wanted): Query<api::Wanted>,
) -> Result<Html<String>, Refusal> {
    let runs = api::list(&web, caller, wanted).await?;
    Ok(Html(Runs { pool: &web.settings.name, runs }.render()?))
}

pub(super) async fn run(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Html<String>, Refusal> {
    let run = api::find(&web, &caller, &id).await?.into();
    Ok(Html(Run { pool: &web.settings.name, run }.render()?))
}

pub(super) async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("../../templates/live.js"))
}

pub(super) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../../templates/page.css"))
}

impl RunView {
    /// One word for how it stands.
    fn word(&self) -> &'static str {
        self.conclusion.map_or(self.phase, |conclusion| conclusion.as_str())
    }

    fn created(&self) -> String {
        time(self.created_at)
    }

    fn short_commit(&self) -> &str {
        self.commit.get(..12).unwrap_or(&self.commit)
    }
}

impl super::view::JobView {
    /// One word for how it stands.
    fn word(&self) -> &'static str {
        self.conclusion.map_or(self.phase, |conclusion| conclusion.as_str())
    }

    fn waiting(&self) -> &str {
        self.waits.as_deref().unwrap_or_default()
    }
}
