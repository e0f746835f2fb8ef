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
    code_of,
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
        let state = run.conclusion.as_deref().unwrap_or(&run.phase);
        self.say("", &title, &because(state, run.waits.as_deref()));
        if let Some(screen) = &mut self.screen {
            screen.tree.keep(|key| run.jobs.iter().any(|job| job.key == key));
        }
        for job in &run.jobs {
            let (mark, note) = standing(job);
            match &mut self.screen {
                Some(screen) => screen.tree.job(&job.key, &job.name, mark, &note, now()),
                None => {
                    let state = job.conclusion.as_deref().unwrap_or(&job.phase);
                    self.say(&job.key, &job.name, &because(state, Some(&note)));
                }
            }
        }
        self.names.extend(run.jobs.into_iter().map(|job| (job.key, job.name)));
        self.conclusion = run.conclusion;
    }

    fn steps(&mut self, lines: &Lines) {
        let marks = lines.lines.iter().filter_map(|line| Some((line.step, line.mark.as_ref()?)));
        for (number, mark) in marks {
            let state = if mark.ended { mark.conclusion.as_str() } else { "running" };
            let name = mark.name.strip_prefix("Main ").unwrap_or(&mark.name);
            match &mut self.screen {
                Some(screen) => screen.tree.step(&lines.job, number, name, Mark::of(state), now()),
                None => {
                    let job = self.names.get(&lines.job).unwrap_or(&lines.job);
                    let step = format!("{job}: {name}");
                    self.say(&format!("{}/{number}", lines.job), &step, state);
                }
            }
        }
    }

    /// A line for what changed, where no tree shows it.
    #[allow(clippy::print_stdout)]
    fn say(&mut self, key: &str, name: &str, state: &str) {
        if self.json || self.screen.is_some() || self.states.get(key).is_some_and(|known| known == state) {
            return;
        }
        println!("{}: {}", printable(name), printable(state));
        self.states.insert(key.to_owned(), state.to_owned());
    }
}

fn because(state: &str, why: Option<&str>) -> String {
    match why.filter(|why| !why.is_empty()) {
        Some(why) => format!("{state} ({why})"),
        None => state.to_owned(),
    }
}

fn standing(job: &Job) -> (Mark, String) {
    let mark = match (job.conclusion.as_deref(), job.phase.as_str()) {
        (Some(conclusion), _) => Mark::of(conclusion),
        (None, "running" | "cancelling") => Mark::Running,
        _ => Mark::Waiting,
    };
    let reason = job.reason.as_ref().map(|reason| {
        // A detail may begin with its kind: "cancelled by …".
        let detail = reason.detail.strip_prefix(&reason.kind).unwrap_or(&reason.detail).trim();
        format!("{} {detail}", reason.kind).trim().to_owned()
    });
    (mark, reason.or_else(|| job.waits.clone()).unwrap_or_default())
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
