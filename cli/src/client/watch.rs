//! `longshore watch`: a run as a tree of jobs and steps, until it ends.

use std::{collections::BTreeMap, pin::pin, process::ExitCode, time::Duration};

use ::logs::line_text::step_name;
use anyhow::{Result, bail};
use futures::StreamExt as _;

use super::{
    api::ServerArgs,
    exit_code, name_with_attempt,
    run_events::{Event, JobState, LogChunk, RunState, events},
    status_word, with_reason,
};
use crate::{
    clock::now_ms,
    terminal::{printable::printable, screen::Screen, tree::StatusMark},
};

/// How often the tree is drawn.
const TICK: Duration = Duration::from_millis(125);

/// Watch a run: its jobs and steps as a tree that grows while it goes on
///
/// Where standard output is no terminal, each change is a line. The exit code is the run's conclusion: 0 success, 1
/// failure, 130 cancelled.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run: its id, its number in the pool, or the id of its run (5401) or job (5100) event
    run: String,
    /// Print each state of the run as JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let api = args.server.connect()?;
    let mut events = pin!(events(&api, &args.run));
    let mut watched = RunWatcher {
        screen: if args.json { None } else { Screen::open() },
        json: args.json,
        states: BTreeMap::new(),
        names: BTreeMap::new(),
        attempts: BTreeMap::new(),
        conclusion: None,
        is_over: false,
    };
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else { break };
                if watched.take(&event?)? {
                    break;
                }
            }
            _ = tick.tick() => watched.screen.iter_mut().for_each(|screen| screen.draw(now_ms())),
        }
    }
    watched.screen.iter_mut().for_each(|screen| screen.leave(now_ms()));
    Ok(exit_code(watched.conclusion.as_deref()))
}

/// What was shown so far.
struct RunWatcher {
    screen: Option<Screen>,
    json: bool,
    /// The last state printed for each job, step and the run.
    states: BTreeMap<String, String>,
    names: BTreeMap<String, String>,
    /// By job: the attempt whose steps are shown.
    attempts: BTreeMap<String, u32>,
    conclusion: Option<String>,
    /// It had ended before it was watched, and that was said.
    is_over: bool,
}

impl RunWatcher {
    /// Shows an event; true at the end.
    fn take(&mut self, event: &Event) -> Result<bool> {
        match event.event.as_str() {
            "run" => {
                self.run(serde_json::from_str(&event.data)?, &event.data);
                return Ok(self.is_over && !self.json);
            }
            "log" => self.steps(&serde_json::from_str(&event.data)?),
            "failed" => bail!("the coordinator cannot read the log: {}", event.data),
            "end" => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    #[allow(clippy::print_stdout)]
    fn run(&mut self, run: RunState, data: &str) {
        if self.json {
            println!("{data}");
        }
        // What is over is told in short where no tree shows it.
        self.is_over = self.states.is_empty() && run.conclusion.is_some() && self.screen.is_none();
        let title = format!("{} #{} (run {})", run.name, run.number, run.serial);
        let word = status_word(&run.phase, run.waits.is_some(), run.started_at.is_some());
        let state = run.conclusion.as_deref().unwrap_or(word);
        self.print_change("", &title, &with_reason(state, run.why.as_deref()));
        if let Some(screen) = &mut self.screen {
            screen.tree.keep(|key| run.jobs.iter().any(|job| job.key == key));
        }
        for job in &run.jobs {
            let name = name_with_attempt(&job.name, job.attempt);
            let why = job.why.as_deref();
            match &mut self.screen {
                Some(screen) => {
                    screen.tree.job(&job.key, &name, mark(job), why.unwrap_or_default(), now_ms());
                    screen.tree.times(&job.key, job.started_at, job.ended_at);
                }
                None => {
                    let state = job.conclusion.as_deref().unwrap_or(&job.phase);
                    self.print_change(&job.key, &name, &with_reason(state, why));
                }
            }
        }
        self.names.extend(run.jobs.into_iter().map(|job| (job.key, job.name)));
        self.conclusion = run.conclusion;
    }

    fn steps(&mut self, lines: &LogChunk) {
        let before = self.attempts.insert(lines.job.clone(), lines.attempt);
        if let (Some(screen), true) = (&mut self.screen, before.is_some_and(|before| before != lines.attempt)) {
            screen.tree.restart(&lines.job);
        }
        let marks = lines.lines.iter().filter_map(|line| Some((line, line.mark.as_ref()?)));
        for (line, mark) in marks {
            let state = if mark.ended { mark.conclusion.as_str() } else { "running" };
            let name = step_name(&mark.name);
            // What follows the last step has a number below all.
            let number = if line.step < -1 { i32::MAX } else { line.step };
            match &mut self.screen {
                // It began and ended when the worker says so, not when one hears of it.
                Some(screen) => screen.tree.step(&lines.job, number, name, StatusMark::of(state), line.time_ms),
                None => {
                    let job = self.names.get(&lines.job).unwrap_or(&lines.job);
                    let step = format!("{}: {name}", name_with_attempt(job, lines.attempt));
                    self.print_change(&format!("{}/{}/{number}", lines.job, lines.attempt), &step, state);
                }
            }
        }
    }

    /// A line for what changed and what no tree shows: in a terminal it stands above the tree.
    #[allow(clippy::print_stdout)]
    fn print_change(&mut self, key: &str, name: &str, state: &str) {
        if self.json || self.states.get(key).is_some_and(|known| known == state) {
            return;
        }
        let line = format!("{}: {}", printable(name), printable(state));
        match &mut self.screen {
            Some(screen) => screen.print_above(&line, now_ms()),
            None => println!("{line}"),
        }
        self.states.insert(key.to_owned(), state.to_owned());
    }
}

fn mark(job: &JobState) -> StatusMark {
    match (job.conclusion.as_deref(), job.phase.as_str()) {
        (Some(conclusion), _) => StatusMark::of(conclusion),
        (None, "running" | "cancelling") => StatusMark::Running,
        _ => StatusMark::Waiting,
    }
}
