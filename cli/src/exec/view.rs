//! What a person sees of a run while it goes on: each line as it comes, and in a terminal the tree below them.

use std::{io::Write as _, sync::Arc, time::Duration};

use ::domain::run::{Job, JobPhase, RunState, WaitCondition, explain_job};
use parking_lot::Mutex;

use crate::clock::now_ms;
use crate::terminal::{printable::printable, screen::Screen, tree::StatusMark};

/// How often the tree is drawn.
const TICK: Duration = Duration::from_millis(125);

/// How a run is shown while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ViewMode {
    /// Not at all: the result is all that is printed.
    Nothing,
    /// Line by line.
    Lines,
    /// With a tree of jobs and steps, where standard output is a terminal.
    Tree,
}

/// Shows a run.
pub(super) enum View {
    Nothing,
    Lines,
    /// `None`: the run ended, the tree stands as it is.
    Tree(Mutex<Option<Screen>>),
}

impl View {
    pub(super) fn new(wanted: ViewMode) -> Arc<Self> {
        let screen = if wanted == ViewMode::Tree { Screen::open() } else { None };
        let view = Arc::new(match (screen, wanted) {
            (_, ViewMode::Nothing) => Self::Nothing,
            (None, _) => Self::Lines,
            (Some(screen), _) => Self::Tree(Mutex::new(Some(screen))),
        });
        let weak = Arc::downgrade(&view);
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(TICK);
            loop {
                tick.tick().await;
                match weak.upgrade().as_deref() {
                    Some(view @ Self::Tree(_)) => view.on_screen(|screen| screen.draw(now_ms())),
                    _ => return,
                }
            }
        });
        view
    }

    pub(super) fn is_tree(&self) -> bool {
        matches!(self, Self::Tree(_))
    }

    /// A job printed a line, which is safe for a terminal.
    pub(super) fn line(&self, job: &str, line: &str) {
        self.print(&format!("{} | {line}", printable(job)));
    }

    /// A line of our own.
    pub(super) fn print(&self, line: &str) {
        match self {
            Self::Nothing => {}
            // The run goes on where nobody reads it any more: its jobs are brought to an end all the same.
            Self::Lines => drop(writeln!(std::io::stdout(), "{line}")),
            Self::Tree(_) => self.on_screen(|screen| screen.print_above(line, now_ms())),
        }
    }

    /// The run changed.
    pub(super) fn state(&self, state: &RunState) {
        self.on_screen(|screen| {
            screen.tree.keep(|key| state.jobs.contains_key(key));
            for (key, job) in &state.jobs {
                if matches!(job.phase, JobPhase::Queued { .. }) {
                    screen.tree.restart(key.as_str());
                }
                let (mark, note) = job_mark(job);
                let left_out = (mark == StatusMark::Skipped && note.is_empty()).then(|| explain_job(state, key));
                let note = left_out.flatten().unwrap_or(note);
                screen.tree.job(key.as_str(), &job.name, mark, &note, now_ms());
            }
        });
    }

    /// A step of a job is running, or ended with a conclusion.
    pub(super) fn step(&self, job: &str, number: u32, name: &str, state: &str) {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        self.on_screen(|screen| screen.tree.step(job, number, name, StatusMark::of(state), now_ms()));
    }

    /// The run ended: the whole tree stays on the terminal.
    pub(super) fn end(&self) {
        self.on_screen(|screen| screen.leave(now_ms()));
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

fn job_mark(job: &Job) -> (StatusMark, String) {
    match &job.phase {
        JobPhase::Done { conclusion, reason, .. } => {
            (StatusMark::of(conclusion.as_str()), reason.as_ref().map(ToString::to_string).unwrap_or_default())
        }
        JobPhase::Running { .. } => (StatusMark::Running, String::new()),
        JobPhase::Cancelling { .. } => (StatusMark::Running, "is being cancelled".into()),
        JobPhase::Queued { .. } => {
            let lost = job.attempts.last().and_then(|attempt| attempt.lost.as_ref());
            (StatusMark::Waiting, lost.map(|reason| format!("trying again: {reason}")).unwrap_or_default())
        }
        JobPhase::Waiting { on: WaitCondition::Concurrency { group, .. }, .. } => {
            (StatusMark::Waiting, format!("waits for the concurrency group {group}"))
        }
        _ => (StatusMark::Waiting, String::new()),
    }
}
