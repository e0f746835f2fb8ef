//! Pages of the pool, and of repositories: their runs, and their workflow files with what is wrong in them.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Html,
};
use serde::Deserialize;

use super::{
    File, QueryParams, Refusal, RelayView, Web, api,
    auth::Caller,
    definitions::{self, Finding, PoolLabels, Preview},
    dto::{RunSummary, straight},
    html::{HtmlError, rendered, repository_name},
    pool::{self, QueueView, WorkerView},
    request_limits::{self, Client},
    time,
};
use store::{Filter, Page};

/// Most repositories on one page.
const PAGE: usize = 50;
/// Most workflow files of a repository that are shown.
const CHECKED: usize = 50;
/// Most runs of a repository that are looked at.
const RECENT: u32 = 30;

#[derive(Template)]
#[template(path = "pool.html")]
struct Pool<'a> {
    pool: &'a str,
    problem: Option<String>,
    openness: Option<&'a str>,
    workers: Vec<WorkerView>,
    relays: Vec<RelayView>,
    queue: QueueView,
}

impl RelayView {
    fn since(&self) -> String {
        time::moment(&self.since)
    }
}

/// Position in a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RepositoriesQuery {
    after: String,
}

#[derive(Template)]
#[template(path = "repositories.html")]
struct Repositories<'a> {
    pool: &'a str,
    rows: Vec<(RepositoryLink, RunSummary)>,
    next: Option<String>,
}

/// A repository's display name and page.
struct RepositoryLink {
    name: String,
    page: String,
}

/// Which commit is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RepositoryQuery {
    at: String,
}

#[derive(Template)]
#[template(path = "repository.html")]
struct Repository<'a> {
    pool: &'a str,
    name: String,
    address: &'a str,
    runs: Vec<RunSummary>,
    /// Short names of branches and tags, with the commit of their newest run.
    branches: Vec<(String, String)>,
    at: String,
    /// What a run of them is asked for by: a branch, or where `at` is the newest of none, the commit.
    reference: (String, String),
    files: Vec<CheckedFile>,
    /// Query of the list of its runs, and of its badge.
    query: String,
    /// Where its workflow definitions are written.
    edit: String,
}

/// A workflow file and what is wrong in it.
struct CheckedFile {
    path: String,
    jobs: usize,
    findings: Vec<Finding>,
    text: String,
}

pub(super) async fn pool(State(web): State<Web>, caller: Caller) -> Result<Html<String>, HtmlError> {
    let (workers, queue) = (pool::all(&web).await?, pool::waiting(&web, &caller).await?);
    let problem = web.store.problem().await?.map(|problem| problem.to_string());
    let (pool, openness) = (&web.settings.name, web.settings.openness.as_deref());
    rendered(&Pool { pool, problem, openness, workers, relays: web.control.relays(), queue })
}

pub(super) async fn repositories(
    State(web): State<Web>,
    caller: Caller,
    QueryParams(from): QueryParams<RepositoriesQuery>,
) -> Result<Html<String>, HtmlError> {
    let found = web.store.repositories(&from.after, PAGE).await.map_err(Refusal::from)?;
    let next = found.last().filter(|_| found.len() == PAGE).cloned();
    let mut rows = Vec::new();
    for address in found {
        // A repository whose runs are all private is not listed.
        if let Some(latest) = recent(&web, &caller, &address, 1).await?.pop() {
            rows.push((RepositoryLink { name: repository_name(&address), page: page(&address) }, latest));
        }
    }
    let next =
        next.map(|after| url::form_urlencoded::Serializer::new(String::new()).append_pair("after", &after).finish());
    rendered(&Repositories { pool: &web.settings.name, rows, next })
}

pub(super) async fn repository(
    State(web): State<Web>,
    caller: Caller,
    client: Client,
    Path(address): Path<String>,
    QueryParams(RepositoryQuery { at: wanted }): QueryParams<RepositoryQuery>,
) -> Result<Html<String>, HtmlError> {
    let runs = recent(&web, &caller, &address, RECENT).await?;
    let Some(newest) = runs.first() else {
        let reason = "no run of such a repository is open to you";
        return Err(Refusal::new(axum::http::StatusCode::NOT_FOUND, reason).into());
    };
    let mut branches: Vec<(String, String)> = Vec::new();
    // A rerun is of an older commit of its branch.
    for run in runs.iter().filter(|run| !run.commit.is_empty() && run.previous.is_none()) {
        if !branches.iter().any(|(branch, _)| *branch == run.branch) {
            branches.push((run.branch.clone(), run.commit.clone()));
        }
    }
    // Only commits of runs that this reader may see: the mirror holds those of private ones as well.
    let open = |wanted: &str| {
        let by_branch = branches.iter().find(|(branch, _)| branch == wanted).map(|(_, commit)| commit.clone());
        let by_commit = || runs.iter().find(|run| wanted.len() >= 7 && run.commit.starts_with(wanted));
        by_branch.or_else(|| by_commit().map(|run| run.commit.clone()))
    };
    let at = open(&wanted)
        .unwrap_or_else(|| branches.first().map_or_else(|| newest.commit.clone(), |(_, commit)| commit.clone()));
    let tips = || branches.iter().filter(|(_, commit)| *commit == at);
    let reference = match tips().find(|(branch, _)| *branch == wanted).or_else(|| tips().next()) {
        Some((branch, _)) => (branch.clone(), String::new()),
        None => (String::new(), at.clone()),
    };
    let permit = request_limits::permit(&web.limits.renderings, client, "checks of workflows")?;
    let files = web.control.workflows(&address, &at).await.map_err(Refusal::from)?;
    let labels = PoolLabels::of(&web).await?;
    // The permit is held for as long as the work takes, also where its client went away.
    let checked = tokio::task::spawn_blocking(move || {
        let files: Vec<CheckedFile> = files.into_iter().take(CHECKED).map(|file| check(file, &labels)).collect();
        (files, permit)
    });
    let (files, _) = checked.await.map_err(Refusal::from)?;
    let query = api::RunQuery { repository: Some(address.clone()), ..api::RunQuery::default() }.query(None);
    let (name, edit) = (repository_name(&address), format!("{}/edit", page(&address)));
    let (pool, address) = (&web.settings.name, address.as_str());
    rendered(&Repository { pool, name, address, runs, branches, at, reference, files, query, edit })
}

async fn recent(web: &Web, caller: &Caller, address: &str, limit: u32) -> Result<Vec<RunSummary>, Refusal> {
    let filter = Filter { repository: Some(address.to_owned()), reader: caller.reader.clone(), ..Filter::default() };
    let found = web.store.list(&filter, Page { before: None, limit }).await?;
    Ok(found.into_iter().map(RunSummary::from).collect())
}

/// The page of a repository.
pub(super) fn page(address: &str) -> String {
    // In a path a query's `+` would be a plus.
    let escaped: String = url::form_urlencoded::byte_serialize(address.as_bytes()).collect();
    format!("/repositories/{}", escaped.replace('+', "%20"))
}

/// The page where a workflow of a repository is edited, with a version of its definition.
pub(super) fn edit_page(address: &str, path: &str, version: Option<&str>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("path", path);
    if let Some(version) = version {
        query.append_pair("version", version);
    }
    format!("{}/edit?{}", page(address), query.finish())
}

fn check(file: File, labels: &PoolLabels) -> CheckedFile {
    let Preview { findings, outline, .. } = definitions::look(&file.path, &file.text, labels);
    let jobs = outline.map_or(0, |outline| outline.jobs.len());
    CheckedFile { jobs, findings, path: file.path, text: straight(&file.text) }
}

impl WorkerView {
    fn word(&self) -> &'static str {
        match (self.connected, self.draining) {
            (false, _) => "away",
            (true, true) => "draining",
            (true, false) => "connected",
        }
    }

    fn class(&self) -> &'static str {
        match (self.connected, self.draining) {
            (false, _) => "skipped",
            (true, true) => "waiting",
            (true, false) => "success",
        }
    }

    fn seen(&self) -> String {
        time::moment(&self.seen_at)
    }
}

impl pool::Waiting {
    fn since(&self) -> String {
        time::moment(&self.since)
    }

    fn repository_name(&self) -> String {
        repository_name(&self.repository)
    }
}
