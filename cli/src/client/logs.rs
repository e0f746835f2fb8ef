//! `longshore logs`: a run's log, live or as far as it goes.

use std::{collections::BTreeMap, pin::pin, process::ExitCode, time::Duration};

use ::logs::concurrent::ConcurrentSteps;
use anyhow::{Result, bail};
use futures::StreamExt as _;
use reqwest::Method;

use super::{
    api::ServerArgs,
    exit_code, name_with_attempt,
    run_events::{Event, JobState, LogChunk, RunState, event_stream, events},
    with_reason,
};
use crate::terminal::{
    log_lines,
    printable::{output_lines, printable},
};

const EXAMPLES: &str = "\
Examples:
  longshore logs 7                                  the whole log of run 7
  longshore logs 7 --failed                         what failed, and nothing else
  longshore logs 7 --job \"test (linux, 20)\" -f      one leg of a matrix, as it goes on";

/// Show a run's log
///
/// Each line has its job before it, as `longshore exec` prints it; steps begin with ▸ and end with how they ended and how long
/// they took. With --follow the lines appear while the run goes on, and the exit code is the run's conclusion: 0 success, 1 failure,
/// 130 cancelled.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// The run: its id, its number in the pool, or the id of its run (5401) or job (5100) event
    run: String,
    /// Follow the log until the run ends
    #[arg(short, long)]
    follow: bool,
    /// Only this job: its name, such as "test (linux, 20)", or its id, with every leg of its matrix and every job that it
    /// calls
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// Only what the steps printed that failed
    #[arg(long, conflicts_with_all = ["follow", "json"])]
    failed: bool,
    /// Print each piece of the log as JSON, one object a line: job, attempt, lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let api = args.server.connect()?;
    let (only, json, follow, failed) = (args.job.clone(), args.json, args.follow, args.failed);
    let mut shown = LogPrinter { only, json, follow, failed, ..LogPrinter::default() };
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
    if args.failed && !shown.printed {
        print_no_failed_step(&state, args.job.as_deref());
    } else if !shown.printed {
        print_no_log(&state, args.job.as_deref());
    }
    Ok(ExitCode::SUCCESS)
}

/// Says that no step failed, and which jobs did without one.
#[allow(clippy::print_stderr)]
fn print_no_failed_step(run: &RunState, only: Option<&str>) {
    let jobs = run.jobs.iter().filter(|job| only.is_none_or(|only| is_wanted(job, only)));
    let failed: Vec<&JobState> = jobs.filter(|job| job.conclusion.as_deref() == Some("failure")).collect();
    match failed.is_empty() {
        true => eprintln!("no job of run {} failed", run.serial),
        false => eprintln!("no step of run {} failed", run.serial),
    }
    for job in failed {
        eprintln!("  {}: {}", printable(&job.name), printable(&with_reason("failure", job.why.as_deref())));
    }
}

/// Says why there is no line to show.
#[allow(clippy::print_stderr)]
fn print_no_log(run: &RunState, only: Option<&str>) {
    let yet = if run.conclusion.is_some() { "" } else { " yet" };
    let state = with_reason(run.conclusion.as_deref().unwrap_or(&run.phase), run.why.as_deref());
    eprintln!("run {} has no log{yet}: {}", run.serial, printable(&state));
    for job in run.jobs.iter().filter(|job| only.is_none_or(|only| is_wanted(job, only))) {
        let state = with_reason(job.conclusion.as_deref().unwrap_or(&job.phase), job.why.as_deref());
        eprintln!("  {}: {}", printable(&job.name), printable(&state));
    }
}

/// A job that was asked for has to be one of the run's.
fn check_job(run: &RunState, wanted: Option<&str>) -> Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    if run.jobs.iter().any(|job| is_wanted(job, wanted)) {
        return Ok(());
    }
    let names: Vec<&str> = run.jobs.iter().map(|job| job.name.as_str()).collect();
    let there = if names.is_empty() { "no jobs".to_owned() } else { names.join(", ") };
    bail!("--job {wanted}: no such job; run {} has {}", run.serial, printable(&there))
}

/// Whether a job is the one that was asked for: by its name, alone or with its legs or called jobs, or by its key.
fn is_wanted(job: &JobState, wanted: &str) -> bool {
    let rest = job.name.strip_prefix(wanted).filter(|_| !wanted.is_empty());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" (") || rest.starts_with(" / "))
        || is_key_of(&job.key, wanted)
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
    /// Only steps that failed are shown.
    failed: bool,
    names: BTreeMap<String, String>,
    /// Lines of a step that goes on, by job, attempt and step, where only those that failed are shown.
    held: BTreeMap<(String, u32, i32), Vec<String>>,
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
        if !self.wants(&lines.job) {
            return Ok(());
        }
        if self.json {
            self.printed = true;
            println!("{data}");
            return Ok(());
        }
        let job = name_with_attempt(self.names.get(&lines.job).unwrap_or(&lines.job), lines.attempt);
        let job = printable(&job);
        for line in &lines.lines {
            let beside = self.beside.entry((lines.job.clone(), lines.attempt)).or_default();
            if let Some(mark) = &line.mark {
                beside.mark(line.step, &mark.name, mark.ended);
            }
            let name = match beside.name(line.step) {
                Some(step) if line.mark.is_none() => format!("{job} / {}", printable(step)),
                _ => job.to_string(),
            };
            let texts: Vec<String> = match &line.mark {
                Some(mark) if !mark.ended => vec![log_lines::step_begins(&mark.name)],
                Some(mark) => vec![log_lines::step_ends(&mark.name, &mark.conclusion, mark.duration_ms)],
                None if line.stream == "notice" => line.text.lines().filter_map(log_lines::notice).collect(),
                None => output_lines(&line.text).filter_map(log_lines::output).collect(),
            };
            let texts = texts.iter().map(|text| format!("{name} | {text}"));
            if !self.failed {
                self.printed = true;
                texts.for_each(|text| println!("{text}"));
                continue;
            }
            let place = (lines.job.clone(), lines.attempt, line.step);
            self.held.entry(place.clone()).or_default().extend(texts);
            let Some(mark) = line.mark.as_ref().filter(|mark| mark.ended) else { continue };
            let held = self.held.remove(&place).unwrap_or_default();
            if mark.conclusion == "failure" {
                self.printed = true;
                held.iter().for_each(|text| println!("{text}"));
            }
        }
        Ok(())
    }

    fn wants(&self, key: &str) -> bool {
        let Some(only) = &self.only else { return true };
        let known = self.last.iter().flat_map(|run| &run.jobs).find(|job| job.key == *key);
        known.map_or_else(|| is_key_of(key, only), |job| is_wanted(job, only))
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
    fn a_job_is_asked_for_by_the_name_that_commands_print() {
        let job = |key: &str, name: &str| -> JobState {
            serde_json::from_value(serde_json::json!({"key": key, "name": name})).unwrap()
        };
        for (key, name, wanted, shown) in [
            ("test/1", "test (us, 1)", "test (us, 1)", true),
            ("test/1", "test (us, 1)", "test (us, 10)", false),
            ("t/1", "Unit tests (us)", "Unit tests", true),
            ("d/b", "Deploy / build", "Deploy", true),
            ("d/b", "Deploy / build", "Dep", false),
            ("d/b", "Deploy / build", "", false),
            ("test/1", "test (us, 1)", "test/1", true),
        ] {
            assert_eq!(is_wanted(&job(key, name), wanted), shown, "{name} {wanted}");
        }
    }

    #[test]
    fn of_a_log_the_steps_that_failed_can_be_shown_alone() {
        let mut printer = LogPrinter { failed: true, ..LogPrinter::default() };
        let mark = |step: i32, ended: bool, conclusion: &str| {
            format!(
                r#"{{"step":{step},"stream":"mark","mark":{{"name":"Main s{step}","ended":{ended},"conclusion":"{conclusion}","duration_ms":5}}}}"#
            )
        };
        let chunk = |lines: &[String]| format!(r#"{{"job":"a","attempt":1,"lines":[{}]}}"#, lines.join(","));
        let text = |step: i32| format!(r#"{{"step":{step},"stream":"stdout","text":"line\n"}}"#);
        printer.lines(&chunk(&[mark(0, false, ""), text(0), mark(0, true, "success")])).unwrap();
        assert!(!printer.printed && printer.held.is_empty());
        printer.lines(&chunk(&[mark(1, false, ""), text(1)])).unwrap();
        assert_eq!(printer.held.values().map(Vec::len).sum::<usize>(), 2);
        printer.lines(&chunk(&[mark(1, true, "failure")])).unwrap();
        assert!(printer.printed && printer.held.is_empty());
    }

    #[test]
    fn an_unknown_job_is_answered_with_those_there_are() {
        let run = r#"{"serial":8,"phase":"done","jobs":[{"key":"build","name":"Build"},{"key":"test/0","name":"T"}]}"#;
        let run: RunState = serde_json::from_str(run).unwrap();
        assert!(check_job(&run, Some("test")).is_ok() && check_job(&run, None).is_ok());
        let said = check_job(&run, Some("nope")).map_or_else(|error| error.to_string(), |()| String::new());
        assert_eq!(said, "--job nope: no such job; run 8 has Build, T");
    }
}
