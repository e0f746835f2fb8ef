//! The page of one job's log: lines that can be read without a script, which a script makes live and endless.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Html,
};
use serde::Deserialize;

use domain::id::JobKey;
use domain::run::Millis;

use super::{
    QueryParams, Refusal, Web,
    auth::Caller,
    dto::{AttemptView, JobView, RunView},
    failure,
    html::{HtmlError, rendered},
    job_details::JobDetails,
    links, log_lines,
    log_text::{classified, strip_ansi},
    run_detail, run_lookup, time,
};
use logs::{
    line_text::step_name,
    lines::{NumberedLine, StepLines},
};

/// Lines on one page.
const PAGE: u64 = 500;
/// Steps that are listed where no script draws them.
const STEPS: usize = 200;

/// Which lines are shown.
#[derive(Debug, Deserialize)]
pub(super) struct LogPageQuery {
    job: JobKey,
    attempt: Option<u32>,
    /// The first one.
    from: Option<u64>,
    /// One that is to be seen.
    line: Option<u64>,
    /// Name of the step to begin with.
    step: Option<String>,
}

#[derive(Template)]
#[template(path = "log.html")]
struct Log<'a> {
    pool: &'a str,
    now: Millis,
    view: &'a RunView,
    /// Where the run's whole log is.
    text: String,
    job: &'a JobKey,
    name: &'a str,
    shown: &'a JobView,
    attempt: u32,
    total: u64,
    complete: bool,
    from: u64,
    /// The line that was asked for, 0: none.
    here: u64,
    /// The line at which the job failed, 0: none.
    error: u64,
    steps: Vec<StepLines>,
    lines: Vec<NumberedLine>,
}

pub(super) async fn log(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
    QueryParams(wanted): QueryParams<LogPageQuery>,
) -> Result<Html<String>, HtmlError> {
    let _turn = web.limits.runs.acquire().await.map_err(Refusal::from)?;
    let run = run_lookup::find(&web, &caller, &id).await?;
    let (attempt, complete) = log_lines::attempt(&run, &wanted.job, wanted.attempt)?;
    let (job, logs) = (&wanted.job, &web.logs);
    let mut steps = logs.outline(&run.id, job, attempt).await.map_err(Refusal::from)?;
    let failing = steps.iter().find(|step| step.conclusion.as_deref() == Some("failure"));
    let error = match failing {
        Some(step) => failure::error_line(&web, (&run.id, job, attempt), step).await?,
        None => 0,
    };
    let mut here = wanted.line.unwrap_or(0);
    if let Some(name) = &wanted.step {
        let is_failing = failing.is_some_and(|step| step.name == *name || step_name(&step.name) == name);
        if !is_failing {
            here = logs.step(&run.id, job, attempt, name).await.map_err(Refusal::from)?.unwrap_or(0);
        }
    }
    let near = if here == 0 { error } else { here };
    let from = wanted.from.unwrap_or_else(|| near.saturating_sub(if here == 0 { 20 } else { 5 })).max(1);
    let to = from.saturating_add(PAGE - 1);
    let range = logs.lines(&run.id, job, attempt, complete, (from, to)).await.map_err(Refusal::from)?;
    let text = links::job_log(&web, caller.key.as_deref(), &run, job, attempt);
    let worker_names = run_detail::worker_names(&web.store, &run).await?;
    // Its jobs alone: their reports are on the run's page.
    let view = RunView { worker_names, ..RunView::new(run, JobDetails::default()) };
    let Some(shown) = view.jobs.iter().find(|one| one.key == *job) else {
        return Err(Refusal::new(axum::http::StatusCode::NOT_FOUND, "the run has no such job").into());
    };
    steps.truncate(STEPS);
    rendered(&Log {
        pool: &web.settings.name,
        now: (web.settings.now)(),
        view: &view,
        text,
        job,
        name: &shown.name,
        shown,
        attempt,
        total: range.total,
        complete,
        from,
        here,
        error,
        steps,
        lines: range.lines,
    })
}

impl Log<'_> {
    fn word(&self) -> &'static str {
        self.shown.word()
    }

    /// The exit code of what failed.
    fn failed_with(&self) -> Option<i32> {
        self.shown.exit_code.filter(|code| *code != 0)
    }

    /// Name of the file that its text is kept as.
    fn file_name(&self) -> String {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '-' };
        format!("{}-{}-{}.log", self.view.name, self.view.number, self.name).chars().map(plain).collect()
    }

    /// The attempt whose log this is, where something is known of it.
    fn record(&self) -> Option<&AttemptView> {
        self.shown.attempts.iter().find(|one| one.number == self.attempt)
    }

    /// Address of the page that begins with a line.
    fn page(&self, from: &u64) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("job", self.job.as_str()).append_pair("attempt", &self.attempt.to_string());
        query.append_pair("from", &from.to_string());
        format!("/runs/{}/log?{}", self.view.id, query.finish())
    }

    fn previous(&self) -> Option<String> {
        (self.from > 1).then(|| self.page(&self.from.saturating_sub(PAGE).max(1)))
    }

    fn next(&self) -> Option<String> {
        let last = self.lines.last()?.number;
        (last < self.total).then(|| self.page(&(last + 1)))
    }
}

/// How a page shows a line.
trait Shown {
    fn plain(&self) -> String;
    fn beside(&self) -> String;
    fn clock(&self) -> String;
    fn class(&self) -> &'static str;
}

/// How a page shows a step where no script does.
trait ShownStep {
    fn word(&self, complete: &bool) -> &str;
    fn shown_name(&self) -> String;
    fn took(&self) -> String;
}

impl ShownStep for StepLines {
    fn word(&self, complete: &bool) -> &str {
        self.conclusion.as_deref().unwrap_or(if *complete { "cancelled" } else { "running" })
    }

    fn shown_name(&self) -> String {
        strip_ansi(step_name(&self.name))
    }

    fn took(&self) -> String {
        self.duration_ms.map(time::span).unwrap_or_default()
    }
}

impl Shown for NumberedLine {
    /// The text without control sequences.
    fn plain(&self) -> String {
        let text = strip_ansi(classified(&self.text).1);
        match &self.ended {
            Some((conclusion, duration)) => format!("{text}: {conclusion} after {}", time::span(*duration)),
            None => text,
        }
    }

    fn class(&self) -> &'static str {
        classified(&self.text).0
    }

    /// The step, where several print at the same time.
    fn beside(&self) -> String {
        self.within.as_deref().map(|step| format!("[{}] ", strip_ansi(step))).unwrap_or_default()
    }

    fn clock(&self) -> String {
        time::moment(&self.time_ms)
    }
}
