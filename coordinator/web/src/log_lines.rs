//! The API for lines of a log: by number, and by a text that they contain.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    QueryParams, Refusal, Web,
    auth::Caller,
    request_limits::{self, Client},
    run_lookup,
};
use domain::id::JobKey;
use domain::run::{JobPhase, RunState as Run};
use logs::lines::{MOST_LINES, NumberedLine, StepLines};

/// Longest text to search for, in bytes.
const LONGEST: usize = 200;

/// Which lines are requested.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LineQuery {
    /// Key of the job.
    #[param(value_type = String)]
    job: JobKey,
    /// Its attempt; otherwise the latest.
    attempt: Option<u32>,
    /// The first line, from 1.
    from: Option<u64>,
    /// The last line. At most 5000 lines, or about 2 MB, are given at once.
    to: Option<u64>,
}

/// Whose steps are requested.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StepQuery {
    /// Key of the job.
    #[param(value_type = String)]
    job: JobKey,
    /// Its attempt; otherwise the latest.
    attempt: Option<u32>,
}

/// Which lines are searched, and for what.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchQuery {
    /// Key of the job.
    #[param(value_type = String)]
    job: JobKey,
    /// Its attempt; otherwise the latest.
    attempt: Option<u32>,
    /// The text; case is ignored.
    text: String,
    /// The first line to look at.
    from: Option<u64>,
}

/// Lines of one attempt.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Lines {
    #[schema(value_type = String)]
    job: JobKey,
    attempt: u32,
    /// Lines there are now.
    total: u64,
    /// No more will come.
    complete: bool,
    #[schema(value_type = Vec<Line>)]
    lines: Vec<NumberedLine>,
}

/// One line.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes lines of another module, which knows no schema")]
struct Line {
    /// From 1.
    number: u64,
    time_ms: u64,
    /// Index of the step, -1 before the first, -2 after the last.
    step: i32,
    /// `stdout`, `stderr`, `notice`, or `mark` where a step begins or ends.
    stream: String,
    text: String,
    /// For a mark that ends a step: its conclusion and milliseconds.
    #[schema(value_type = Option<Vec<serde_json::Value>>, required = false)]
    ended: Option<(String, u64)>,
    /// Name of the step, where several steps print at the same time.
    #[schema(required = false)]
    within: Option<String>,
}

/// The steps of one attempt's log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Steps {
    attempt: u32,
    /// No more will come.
    complete: bool,
    #[schema(value_type = Vec<Step>)]
    steps: Vec<StepLines>,
}

/// One step.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes steps of another module, which knows no schema")]
struct Step {
    /// `Main cargo test`, `Post actions/cache@v4`, `Set up job`.
    name: String,
    /// Index of the step, -1 before the first, -2 after the last.
    step: i32,
    /// The line with which it begins.
    first: u64,
    /// The line with which it ends, once it did.
    last: Option<u64>,
    begun_at: u64,
    conclusion: Option<String>,
    duration_ms: Option<u64>,
}

/// The lines that contain a text.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Matches {
    attempt: u32,
    /// Numbers of lines.
    lines: Vec<u64>,
    /// The line to continue the search from, where the answer does not reach the end.
    next: Option<u64>,
}

/// Lines of a job's log by number.
#[utoipa::path(get, path = "/api/runs/{id}/lines", tag = "logs", params(("id" = String, Path), LineQuery), responses(
    (status = 200, body = Lines), (status = 400, body = super::Problem), (status = 404, body = super::Problem),
))]
pub(super) async fn lines(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
    QueryParams(wanted): QueryParams<LineQuery>,
) -> Result<Json<Lines>, Refusal> {
    let run = run_lookup::find(&web, &caller, &id).await?;
    let (attempt, complete) = attempt(&run, &wanted.job, wanted.attempt)?;
    let from = wanted.from.unwrap_or(1).max(1);
    let to = wanted.to.unwrap_or_else(|| from.saturating_add(MOST_LINES - 1));
    let range = web.logs.lines(&run.id, &wanted.job, attempt, complete, (from, to)).await?;
    Ok(Json(Lines { job: wanted.job, attempt, total: range.total, complete, lines: range.lines }))
}

/// The steps of a job's log: where each begins and ends, and how it ended.
#[utoipa::path(get, path = "/api/runs/{id}/steps", tag = "logs", params(("id" = String, Path), StepQuery), responses(
    (status = 200, body = Steps), (status = 400, body = super::Problem), (status = 404, body = super::Problem),
))]
pub(super) async fn steps(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
    QueryParams(wanted): QueryParams<StepQuery>,
) -> Result<Json<Steps>, Refusal> {
    let run = run_lookup::find(&web, &caller, &id).await?;
    let (attempt, complete) = attempt(&run, &wanted.job, wanted.attempt)?;
    let steps = web.logs.outline(&run.id, &wanted.job, attempt).await?;
    Ok(Json(Steps { attempt, complete, steps }))
}

/// Numbers of the lines of a job's log that contain a text.
#[utoipa::path(get, path = "/api/runs/{id}/search", tag = "logs", params(("id" = String, Path), SearchQuery), responses(
    (status = 200, body = Matches), (status = 400, body = super::Problem), (status = 404, body = super::Problem),
    (status = 429, body = super::Problem), (status = 503, body = super::Problem),
))]
pub(super) async fn search(
    State(web): State<Web>,
    caller: Caller,
    client: Client,
    Path(id): Path<String>,
    QueryParams(wanted): QueryParams<SearchQuery>,
) -> Result<Json<Matches>, Refusal> {
    if wanted.text.is_empty() || wanted.text.len() > LONGEST {
        let reason = format!("search for a text of 1 to {LONGEST} bytes");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, reason));
    }
    let run = run_lookup::find(&web, &caller, &id).await?;
    let _permit = request_limits::permit(&web.limits.searches, client, "searches")?;
    let (attempt, _) = attempt(&run, &wanted.job, wanted.attempt)?;
    let from = wanted.from.unwrap_or(1).max(1);
    let found = web.logs.search(&run.id, &wanted.job, attempt, &wanted.text, from).await?;
    Ok(Json(Matches { attempt, lines: found.lines, next: found.next }))
}

/// The attempt that is meant, and whether its log is complete.
pub(super) fn attempt(run: &Run, job: &JobKey, wanted: Option<u32>) -> Result<(u32, bool), Refusal> {
    let no_job = || Refusal::new(StatusCode::NOT_FOUND, "the run has no such job: its keys stand in /api/runs/{id}");
    let job = run.jobs.get(job).ok_or_else(no_job)?;
    let last = job.attempts.last().map_or(1, |attempt| attempt.number);
    let attempt = wanted.unwrap_or(last);
    Ok((attempt, attempt < last || matches!(job.phase, JobPhase::Done { .. })))
}
