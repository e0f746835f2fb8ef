//! `longshore logs`: a run's log, live or as far as it goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use ::logs::concurrent::ConcurrentSteps;
use anyhow::{Result, bail};
use futures::StreamExt as _;
use reqwest::Method;

use super::{
    api::ServerArgs,
    exit_code, name_with_attempt,
    run_events::{Event, LogChunk, RunState, event_stream, events},
    with_reason,
};
use crate::terminal::printable::{output_lines, printable};

/// Show a run's log
///
/// With --follow the lines appear while the run goes on, and the exit code is the run's conclusion: 0 success, 1 failure,
/// 130 cancelled.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run: its id, its number in the pool, or the id of its run (5401) or job (5100) event
    run: String,
    /// Follow the log until the run ends
    #[arg(short, long)]
    follow: bool,
    /// Only this job: its id, with every leg of its matrix and every job that it calls, or the key of one (test/0)
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Print each piece of the log as JSON, one object a line: job, attempt, lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let api = args.server.connect()?;
    let (only, json, follow) = (args.job.clone(), args.json, args.follow);
    let mut shown = LogPrinter { only, json, follow, ..LogPrinter::default() };
    if args.follow {
        let mut events = pin!(events(&api, &args.run));
        while let Some(event) = events.next().await {
            if shown.take(&event?)? {
                break;
            }
        }
        let Some(run) = &shown.last else { return Ok(exit_code(None)) };
        if !shown.printed {
            print_no_log(run, args.job.as_deref());
        }
        return Ok(exit_code(run.conclusion.as_deref()));
    }
    let state: RunState = api.get(&format!("/api/runs/{}", args.run)).await?;
    // Before its planning a run has no jobs that one could ask for.
    if state.phase == "planning" {
        print_no_log(&state, None);
        return Ok(ExitCode::SUCCESS);
    }
    check_job(&state, args.job.as_deref())?;
    // Of a run that goes on, what is there now is what comes before the stream pauses.
    let limit = if state.phase == "done" { Duration::MAX } else { Duration::from_millis(500) };
    let path = format!("/api/runs/{}/logs", args.run);
    let mut stream = event_stream(api.send(Method::GET, &path, &[]).await?);
    while let Ok(Some(Ok(event))) = tokio::time::timeout(limit, stream.next()).await {
        if shown.take(&event)? {
            break;
        }
    }
    if !shown.printed {
        print_no_log(&state, args.job.as_deref());
    }
    Ok(ExitCode::SUCCESS)
}

/// Says why there is no line to show.
#[allow(clippy::print_stderr)]
fn print_no_log(run: &RunState, only: Option<&str>) {
    let yet = if run.conclusion.is_some() { "" } else { " yet" };
    let state = with_reason(run.conclusion.as_deref().unwrap_or(&run.phase), run.why.as_deref());
    eprintln!("run {} has no log{yet}: {}", run.serial, printable(&state));
    for job in run.jobs.iter().filter(|job| only.is_none_or(|only| is_key_of(&job.key, only))) {
        let state = with_reason(job.conclusion.as_deref().unwrap_or(&job.phase), job.why.as_deref());
        eprintln!("  {}: {}", printable(&job.name), printable(&state));
    }
}

/// A job that was asked for has to be one of the run's.
fn check_job(run: &RunState, wanted: Option<&str>) -> Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    if run.jobs.iter().any(|job| is_key_of(&job.key, wanted)) {
        return Ok(());
    }
    let keys: BTreeSet<&str> = run.jobs.iter().map(|job| job.key.as_str()).collect();
    let there = if keys.is_empty() { "no jobs".to_owned() } else { keys.into_iter().collect::<Vec<_>>().join(", ") };
    bail!("--job {wanted}: no such job; run {} has {}", run.serial, printable(&there))
}

/// Whether a key is that of this job, of a leg of its matrix, or of a job that it calls. A leg is a number in the key.
fn is_key_of(key: &str, wanted: &str) -> bool {
    let named = |part: &&str| !part.bytes().all(|byte| byte.is_ascii_digit());
    let id = key.split('/').filter(named).collect::<Vec<_>>().join("/");
    let below = |name: &str| name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    below(key) || below(&id)
}

/// What was shown so far.
#[derive(Default)]
struct LogPrinter {
    /// The job that was asked for.
    only: Option<String>,
    json: bool,
    follow: bool,
    names: BTreeMap<String, String>,
    /// By job and attempt: what prints at once.
    beside: BTreeMap<(String, u32), ConcurrentSteps>,
    /// The run as it was told last.
    last: Option<RunState>,
    /// Whether any line was shown.
    printed: bool,
}

impl LogPrinter {
    /// Shows an event; true at the end.
    fn take(&mut self, event: &Event) -> Result<bool> {
        match event.event.as_str() {
            "run" => {
                let run: RunState = serde_json::from_str(&event.data)?;
                // Only of a run that has ended are all jobs known.
                if run.phase == "done" {
                    check_job(&run, self.only.as_deref())?;
                }
                self.names.extend(run.jobs.iter().map(|job| (job.key.clone(), job.name.clone())));
                self.waits(&run);
                self.last = Some(run);
            }
            "log" => self.lines(&event.data)?,
            "failed" => bail!("the coordinator cannot read the log: {}", event.data),
            "end" => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    /// Where there is nothing to follow yet, says once what is waited for.
    #[allow(clippy::print_stderr)]
    fn waits(&self, run: &RunState) {
        let known = self.last.as_ref().and_then(|run| run.why.as_ref());
        let Some(why) = run.why.as_ref().filter(|why| known != Some(*why)) else { return };
        if self.follow && !self.printed && run.conclusion.is_none() {
            eprintln!("run {}: {}", run.serial, printable(why));
        }
    }

    #[allow(clippy::print_stdout)]
    fn lines(&mut self, data: &str) -> Result<()> {
        let lines: LogChunk = serde_json::from_str(data)?;
        if self.only.as_ref().is_some_and(|only| !is_key_of(&lines.job, only)) {
            return Ok(());
        }
        self.printed = true;
        if self.json {
            println!("{data}");
            return Ok(());
        }
        let job = name_with_attempt(self.names.get(&lines.job).unwrap_or(&lines.job), lines.attempt);
        let job = printable(&job);
        let beside = self.beside.entry((lines.job, lines.attempt)).or_default();
        for line in &lines.lines {
            if let Some(mark) = &line.mark {
                beside.mark(line.step, &mark.name, mark.ended);
            }
            let name = match beside.name(line.step) {
                Some(step) if line.mark.is_none() => format!("{job} / {}", printable(step)),
                _ => job.to_string(),
            };
            match &line.mark {
                Some(mark) if !mark.ended => println!("{name} | ⭐ {}", printable(mark.step())),
                Some(mark) => {
                    let seconds = Duration::from_millis(mark.duration_ms).as_secs_f64();
                    println!("{name} | {} {} ({seconds:.1} s)", sign(&mark.conclusion), printable(mark.step()));
                }
                None if line.stream == "notice" => {
                    line.text.lines().for_each(|text| println!("{name} | · {}", printable(text)))
                }
                None => output_lines(&line.text).for_each(|text| println!("{name} | {}", printable(text))),
            }
        }
        Ok(())
    }
}

fn sign(conclusion: &str) -> &'static str {
    match conclusion {
        "success" => "✅",
        "skipped" => "⏭",
        _ => "❌",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_asked_for_by_its_id_or_by_the_key_of_a_leg() {
        for (key, wanted, shown) in [
            ("build", "build", true),
            ("build", "buil", false),
            ("test/0", "test", true),
            ("test/0", "test/0", true),
            ("test/0", "test/1", false),
            ("call/1/deploy/0", "call/deploy", true),
            ("call/1/deploy/0", "call", true),
            ("call/1/deploy/0", "deploy", false),
            ("build", "", false),
        ] {
            assert_eq!(is_key_of(key, wanted), shown, "{key} {wanted}");
        }
    }

    #[test]
    fn an_unknown_job_is_answered_with_those_there_are() {
        let run = r#"{"serial":8,"phase":"done","jobs":[{"key":"build","name":"Build"},{"key":"test/0","name":"T"}]}"#;
        let run: RunState = serde_json::from_str(run).unwrap();
        assert!(check_job(&run, Some("test")).is_ok() && check_job(&run, None).is_ok());
        let said = check_job(&run, Some("nope")).map_or_else(|error| error.to_string(), |()| String::new());
        assert_eq!(said, "--job nope: no such job; run 8 has build, test/0");
    }
}
