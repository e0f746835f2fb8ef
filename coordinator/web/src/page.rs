//! The pages of runs: a list, and one run with its jobs, its summaries and its chain of events.

use askama::Template;
use axum::{
    extract::{Path, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse},
};
use nostr::{Event, JsonUtil};
use workflow::plan::Conclusion;

use super::{
    QueryParams, Refusal, Web, api,
    auth::Caller,
    dto::{ApprovalView, ArtifactView, AttemptView, CacheView, JobView, RunSummary, RunView, size, time},
    graph::{Graph, Times, span},
    html::{HtmlError, rendered, repository_name},
    links, markdown, run_detail, run_lookup,
};
use domain::id::BlobHash;
use domain::run::{self, DefinitionOverride, OriginEvent};
use store::{Pending, Status};

/// Bytes of Markdown that one page renders.
const SUMMARIES: usize = 4 * markdown::RENDERED;

#[derive(Template)]
#[template(path = "runs.html")]
struct Runs<'a> {
    pool: &'a str,
    runs: Vec<RunSummary>,
    wanted: api::RunQuery,
    statuses: &'static [Status],
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

pub(super) async fn runs(
    State(web): State<Web>,
    caller: Caller,
    QueryParams(wanted): QueryParams<api::RunQuery>,
) -> Result<(StatusCode, Html<String>), HtmlError> {
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
    let statuses = Status::all();
    let change = latest.or_else(|| runs.iter().map(|run| run.change).max()).unwrap_or(0);
    let pool = &web.settings.name;
    Ok((status, rendered(&Runs { pool, runs, wanted, statuses, query, next, change, problem })?))
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

macro_rules! assets {
    ($($name:literal as $kind:literal),* $(,)?) => {
        /// What pages load: everything lies in the program.
        pub(super) async fn asset(Path(name): Path<String>) -> Result<impl IntoResponse, Refusal> {
            match name.as_str() {
                $($name => Ok((
                    [(header::CONTENT_TYPE, $kind), (header::CACHE_CONTROL, "no-cache")],
                    include_str!(concat!("../assets/", $name)),
                )),)*
                _ => Err(Refusal::new(StatusCode::NOT_FOUND, "there is no such file")),
            }
        }
    };
}

assets! {
    "page.css" as "text/css; charset=utf-8",
    "icon.svg" as "image/svg+xml",
    "page.js" as "text/javascript; charset=utf-8",
    "dom.js" as "text/javascript; charset=utf-8",
    "list.js" as "text/javascript; charset=utf-8",
    "run.js" as "text/javascript; charset=utf-8",
    "log.js" as "text/javascript; charset=utf-8",
    "ansi.js" as "text/javascript; charset=utf-8",
    "sign.js" as "text/javascript; charset=utf-8",
    "edit.js" as "text/javascript; charset=utf-8",
    "yaml.js" as "text/javascript; charset=utf-8",
    "make.js" as "text/javascript; charset=utf-8",
    "dialog.js" as "text/javascript; charset=utf-8",
    "review.js" as "text/javascript; charset=utf-8",
    "stream.js" as "text/javascript; charset=utf-8",
    "bunker.js" as "text/javascript; charset=utf-8",
    "noble/ciphers/chacha.js" as "text/javascript; charset=utf-8",
    "noble/ciphers/_arx.js" as "text/javascript; charset=utf-8",
    "noble/ciphers/_poly1305.js" as "text/javascript; charset=utf-8",
    "noble/ciphers/utils.js" as "text/javascript; charset=utf-8",
    "noble/hashes/hkdf.js" as "text/javascript; charset=utf-8",
    "noble/hashes/hmac.js" as "text/javascript; charset=utf-8",
    "noble/hashes/sha2.js" as "text/javascript; charset=utf-8",
    "noble/hashes/_md.js" as "text/javascript; charset=utf-8",
    "noble/hashes/_u64.js" as "text/javascript; charset=utf-8",
    "noble/hashes/utils.js" as "text/javascript; charset=utf-8",
    "noble/secp256k1/index.js" as "text/javascript; charset=utf-8",
}

impl api::RunQuery {
    fn repository(&self) -> &str {
        self.repository.as_deref().unwrap_or_default()
    }

    fn workflow(&self) -> &str {
        self.workflow.as_deref().unwrap_or_default()
    }

    fn branch(&self) -> &str {
        self.branch.as_deref().unwrap_or_default()
    }

    fn actor(&self) -> &str {
        self.actor.as_deref().unwrap_or_default()
    }

    fn event(&self) -> &str {
        self.event.as_deref().unwrap_or_default()
    }

    fn is_status(&self, word: &str) -> bool {
        self.status.as_deref() == Some(word)
    }
}

impl RunSummary {
    pub(super) fn title(&self) -> String {
        let name = if self.name.is_empty() { "run" } else { &self.name };
        format!("{name} #{}", self.number)
    }

    pub(super) fn repository_name(&self) -> String {
        repository_name(&self.repository)
    }

    pub(super) fn created(&self) -> String {
        time(self.created_at)
    }

    pub(super) fn short_commit(&self) -> String {
        self.commit.chars().take(10).collect()
    }

    pub(super) fn short_actor(&self) -> String {
        self.actor.chars().take(8).collect()
    }
}

impl RunView {
    /// Its status.
    fn word(&self) -> &'static str {
        self.conclusion.map_or(self.phase, Conclusion::as_str)
    }

    fn created(&self) -> String {
        time(self.created_at)
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
        time(self.expires_at)
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
        Some(format!("{verdict} by {by} at {} UTC{comment}", time(at)))
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
