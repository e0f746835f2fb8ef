//! What a person sees of a run while it goes on: each line as it comes, and in a terminal the tree below them.

use std::{io::Write as _, sync::Arc, time::Duration};

use ::domain::run::{Job, JobPhase, State, Wait, sentence};
use parking_lot::Mutex;

use super::drive::now;
use crate::terminal::{printable::printable, screen::Screen, tree::Mark};

/// How often the tree is drawn.
const TICK: Duration = Duration::from_millis(125);

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Not at all: the result is all that is printed.
    Nothing,
    /// Line by line.
    Lines,
    /// With a tree of jobs and steps, where standard output is a terminal.
    Tree,
}

/// Shows it.
pub(super) enum View {
    Nothing,
    Lines,
    /// `None`: the run ended, the tree stands as it is.
    Tree(Mutex<Option<Screen>>),
}

impl View {
    pub(super) fn new(wanted: Wanted) -> Arc<Self> {
        let screen = if wanted == Wanted::Tree { Screen::open() } else { None };
        let view = Arc::new(match (screen, wanted) {
            (_, Wanted::Nothing) => Self::Nothing,
            (None, _) => Self::Lines,
            (Some(screen), _) => Self::Tree(Mutex::new(Some(screen))),
        });
        let weak = Arc::downgrade(&view);
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(TICK);
            loop {
                tick.tick().await;
                match weak.upgrade().as_deref() {
                    Some(view @ Self::Tree(_)) => view.on_screen(|screen| screen.draw(now())),
                    _ => return,
                }
            }
        });
        view
    }

    pub(super) fn is_tree(&self) -> bool {
        matches!(self, Self::Tree(_))
    }

    /// A job printed a line.
    pub(super) fn line(&self, job: &str, line: &str) {
        self.say(&format!("{} | {}", printable(job), printable(line)));
    }

    /// A line of our own.
    pub(super) fn say(&self, line: &str) {
        match self {
            Self::Nothing => {}
            // The run goes on where nobody reads it any more: its jobs are brought to an end all the same.
            Self::Lines => drop(writeln!(std::io::stdout(), "{line}")),
            Self::Tree(_) => self.on_screen(|screen| screen.say(line, now())),
        }
    }

    /// The run changed.
    pub(super) fn state(&self, state: &State) {
        self.on_screen(|screen| {
            screen.tree.keep(|key| state.jobs.contains_key(key));
            for (key, job) in &state.jobs {
                if matches!(job.phase, JobPhase::Queued { .. }) {
                    screen.tree.again(key);
                }
                let (mark, note) = standing(job);
                screen.tree.job(key, &job.name, mark, &note, now());
            }
        });
    }

    /// A step of a job is running, or ended with a conclusion.
    pub(super) fn step(&self, job: &str, number: u32, name: &str, state: &str) {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        self.on_screen(|screen| screen.tree.step(job, number, name, Mark::of(state), now()));
    }

    /// The run ended: the whole tree stays on the terminal.
    pub(super) fn end(&self) {
        self.on_screen(|screen| screen.leave(now()));
        if let Self::Tree(screen) = self {
            screen.lock().take();
        }
    }

    fn on_screen(&self, act: impl FnOnce(&mut Screen)) {
        if let Self::Tree(screen) = self {
            screen.lock().as_mut().map(act);
        }
    }
}

fn standing(job: &Job) -> (Mark, String) {
    match &job.phase {
        JobPhase::Done { conclusion, reason, .. } => {
            (Mark::of(conclusion.as_str()), reason.as_ref().map(sentence).unwrap_or_default())
        }
        JobPhase::Running { .. } => (Mark::Running, String::new()),
        JobPhase::Cancelling { .. } => (Mark::Running, "is being cancelled".into()),
        JobPhase::Queued { reason, .. } => (Mark::Waiting, reason.clone()),
        JobPhase::Waiting { on: Wait::Concurrency { group, .. }, .. } => {
            (Mark::Waiting, format!("waits for the concurrency group {group}"))
        }
        _ => (Mark::Waiting, String::new()),
    }
}
