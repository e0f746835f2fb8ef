//! Why a run failed: its first failed jobs, each with the step that failed and the last lines that it printed.

use super::{
    Refusal, Web,
    dto::{JobView, RunView},
    log_text,
};
use domain::id::{JobKey, RunId};
use logs::{
    line_text::step_name,
    lines::{NumberedLine, StepLines},
};
use workflow::plan::Conclusion;

/// Most failed jobs that are shown with their lines.
const SHOWN: usize = 3;
/// Lines that are shown of each.
const LINES: usize = 15;
/// Lines that are looked through for them: steps that run at the same time print between.
const LOOKED_AT: u64 = 120;
/// Most characters of a line.
const LONGEST: usize = 400;

/// A job that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// Its position in the run's list.
    pub(super) index: usize,
    pub(super) job: String,
    /// What a rerun calls it.
    pub(super) rerun: String,
    /// The step that failed; none where the job did not get so far.
    pub(super) step: Option<String>,
    pub(super) exit_code: Option<i32>,
    /// Why, where it was not a step's exit code.
    pub(super) why: Option<String>,
    pub(super) lines: Vec<FailureLine>,
    /// The page of its log, at the error.
    pub(super) log: Option<String>,
}

/// One of the last lines.
#[derive(Debug)]
pub(super) struct FailureLine {
    pub(super) number: u64,
    /// Its place on the page of the log.
    pub(super) link: String,
    /// Whether it is an error or a warning, as a class of CSS.
    pub(super) class: &'static str,
    pub(super) text: String,
    /// As it was printed, where that has colours.
    pub(super) raw: Option<String>,
}

/// The first failed jobs, and how many further ones there are.
pub(super) async fn failures(web: &Web, run: &RunView) -> Result<(Vec<Failure>, usize), Refusal> {
    let failed = || run.jobs.iter().enumerate().filter(|(_, job)| job.fails_the_run());
    let mut found = Vec::new();
    for (index, job) in failed().take(SHOWN) {
        found.push(failure(web, run, index, job).await?);
    }
    Ok((found, failed().count().saturating_sub(SHOWN)))
}

async fn failure(web: &Web, run: &RunView, index: usize, job: &JobView) -> Result<Failure, Refusal> {
    let step = job.steps.iter().find(|step| step.conclusion == Conclusion::Failure);
    let is_step = matches!(job.reason, None | Some(workflow::plan::Reason::Step));
    let mut failure = Failure {
        index,
        job: job.name.clone(),
        rerun: job.rerun.clone(),
        step: step.map(|step| step_name(&step.name).to_owned()),
        exit_code: step.and_then(|step| step.exit_code).filter(|code| *code != 0),
        why: job.why.clone().filter(|_| !is_step || step.is_none()),
        lines: Vec::new(),
        log: None,
    };
    // A log of an earlier run is that run's.
    if job.attempt > 0 && job.carried_from.is_none() {
        let outline = web.logs.outline(&run.id, &job.key, job.attempt).await?;
        let failing = outline.iter().find(|step| step.conclusion.as_deref() == Some("failure"));
        failure.lines = last_lines(web, run, job, failing).await?;
        let error = failure.lines.iter().find(|line| line.class == "error").or(failure.lines.last());
        failure.log = Some(run.log_link(job, &job.attempt, error.map(|line| line.number)));
        if failure.step.is_none() {
            failure.step = failing.map(|step| step_name(&step.name).to_owned());
        }
    }
    Ok(failure)
}

/// The line at which a step failed: its first error among the last lines, otherwise its last line.
pub(super) async fn error_line(
    web: &Web,
    (run, job, attempt): (&RunId, &JobKey, u32),
    step: &StepLines,
) -> Result<u64, Refusal> {
    let Some(last) = step.last else { return Ok(step.first) };
    let lines = before(web, (run, job, attempt), last, Some(step)).await?;
    let error = lines.iter().find(|line| log_text::classified(&line.text).0 == "error");
    Ok(error.or(lines.last()).map_or(step.first, |line| line.number))
}

/// What a step printed before a line, without the marks; without a step, what the job printed.
async fn before(
    web: &Web,
    (run, job, attempt): (&RunId, &JobKey, u32),
    last: u64,
    step: Option<&StepLines>,
) -> Result<Vec<NumberedLine>, Refusal> {
    let first = step.map_or(0, |step| step.first);
    let from = last.saturating_sub(LOOKED_AT).max(first + 1);
    let mut lines = web.logs.lines(run, job, attempt, true, (from, last.saturating_sub(1).max(from))).await?.lines;
    lines.retain(|line| line.number < last && line.stream != "mark" && step.is_none_or(|step| step.step == line.step));
    Ok(lines)
}

/// What the step printed last; without a step, what the job did.
async fn last_lines(
    web: &Web,
    run: &RunView,
    job: &JobView,
    step: Option<&StepLines>,
) -> Result<Vec<FailureLine>, Refusal> {
    let place = (&run.id, &job.key, job.attempt);
    let last = match step.and_then(|step| step.last) {
        Some(last) => last,
        None => web.logs.lines(&run.id, &job.key, job.attempt, true, (u64::MAX, u64::MAX)).await?.total + 1,
    };
    let found = before(web, place, last, step).await?;
    let mut lines: Vec<FailureLine> =
        found.iter().map(|line| shown(run, job, line)).filter(|line| line.class != "end").collect();
    lines.drain(..lines.len().saturating_sub(LINES));
    Ok(lines)
}

fn shown(run: &RunView, job: &JobView, line: &NumberedLine) -> FailureLine {
    let (class, text) = log_text::classified(&line.text);
    let cut = |text: &str| log_text::cut(text, LONGEST).into_owned();
    FailureLine {
        number: line.number,
        link: run.log_link(job, &job.attempt, Some(line.number)),
        class,
        text: cut(&log_text::strip_ansi(text)),
        raw: text.contains('\u{1b}').then(|| cut(text)),
    }
}
