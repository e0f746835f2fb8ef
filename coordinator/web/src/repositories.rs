//! Pages of the pool, and of repositories: their runs, and their workflow files with what is wrong in them.

use std::{collections::HashSet, time::Duration};

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Html,
};
use serde::{Deserialize, Serialize};

use super::{
    File, QueryParams, Refusal, RelayView, Web, api,
    auth::Caller,
    authors,
    definitions::{self, Finding, PoolLabels, Preview},
    dto::RunSummary,
    history::History,
    html::{HtmlError, rendered, repository_name},
    log_text::straight,
    people,
    pool::{self, QueueView, WorkerView},
    request_limits::{self, Client},
};
use domain::run::Millis;
use store::{Filter, Page};

/// How long definitions are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most repositories on one page.
const PAGE: usize = 50;
/// Most workflow files of a repository that are shown.
const CHECKED: usize = 50;
/// Most runs of a repository that are looked at, and that are listed.
const RECENT: u32 = 150;
const SHOWN: usize = 20;
/// Runs of each repository of a list that are looked at.
const LOOKED_AT: u32 = 50;
/// Names that default branches have, as a rule.
const DEFAULTS: [&str; 2] = ["main", "master"];
/// The event of a workflow that is started by hand.
const BY_HAND: &str = "workflow_dispatch";

#[derive(Template)]
#[template(path = "pool.html")]
struct Pool<'a> {
    pool: &'a str,
    now: Millis,
    problem: Option<String>,
    openness: Option<&'a str>,
    workers: Vec<WorkerView>,
    relays: Vec<RelayView>,
    queue: QueueView,
}

impl RelayView {
    fn icon(&self) -> &'static str {
        if self.connected { "success" } else { "failure" }
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
    now: Millis,
    rows: Vec<(RepositoryLink, RunSummary)>,
    next: Option<String>,
}

/// A repository's display name and page.
struct RepositoryLink {
    name: String,
    page: String,
    owner: String,
    owner_name: String,
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
    now: Millis,
    name: String,
    owner: &'a str,
    owner_name: String,
    address: &'a str,
    runs: Vec<RunSummary>,
    /// Short names of branches and tags, with the commit of their newest run.
    branches: Vec<(String, String)>,
    at: String,
    /// What a run of them is asked for by: a branch, or where `at` is the newest of none, the commit.
    reference: (String, String),
    files: Vec<CheckedFile>,
    /// Workflows that can be started by hand, with their inputs, as JSON.
    startable: String,
    /// Query of the list of its runs, and of its badge.
    query: String,
    /// Where its workflow definitions are written, and its secrets, variables and caches are managed.
    edit: String,
    settings: String,
}

/// A workflow file, or a definition that stands for one, and what is wrong in it.
struct CheckedFile {
    path: String,
    /// The page of the definition that it is; none: it is the commit's.
    definition: Option<String>,
    name: String,
    jobs: usize,
    findings: Vec<Finding>,
    text: String,
    /// Whether it can be started by hand, and its inputs as JSON.
    can_start: bool,
    inputs: String,
    /// Its newest run, and those before.
    last: Option<RunSummary>,
    history: History,
    /// Query of its badge, and the badge as Markdown.
    badge: String,
    markdown: String,
}

pub(super) async fn pool(State(web): State<Web>, caller: Caller) -> Result<Html<String>, HtmlError> {
    let (workers, queue) = (pool::with_jobs(&web, &caller).await?, pool::waiting(&web, &caller).await?);
    let problem = web.store.problem().await?.map(|problem| problem.to_string());
    let (pool, openness) = (&web.settings.name, web.settings.openness.as_deref());
    rendered(&Pool { pool, now: (web.settings.now)(), problem, openness, workers, relays: web.control.relays(), queue })
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
        if let Some(latest) = telling(recent(&web, &caller, &address, LOOKED_AT).await?) {
            let (name, page, owner) = (repository_name(&address), page(&address), owner(&address).to_owned());
            let owner_name = people::name(&web, &owner);
            rows.push((RepositoryLink { name, page, owner, owner_name }, latest));
        }
    }
    let next =
        next.map(|after| url::form_urlencoded::Serializer::new(String::new()).append_pair("after", &after).finish());
    rendered(&Repositories { pool: &web.settings.name, now: (web.settings.now)(), rows, next })
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
    // One that was never planned names whatever its author wrote.
    let is_planned = |run: &&RunSummary| !run.commit.is_empty() && !run.event.is_empty() && run.previous.is_none();
    for run in runs.iter().filter(is_planned) {
        if !branches.iter().any(|(branch, _)| *branch == run.branch) {
            branches.push((run.branch.clone(), run.commit.clone()));
        }
    }
    // The branch that most people mean stands first.
    branches.sort_by_key(|(branch, _)| usual(branch));
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
    let defined = defined(&web, &caller, &address, &files).await?;
    let labels = PoolLabels::of(&web).await?;
    // The permit is held for as long as the work takes, also where its client went away.
    let checked = tokio::task::spawn_blocking(move || {
        let files = files.into_iter().map(|file| (file, None)).chain(defined);
        let files: Vec<CheckedFile> = files.take(CHECKED).map(|file| check(file, &labels)).collect();
        (files, permit)
    });
    let (mut files, _) = checked.await.map_err(Refusal::from)?;
    for file in &mut files {
        // Those of the branch that is shown: what happens elsewhere says nothing of it.
        let is_here = |run: &&RunSummary| reference.0.is_empty() || run.branch == reference.0;
        let of_file = || runs.iter().filter(|run| run.workflow == file.path).filter(is_here);
        let (last, history) = (of_file().next().cloned(), History::of(of_file()));
        (file.last, file.history) = (last, history);
        file.badge = api::RunQuery {
            repository: Some(address.clone()),
            workflow: Some(file.path.clone()),
            branch: Some(reference.0.clone()).filter(|branch| !branch.is_empty()),
            ..api::RunQuery::default()
        }
        .query(None);
        let base = web.settings.public_url.as_str().trim_end_matches('/');
        file.markdown =
            format!("[![{0}]({base}/api/badge.svg?{1})]({base}/?{1})", file.name.replace(['[', ']'], ""), file.badge);
    }
    let startable: Vec<_> = files.iter().filter(|file| file.can_start).map(Startable::of).collect();
    let startable = serde_json::to_string(&startable).map_err(Refusal::from)?;
    let shown = runs.into_iter().take(SHOWN).collect();
    let query = api::RunQuery { repository: Some(address.clone()), ..api::RunQuery::default() }.query(None);
    let (name, edit) = (repository_name(&address), format!("{}/edit", page(&address)));
    let settings = format!("{}/settings", page(&address));
    let (pool, address) = (&web.settings.name, address.as_str());
    let owner = owner(address);
    rendered(&Repository {
        pool,
        now: (web.settings.now)(),
        name,
        owner,
        owner_name: people::name(&web, owner),
        address,
        runs: shown,
        branches,
        at,
        reference,
        files,
        startable,
        query,
        edit,
        settings,
    })
}

/// Of the newest run of each workflow at the branch that most people mean, one that failed, otherwise the newest.
fn telling(runs: Vec<RunSummary>) -> Option<RunSummary> {
    let branch = runs.iter().map(|run| run.branch.as_str()).min_by_key(|branch| usual(branch));
    let branch = branch.unwrap_or_default().to_owned();
    let mut known = HashSet::new();
    let is_newest = |run: &&RunSummary| run.branch == branch && known.insert(run.workflow.clone());
    let newest: Vec<&RunSummary> = runs.iter().filter(|run| run.ended_at.is_some()).filter(is_newest).collect();
    let failed = newest.into_iter().find(|run| run.status == "failure").cloned();
    failed.or_else(|| runs.into_iter().next())
}

/// Where a branch stands among those that most people mean.
fn usual(branch: &str) -> usize {
    DEFAULTS.iter().position(|name| *name == branch).unwrap_or(DEFAULTS.len())
}

async fn recent(web: &Web, caller: &Caller, address: &str, limit: u32) -> Result<Vec<RunSummary>, Refusal> {
    let filter = Filter { repository: Some(address.to_owned()), reader: caller.reader.clone(), ..Filter::default() };
    let found = web.store.list(&filter, Page { before: None, limit }).await?;
    Ok(authors::summaries(web, found))
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

/// Definitions in force of paths that the commit has no file at, each with its page.
async fn defined(
    web: &Web,
    caller: &Caller,
    address: &str,
    files: &[File],
) -> Result<Vec<(File, Option<String>)>, Refusal> {
    // Relays are asked for them; one that does not answer holds up no page.
    let found = tokio::time::timeout(PATIENCE, web.control.definitions(address, &caller.reader)).await;
    let rows = found.unwrap_or_else(|_| Ok(Vec::new()))?;
    let counts = rows.into_iter().filter(|(row, in_force)| *in_force && !row.withdrawn).map(|(row, _)| row);
    let missing = counts.filter(|row| files.iter().all(|file| file.path != row.path));
    let mut found = Vec::new();
    for row in missing.take(CHECKED.saturating_sub(files.len())) {
        // The list has no texts.
        let Some(whole) = web.control.definition(&row.event, &caller.reader).await? else { continue };
        let page = edit_page(address, &row.path, Some(&row.event));
        found.push((File { path: row.path, text: definitions::text(&whole) }, Some(page)));
    }
    Ok(found)
}

fn check((file, definition): (File, Option<String>), labels: &PoolLabels) -> CheckedFile {
    let Preview { findings, outline, .. } = definitions::look(&file.path, &file.text, labels);
    let file_name = file.path.rsplit('/').next().unwrap_or(&file.path).to_owned();
    let name = outline.as_ref().map_or(file_name, |outline| straight(&outline.name));
    let can_start = outline.as_ref().is_some_and(|outline| outline.on.iter().any(|event| event == BY_HAND));
    let inputs = outline.as_ref().map(|outline| serde_json::to_string(&outline.inputs).unwrap_or_default());
    CheckedFile {
        name,
        jobs: outline.map_or(0, |outline| outline.jobs.len()),
        findings,
        definition,
        path: file.path,
        text: straight(&file.text),
        can_start,
        inputs: inputs.unwrap_or_default(),
        last: None,
        history: History::default(),
        badge: String::new(),
        markdown: String::new(),
    }
}

/// The owner of a repository, by its address.
fn owner(address: &str) -> &str {
    address.split(':').nth(1).unwrap_or_default()
}

/// A workflow that can be started by hand.
#[derive(Serialize)]
struct Startable<'a> {
    path: &'a str,
    name: &'a str,
    /// As the file declares them.
    inputs: serde_json::Value,
}

impl<'a> Startable<'a> {
    fn of(file: &'a CheckedFile) -> Self {
        let inputs = serde_json::from_str(&file.inputs).unwrap_or_default();
        Self { path: &file.path, name: &file.name, inputs }
    }
}

impl CheckedFile {
    /// The level of its worst finding.
    fn worst(&self) -> &'static str {
        if self.findings.iter().any(|finding| finding.level == "error") { "error" } else { "warning" }
    }

    /// Its lines with their numbers, and the level of what was found in each.
    fn lines(&self) -> impl Iterator<Item = (usize, &str, Option<&'static str>)> {
        let level = |number: usize| self.findings.iter().find(|found| found.line == number).map(|found| found.level);
        (1..).zip(self.text.lines()).map(move |(number, line)| (number, line, level(number)))
    }
}

impl Repository<'_> {
    fn short_commit(&self) -> String {
        self.at.chars().take(8).collect()
    }
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
}

impl pool::Waiting {
    fn repository_name(&self) -> String {
        repository_name(&self.repository)
    }
}
