//! The pages of runs: a list, and one run with its jobs, its summaries and its chain of events.

use askama::Template;
use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Html,
};
use nostr::{Event, JsonUtil};
use workflow::plan::Conclusion;

use super::{
    QueryParams, Refusal, Web, api,
    auth::Caller,
    dto::{ApprovalView, ArtifactView, AttemptView, CacheView, JobView, RunSummary, RunView, size},
    graph::{Graph, Times},
    html::{HtmlError, rendered, repository_name},
    links, markdown, run_detail, run_lookup, run_search,
    time::{self, span},
};
use domain::id::BlobHash;
use domain::run::{self, DefinitionOverride, Millis, OriginEvent};
use store::Pending;

/// Bytes of Markdown that one page renders.
const SUMMARIES: usize = 4 * markdown::RENDERED;

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

#[derive(Template)]
#[template(path = "run.html")]
struct Run<'a> {
    pool: &'a str,
    run: RunView,
    version: u64,
    /// URL of its whole log.
    text: String,
    message: Option<String>,
    graph: Graph,
    times: Times,
    /// Names of jobs, with their summaries as HTML.
    summaries: Vec<(String, String)>,
    chain: Vec<ChainLink>,
}

/// An event of a run's chain.
struct ChainLink {
    kind: u16,
    what: &'static str,
    id: String,
    /// As text, and as a CSS class.
    signature: &'static str,
    class: &'static str,
    relays: String,
}

/// Searches that one press asks for.
const TABS: [(&str, &str); 5] = [
    ("All", ""),
    ("Running", "status:running"),
    ("Waiting", "status:waiting"),
    ("Failed", "status:failure"),
    ("Succeeded", "status:success"),
];

pub(super) async fn runs(
    State(web): State<Web>,
    caller: Caller,
    QueryParams(wanted): QueryParams<api::RunQuery>,
) -> Result<(StatusCode, Html<String>), HtmlError> {
    let typed = wanted.q.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let wanted = wanted.resolved();
    // Read first: later changes are sent to the live list.
    let latest = match wanted.is_by_status() {
        true => Some(web.store.latest_change().await.map_err(Refusal::from)?),
        false => None,
    };
    let (status, (runs, next), problem) = match api::list(&web, &caller, &wanted).await {
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

pub(super) async fn run(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Html<String>, HtmlError> {
    let _turn = web.limits.runs.acquire().await.map_err(Refusal::from)?;
    let state = run_lookup::find(&web, &caller, &id).await?;
    let outbox = web.store.outbox_of(&state.id).await.map_err(Refusal::from)?;
    let chain = asked(&state).into_iter().chain(outbox.into_iter().map(ChainLink::from)).collect();
    let (graph, times) = (Graph::of(&state), Times::of(&state, (web.settings.now)()));
    let (version, message) = (state.version, state.message.clone());
    let text = links::full_log(&web, caller.key.as_deref(), &state);
    let run = run_detail::run(&web, &caller, state).await?;
    let summaries = summaries(&web, &run).await?;
    rendered(&Run { pool: &web.settings.name, run, version, text, message, graph, times, summaries, chain })
}

/// The summaries of a run's jobs as HTML, as much of them as a page shows.
async fn summaries(web: &Web, run: &RunView) -> Result<Vec<(String, String)>, Refusal> {
    let mut room = SUMMARIES;
    let given = run.jobs.iter().filter(|job| !job.summary.is_empty()).map(|job| {
        let most = job.summary.len().min(room);
        room -= most;
        (job.name.clone(), job.summary.clone(), most)
    });
    let given: Vec<(String, String, usize)> = given.collect();
    if given.is_empty() {
        return Ok(Vec::new());
    }
    let permit = web.limits.summaries.clone().acquire_owned().await?;
    let rendering = tokio::task::spawn_blocking(move || {
        let rendered = given.into_iter().map(|(job, text, most)| (job, markdown::render(&text, most)));
        (rendered.collect(), permit)
    });
    Ok(rendering.await?.0)
}

/// The events that asked for a run: they were checked when they came, or there would be no run.
fn asked(state: &run::RunState) -> Vec<ChainLink> {
    let origin = state.request.origin.nostr();
    let events = origin.into_iter().flat_map(|origin| origin.run.iter().chain([&origin.request]));
    let link = |event: &OriginEvent| ChainLink {
        kind: event.kind,
        what: describe(event.kind),
        id: event.id.clone(),
        signature: "checked when it came",
        class: "success",
        relays: String::new(),
    };
    events.map(link).collect()
}

/// What an event of this kind is, for people.
fn describe(kind: u16) -> &'static str {
    match kind {
        5100 => "job",
        5101 => "job result",
        5401 => "workflow run",
        5402 => "workflow result",
        30100 => "job status",
        _ => "",
    }
}

impl From<Pending> for ChainLink {
    /// The signature is checked here and now, over the bytes that went out.
    fn from(Pending { outgoing, answers }: Pending) -> Self {
        let mut event: serde_json::Value = serde_json::from_str(&outgoing.unsigned).unwrap_or_default();
        let kind = event.get("kind").and_then(serde_json::Value::as_u64);
        let kind = kind.and_then(|kind| u16::try_from(kind).ok()).unwrap_or_default();
        let (signature, class) = match &outgoing.signature {
            None => ("not signed yet", "queued"),
            Some(signature) => {
                if let Some(fields) = event.as_object_mut() {
                    fields.insert("sig".to_owned(), signature.as_str().into());
                }
                let valid = Event::from_json(event.to_string()).is_ok_and(|event| event.verify().is_ok());
                if valid { ("valid", "success") } else { ("does not fit", "failure") }
            }
        };
        let taken: Vec<_> =
            answers.into_iter().filter(|(_, answer)| answer.is_empty()).map(|(relay, _)| relay).collect();
        Self { kind, what: describe(kind), id: outgoing.event, signature, class, relays: taken.join(", ") }
    }
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

    pub(super) fn created(&self) -> String {
        time::moment(&self.created_at)
    }

    pub(super) fn short_commit(&self) -> String {
        self.commit.chars().take(10).collect()
    }
}

impl RunView {
    /// Its status.
    fn word(&self) -> &'static str {
        self.conclusion.map_or(self.phase, Conclusion::as_str)
    }

    fn created(&self) -> String {
        time::moment(&self.created_at)
    }

    /// From the request to the end, waiting included.
    fn took(&self) -> Option<String> {
        Some(span(self.ended_at?.saturating_sub(self.created_at)))
    }

    fn sha256(&self) -> &str {
        self.log_sha256.as_ref().map(BlobHash::as_str).unwrap_or_default()
    }

    fn repository_link(&self) -> String {
        super::repositories::page(&self.repository)
    }

    /// The page of the definition that a file came from.
    fn definition_link(&self, file: &DefinitionOverride) -> String {
        super::repositories::edit_page(&self.repository, &file.path, Some(&file.event))
    }

    /// The page of a job's log, at a step where one is named.
    fn log_link(&self, job: &JobView, attempt: &u32, step: Option<&str>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("job", job.key.as_str()).append_pair("attempt", &attempt.to_string());
        if let Some(step) = step {
            query.append_pair("step", step);
        }
        format!("/runs/{}/log?{}", self.id, query.finish())
    }
}

impl JobView {
    /// Its status.
    fn word(&self) -> &'static str {
        self.conclusion.map_or(self.phase, Conclusion::as_str)
    }

    /// Whether its details are open from the start.
    fn is_open(&self) -> bool {
        self.conclusion == Some(Conclusion::Failure) || self.approval.as_ref().is_some_and(|approval| approval.waits)
    }

    /// Attempts that ended without a result.
    fn lost(&self) -> impl Iterator<Item = (&AttemptView, &str)> {
        self.attempts.iter().filter_map(|attempt| Some((attempt, attempt.lost.as_deref()?)))
    }
}

impl ArtifactView {
    fn size(&self) -> String {
        size(self.size)
    }

    fn until(&self) -> String {
        time::moment(&self.expires_at)
    }
}

impl CacheView {
    fn size(&self) -> String {
        if self.size == 0 { String::new() } else { size(self.size) }
    }

    /// CSS class of the outcome.
    fn class(&self) -> &'static str {
        if self.outcome == "miss" { "skipped" } else { "success" }
    }
}

impl ApprovalView {
    /// What was decided, by whom and when.
    fn describe(&self) -> Option<String> {
        let (verdict, by, at) = (self.verdict?, self.by.as_ref()?, self.at?);
        let comment = self.comment.as_ref().filter(|text| !text.is_empty());
        let comment = comment.map(|text| format!(": {text}")).unwrap_or_default();
        Some(format!("{verdict} by {by} at {} UTC{comment}", time::moment(&at)))
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
