//! What this worker runs: the state that outlives sessions. Attempts write to it, the session tells it on.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use proto::worker::{Attempt, Cancelled, FromWorker, Progress, Result as Report, from_worker::Message};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What is told of an attempt's steps at most; a session that is away longer misses the oldest.
const PROGRESS: usize = 1024;
/// A result that got no answer is said again after this long.
const AGAIN: Duration = Duration::from_secs(20);

/// Means to end an attempt.
#[derive(Debug, Clone, Default)]
pub(super) struct Handles {
    /// `always()` steps still run.
    pub(super) cancel: CancellationToken,
    /// Everything ends now.
    pub(super) kill: CancellationToken,
    /// The coordinator wants nothing more of it, or has all: log and result are not needed.
    pub(super) forget: CancellationToken,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Running,
    /// Its processes are gone, its log is on its way.
    Ended,
    /// Its result waits for an answer; when it was said last.
    Reported(Box<Report>, Option<Instant>),
}

#[derive(Debug, Default)]
struct Entry {
    handles: Handles,
    phase: Phase,
    progress: VecDeque<Progress>,
    /// A cancel came, with its grace; confirmed once the processes are gone.
    cancelling: bool,
    confirm: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Board {
    entries: Mutex<HashMap<Attempt, Entry>>,
    /// There is something to tell.
    pub(super) changed: Notify,
    /// An attempt ended or was forgotten.
    ended: Notify,
}

impl Board {
    fn entries(&self) -> MutexGuard<'_, HashMap<Attempt, Entry>> {
        self.entries.lock()
    }

    fn with(&self, attempt: &Attempt, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries().get_mut(attempt) {
            change(entry);
        }
    }

    /// A new attempt; `None` where it runs already.
    pub(super) fn add(&self, attempt: &Attempt) -> Option<Handles> {
        let mut entries = self.entries();
        if entries.contains_key(attempt) {
            return None;
        }
        let entry = entries.entry(attempt.clone()).or_default();
        Some(entry.handles.clone())
    }

    pub(super) fn progress(&self, progress: Progress) {
        let Some(attempt) = progress.attempt.clone() else { return };
        self.with(&attempt, |entry| {
            if entry.progress.len() == PROGRESS {
                entry.progress.pop_front();
            }
            entry.progress.push_back(progress);
        });
        self.changed.notify_one();
    }

    /// Its processes are gone.
    pub(super) fn ended(&self, attempt: &Attempt) {
        self.with(attempt, |entry| {
            entry.phase = Phase::Ended;
            entry.confirm = entry.cancelling;
        });
        self.changed.notify_one();
        self.ended.notify_waiters();
    }

    /// Its result may be said.
    pub(super) fn report(&self, report: Report) {
        let Some(attempt) = report.attempt.clone() else { return };
        self.with(&attempt, |entry| entry.phase = Phase::Reported(Box::new(report), None));
        self.changed.notify_one();
    }

    /// Nothing more is to be said of it.
    pub(super) fn remove(&self, attempt: &Attempt) {
        self.entries().remove(attempt);
        self.changed.notify_one();
        self.ended.notify_waiters();
    }

    /// The coordinator asks to end it. Returns its handles, or `None` where it does not run here.
    pub(super) fn cancel(&self, attempt: &Attempt) -> Option<Handles> {
        let mut entries = self.entries();
        let entry = entries.get_mut(attempt)?;
        entry.cancelling = true;
        if !matches!(entry.phase, Phase::Running) {
            entry.confirm = true;
            self.changed.notify_one();
        }
        entry.handles.cancel.cancel();
        Some(entry.handles.clone())
    }

    /// The coordinator wants nothing more of it.
    pub(super) fn forget(&self, attempt: &Attempt) {
        self.with(attempt, |entry| {
            entry.handles.kill.cancel();
            entry.handles.forget.cancel();
        });
    }

    pub(super) fn kill_all(&self) {
        self.entries().values().for_each(|entry| entry.handles.kill.cancel());
    }

    /// Attempts whose processes run, and those whose are gone.
    pub(super) fn held(&self) -> (Vec<Attempt>, Vec<Attempt>) {
        let entries = self.entries();
        let (running, over): (Vec<_>, Vec<_>) =
            entries.iter().partition(|(_, entry)| matches!(entry.phase, Phase::Running));
        let names = |list: Vec<(&Attempt, &Entry)>| list.into_iter().map(|(attempt, _)| attempt.clone()).collect();
        (names(running), names(over))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// Waits until no process of a job is left.
    pub(super) async fn all_ended(&self) {
        loop {
            let changed = self.ended.notified();
            if self.held().0.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// A new session heard nothing yet: results are said again.
    pub(super) fn unsaid(&self) {
        for entry in self.entries().values_mut() {
            if let Phase::Reported(_, said) = &mut entry.phase {
                *said = None;
            }
            entry.confirm |= entry.cancelling && !matches!(entry.phase, Phase::Running);
        }
        self.changed.notify_one();
    }

    /// Tells what is to be told, the most urgent first, until `say` has no room. A result follows its progress.
    pub(super) fn tell(&self, now: Instant, mut say: impl FnMut(FromWorker) -> bool) {
        let mut entries = self.entries();
        let mut say = |message| say(FromWorker { message: Some(message) });
        for (attempt, entry) in entries.iter_mut().filter(|(_, entry)| entry.confirm) {
            entry.confirm = !say(Message::Cancelled(Cancelled { attempt: Some(attempt.clone()) }));
        }
        for entry in entries.values_mut() {
            while let Some(progress) = entry.progress.front() {
                if !say(Message::Progress(progress.clone())) {
                    return;
                }
                entry.progress.pop_front();
            }
            if let Phase::Reported(report, said) = &mut entry.phase
                && said.is_none_or(|said| now.duration_since(said) >= AGAIN)
                && say(Message::Result(report.as_ref().clone()))
            {
                *said = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn attempt(number: u32) -> Attempt {
        Attempt { run: "r".into(), job: "j".into(), attempt: number }
    }

    fn told(board: &Board, now: Instant) -> Vec<Message> {
        let mut told = Vec::new();
        board.tell(now, |message| {
            told.extend(message.message);
            true
        });
        told
    }

    #[test]
    fn a_result_is_said_once_in_a_session_and_again_where_no_answer_came() {
        let (board, now) = (Board::default(), Instant::now());
        board.add(&attempt(1)).unwrap();
        board.progress(Progress { attempt: Some(attempt(1)), what: None });
        board.report(Report { attempt: Some(attempt(1)), ..Report::default() });
        assert!(matches!(told(&board, now)[..], [Message::Progress(_), Message::Result(_)]));
        assert!(told(&board, now).is_empty());
        assert!(matches!(told(&board, now + AGAIN)[..], [Message::Result(_)]));
        board.unsaid();
        assert!(matches!(told(&board, now + AGAIN)[..], [Message::Result(_)]));
        board.remove(&attempt(1));
        assert!(told(&board, now + 3 * AGAIN).is_empty());
    }

    #[test]
    fn a_cancel_is_confirmed_when_the_processes_are_gone_and_before_anything_else() {
        let (board, now) = (Board::default(), Instant::now());
        let handles = board.add(&attempt(1)).unwrap();
        board.cancel(&attempt(1)).unwrap();
        assert!(handles.cancel.is_cancelled() && !handles.kill.is_cancelled());
        assert!(told(&board, now).is_empty());
        board.progress(Progress { attempt: Some(attempt(1)), what: None });
        board.ended(&attempt(1));
        assert!(matches!(told(&board, now)[..], [Message::Cancelled(_), Message::Progress(_)]));
        assert!(board.cancel(&attempt(2)).is_none());
    }

    #[test]
    fn what_finds_no_room_is_told_later() {
        let board = Board::default();
        board.add(&attempt(1)).unwrap();
        board.progress(Progress { attempt: Some(attempt(1)), what: None });
        board.tell(Instant::now(), |_| false);
        assert_eq!(told(&board, Instant::now()).len(), 1);
    }

    #[test]
    fn an_attempt_runs_once() {
        let board = Board::default();
        assert!(board.add(&attempt(1)).is_some());
        assert!(board.add(&attempt(1)).is_none());
        assert!(board.add(&attempt(2)).is_some());
    }
}
