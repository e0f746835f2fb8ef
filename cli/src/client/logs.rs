//! `longshore logs`: a run's log, live or as far as it goes.

use std::{collections::BTreeMap, pin::pin, process::ExitCode, time::Duration};

use ::coordinator::log::beside::Beside;
use anyhow::{Result, bail};
use futures::StreamExt as _;
use reqwest::Method;

use super::{
    api::Server,
    code_of,
    stream::{Connection, Event, Lines, Run, events},
};
use crate::terminal::printable::printable;

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
    /// Only this job
    #[arg(long, value_name = "KEY")]
    job: Option<String>,
    /// Print each piece of the log as JSON, one object a line: job, attempt, lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let api = args.server.connect()?;
    let mut shown = Shown { only: args.job.clone(), json: args.json, ..Shown::default() };
    if args.follow {
        let mut events = pin!(events(&api, &args.run));
        while let Some(event) = events.next().await {
            if shown.take(&event?)? {
                break;
            }
        }
        return Ok(code_of(shown.conclusion.as_deref()));
    }
    let state: Run = api.get(&format!("/api/runs/{}", args.run)).await?;
    // Of a run that goes on, what is there now is what comes before the stream pauses.
    let limit = if state.phase == "done" { Duration::MAX } else { Duration::from_millis(500) };
    let path = format!("/api/runs/{}/logs", args.run);
    let mut connection = Connection::new(api.send(Method::GET, &path, &[]).await?);
    while let Ok(Some(event)) = tokio::time::timeout(limit, connection.next()).await.unwrap_or(Ok(None)) {
        if shown.take(&event)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What was shown so far.
#[derive(Default)]
struct Shown {
    only: Option<String>,
    json: bool,
    names: BTreeMap<String, String>,
    /// By job: what prints at once.
    beside: BTreeMap<String, Beside>,
    conclusion: Option<String>,
}

impl Shown {
    /// Shows an event; true at the end.
    fn take(&mut self, event: &Event) -> Result<bool> {
        match event.kind.as_str() {
            "run" => {
                let run: Run = serde_json::from_str(&event.data)?;
                self.names.extend(run.jobs.into_iter().map(|job| (job.key, job.name)));
                self.conclusion = run.conclusion;
            }
            "log" => self.lines(&event.data)?,
            "failed" => bail!("the coordinator cannot read the log: {}", event.data),
            "end" => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    #[allow(clippy::print_stdout)]
    fn lines(&mut self, data: &str) -> Result<()> {
        let lines: Lines = serde_json::from_str(data)?;
        if self.only.as_ref().is_some_and(|only| *only != lines.job) {
            return Ok(());
        }
        if self.json {
            println!("{data}");
            return Ok(());
        }
        let job = printable(self.names.get(&lines.job).unwrap_or(&lines.job));
        let beside = self.beside.entry(lines.job.clone()).or_default();
        for line in &lines.lines {
            if let Some(mark) = &line.mark {
                beside.mark(line.step, &mark.name, mark.ended);
            }
            let name = match beside.name(line.step) {
                Some(step) if line.mark.is_none() => format!("{job} / {}", printable(step)),
                _ => job.to_string(),
            };
            match &line.mark {
                Some(mark) if !mark.ended => println!("{name} | ⭐ {}", printable(&mark.name)),
                Some(mark) => {
                    let seconds = Duration::from_millis(mark.duration_ms).as_secs_f64();
                    println!("{name} | {} {} ({seconds:.1} s)", sign(&mark.conclusion), printable(&mark.name));
                }
                None if line.stream == "notice" => {
                    line.text.lines().for_each(|text| println!("{name} | · {}", printable(text)))
                }
                None => line.text.lines().for_each(|text| println!("{name} | {}", printable(text))),
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
