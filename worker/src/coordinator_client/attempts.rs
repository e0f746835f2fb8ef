//! The attempts of this worker: state that outlives sessions. Attempts write to it, the session sends it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use proto::worker::{Attempt, Begun, Cancelled, FromWorker, Result as Report, from_worker::Message};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A result that got no answer is sent again after this long.
const RESEND_AFTER: Duration = Duration::from_secs(20);

/// Means to end an attempt.
#[derive(Debug, Clone, Default)]
pub(super) struct AttemptHandles {
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
    /// Its result waits for an answer; when it was sent last.
    Reported(Box<Report>, Option<Instant>),
}

#[derive(Debug, Default)]
struct AttemptEntry {
    handles: AttemptHandles,
    phase: Phase,
    /// Its first step is about to start, and no session was told.
    begun: bool,
    /// A cancel came, with its grace; confirmed once the processes are gone.
    cancelling: bool,
    confirm: bool,
}

/// The attempts of this worker, by id.
#[derive(Debug, Default)]
pub(super) struct AttemptTable {
    entries: Mutex<HashMap<Attempt, AttemptEntry>>,
    /// There is something to send.
    pub(super) changed: Notify,
    /// An attempt ended or was forgotten.
    ended: Notify,
}

impl AttemptTable {
    fn entries(&self) -> MutexGuard<'_, HashMap<Attempt, AttemptEntry>> {
        self.entries.lock()
    }

    fn with(&self, attempt: &Attempt, change: impl FnOnce(&mut AttemptEntry)) {
        if let Some(entry) = self.entries().get_mut(attempt) {
            change(entry);
        }
    }

    /// A new attempt; `None` where it runs already.
    pub(super) fn add(&self, attempt: &Attempt) -> Option<AttemptHandles> {
        let mut entries = self.entries();
        if entries.contains_key(attempt) {
            return None;
        }
        let entry = entries.entry(attempt.clone()).or_default();
        Some(entry.handles.clone())
    }

    /// Its first step is about to start.
    pub(super) fn begun(&self, attempt: &Attempt) {
        self.with(attempt, |entry| entry.begun = true);
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

    /// Its result may be sent.
    pub(super) fn report(&self, report: Report) {
        let Some(attempt) = report.attempt.clone() else { return };
        self.with(&attempt, |entry| entry.phase = Phase::Reported(Box::new(report), None));
        self.changed.notify_one();
    }

    /// Nothing more is to be sent of it.
    pub(super) fn remove(&self, attempt: &Attempt) {
        self.entries().remove(attempt);
        self.changed.notify_one();
        self.ended.notify_waiters();
    }

    /// The coordinator asks to end it. Returns its handles, or `None` where it does not run here.
    pub(super) fn cancel(&self, attempt: &Attempt) -> Option<AttemptHandles> {
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
        let names =
            |list: Vec<(&Attempt, &AttemptEntry)>| list.into_iter().map(|(attempt, _)| attempt.clone()).collect();
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

    /// A new session heard nothing yet: results are sent again.
    pub(super) fn mark_unreported(&self) {
        for entry in self.entries().values_mut() {
            if let Phase::Reported(_, sent) = &mut entry.phase {
                *sent = None;
            }
            entry.confirm |= entry.cancelling && !matches!(entry.phase, Phase::Running);
        }
        self.changed.notify_one();
    }

    /// Sends what is pending, the most urgent first, until `send` has no room. A result follows its `Begun`.
    pub(super) fn flush(&self, now: Instant, mut send: impl FnMut(FromWorker) -> bool) {
        let mut entries = self.entries();
        let mut send = |message| send(FromWorker { message: Some(message) });
        for (attempt, entry) in entries.iter_mut().filter(|(_, entry)| entry.confirm) {
            entry.confirm = !send(Message::Cancelled(Cancelled { attempt: Some(attempt.clone()) }));
        }
        for (attempt, entry) in entries.iter_mut() {
            if entry.begun {
                if !send(Message::Begun(Begun { attempt: Some(attempt.clone()) })) {
                    return;
                }
                entry.begun = false;
            }
            if let Phase::Reported(report, sent) = &mut entry.phase
                && sent.is_none_or(|sent| now.duration_since(sent) >= RESEND_AFTER)
                && send(Message::Result(report.as_ref().clone()))
            {
                *sent = Some(now);
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

    fn flushed(attempts: &AttemptTable, now: Instant) -> Vec<Message> {
        let mut flushed = Vec::new();
        attempts.flush(now, |message| {
            flushed.extend(message.message);
            true
        });
        flushed
    }

    #[test]
    fn a_result_is_said_once_in_a_session_and_again_where_no_answer_came() {
        let (attempts, now) = (AttemptTable::default(), Instant::now());
        attempts.add(&attempt(1)).unwrap();
        attempts.begun(&attempt(1));
        attempts.report(Report { attempt: Some(attempt(1)), ..Report::default() });
        assert!(matches!(flushed(&attempts, now)[..], [Message::Begun(_), Message::Result(_)]));
        assert!(flushed(&attempts, now).is_empty());
        assert!(matches!(flushed(&attempts, now + RESEND_AFTER)[..], [Message::Result(_)]));
        attempts.mark_unreported();
        assert!(matches!(flushed(&attempts, now + RESEND_AFTER)[..], [Message::Result(_)]));
        attempts.remove(&attempt(1));
        assert!(flushed(&attempts, now + 3 * RESEND_AFTER).is_empty());
    }

    #[test]
    fn a_cancel_is_confirmed_when_the_processes_are_gone_and_before_anything_else() {
        let (attempts, now) = (AttemptTable::default(), Instant::now());
        let handles = attempts.add(&attempt(1)).unwrap();
        attempts.cancel(&attempt(1)).unwrap();
        assert!(handles.cancel.is_cancelled() && !handles.kill.is_cancelled());
        assert!(flushed(&attempts, now).is_empty());
        attempts.begun(&attempt(1));
        attempts.ended(&attempt(1));
        assert!(matches!(flushed(&attempts, now)[..], [Message::Cancelled(_), Message::Begun(_)]));
        assert!(attempts.cancel(&attempt(2)).is_none());
    }

    #[test]
    fn what_finds_no_room_is_told_later() {
        let attempts = AttemptTable::default();
        attempts.add(&attempt(1)).unwrap();
        attempts.begun(&attempt(1));
        attempts.flush(Instant::now(), |_| false);
        assert_eq!(flushed(&attempts, Instant::now()).len(), 1);
    }

    #[test]
    fn an_attempt_runs_once() {
        let attempts = AttemptTable::default();
        assert!(attempts.add(&attempt(1)).is_some());
        assert!(attempts.add(&attempt(1)).is_none());
        assert!(attempts.add(&attempt(2)).is_some());
    }
}
