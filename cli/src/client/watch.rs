//! `longshore watch`: a run as a tree of jobs and steps, until it ends.

use std::{
    collections::BTreeMap,
    pin::pin,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use futures::StreamExt as _;

use super::{
    api::Server,
    attempted, because, code_of, standing,
    stream::{Event, Job, Lines, Run, events},
};
use crate::terminal::{printable::printable, screen::Screen, tree::Mark};

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
    server: Server,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let api = args.server.connect()?;
    let mut events = pin!(events(&api, &args.run));
    let mut watched = Watched {
        screen: if args.json { None } else { Screen::open() },
        json: args.json,
        states: BTreeMap::new(),
        names: BTreeMap::new(),
        attempts: BTreeMap::new(),
        conclusion: None,
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
            _ = tick.tick() => watched.screen.iter_mut().for_each(|screen| screen.draw(now())),
        }
    }
    watched.screen.iter_mut().for_each(|screen| screen.leave(now()));
    Ok(code_of(watched.conclusion.as_deref()))
}

/// What was seen so far.
struct Watched {
    screen: Option<Screen>,
    json: bool,
    /// What was last said of each job and of the run.
    states: BTreeMap<String, String>,
    names: BTreeMap<String, String>,
    /// By job: the attempt whose steps are shown.
    attempts: BTreeMap<String, u32>,
    conclusion: Option<String>,
}

impl Watched {
    /// Shows an event; true at the end.
    fn take(&mut self, event: &Event) -> Result<bool> {
        match event.kind.as_str() {
            "run" => self.run(serde_json::from_str(&event.data)?, &event.data),
            "log" => self.steps(&serde_json::from_str(&event.data)?),
            "failed" => bail!("the coordinator cannot read the log: {}", event.data),
            "end" => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    #[allow(clippy::print_stdout)]
    fn run(&mut self, run: Run, data: &str) {
        if self.json {
            println!("{data}");
        }
        let title = format!("{} #{} (run {})", run.name, run.number, run.serial);
        let standing = standing(&run.phase, run.waits.is_some(), run.started_at.is_some());
        let state = run.conclusion.as_deref().unwrap_or(standing);
        self.say("", &title, &because(state, run.why.as_deref()));
        if let Some(screen) = &mut self.screen {
            screen.tree.keep(|key| run.jobs.iter().any(|job| job.key == key));
        }
        for job in &run.jobs {
            let name = attempted(&job.name, job.attempt);
            let why = job.why.as_deref();
            match &mut self.screen {
                Some(screen) => screen.tree.job(&job.key, &name, mark(job), why.unwrap_or_default(), now()),
                None => {
                    let state = job.conclusion.as_deref().unwrap_or(&job.phase);
                    self.say(&job.key, &name, &because(state, why));
                }
            }
        }
        self.names.extend(run.jobs.into_iter().map(|job| (job.key, job.name)));
        self.conclusion = run.conclusion;
    }

    fn steps(&mut self, lines: &Lines) {
        let before = self.attempts.insert(lines.job.clone(), lines.attempt);
        if let (Some(screen), true) = (&mut self.screen, before.is_some_and(|before| before != lines.attempt)) {
            screen.tree.again(&lines.job);
        }
        let marks = lines.lines.iter().filter_map(|line| Some((line.step, line.mark.as_ref()?)));
        for (number, mark) in marks {
            let state = if mark.ended { mark.conclusion.as_str() } else { "running" };
            let name = mark.step();
            match &mut self.screen {
                Some(screen) => screen.tree.step(&lines.job, number, name, Mark::of(state), now()),
                None => {
                    let job = self.names.get(&lines.job).unwrap_or(&lines.job);
                    let step = format!("{}: {name}", attempted(job, lines.attempt));
                    self.say(&format!("{}/{}/{number}", lines.job, lines.attempt), &step, state);
                }
            }
        }
    }

    /// A line for what changed and what no tree shows: in a terminal it stands above the tree.
    #[allow(clippy::print_stdout)]
    fn say(&mut self, key: &str, name: &str, state: &str) {
        if self.json || self.states.get(key).is_some_and(|known| known == state) {
            return;
        }
        let line = format!("{}: {}", printable(name), printable(state));
        match &mut self.screen {
            Some(screen) => screen.say(&line, now()),
            None => println!("{line}"),
        }
        self.states.insert(key.to_owned(), state.to_owned());
    }
}

fn mark(job: &Job) -> Mark {
    match (job.conclusion.as_deref(), job.phase.as_str()) {
        (Some(conclusion), _) => Mark::of(conclusion),
        (None, "running" | "cancelling") => Mark::Running,
        _ => Mark::Waiting,
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
