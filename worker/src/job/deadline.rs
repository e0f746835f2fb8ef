//! What ends a step before its time: cancel, kill, deadlines, the log's limit.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{JobAttempt, log_writer::LogStop};
use crate::config::JobLimits;

/// After a cancel, steps with `always()` or `cancelled()` get this long together.
const GRACE: Duration = Duration::from_secs(5 * 60);

/// A machine must be there by then; pulling a large image takes minutes.
const START: Duration = Duration::from_secs(30 * 60);

/// Time for the steps of a job whose workflow names `timeout_ms` (0: none).
fn limit(timeout_ms: u64, limits: &JobLimits) -> Duration {
    let limit = match timeout_ms {
        0 => Duration::from_secs(limits.timeout_minutes.max(1).saturating_mul(60)),
        milliseconds => Duration::from_millis(milliseconds),
    };
    // A year stands for no limit: the sum must stay a time.
    limit.min(Duration::from_secs(365 * 24 * 3600))
}

/// The longest time that an attempt may take, with its start and its end.
pub(crate) fn longest(timeout_ms: u64, limits: &JobLimits) -> Duration {
    START + limit(timeout_ms, limits) + GRACE
}

/// What ends a job early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopCause {
    /// Somebody cancelled.
    Cancelled,
    /// Everything ends now.
    Killed,
    /// The job's time is over.
    Timeout,
    /// The log is full.
    LogLimit,
    /// The log cannot be stored.
    LogBroken,
    /// The disk limit was hit.
    DiskLimit,
}

impl StopCause {
    /// Steps with `always()` still run after it.
    pub(super) fn is_graceful(self) -> bool {
        matches!(self, Self::Cancelled | Self::Timeout)
    }
}

/// What interrupted a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// The step's own time is over.
    Step,
    /// The job ends.
    Job(StopCause),
}

#[derive(Clone)]
pub(super) struct Deadline {
    pub(super) cancel: CancellationToken,
    kill: CancellationToken,
    stop: LogStop,
    /// Cancelled where the job uses more disk than it may.
    pub(super) full: CancellationToken,
    limit: Duration,
    deadline: Instant,
    /// Why the job ends, once it does; a harder cause takes a gentler one's place.
    pub(super) ended: Option<StopCause>,
}

impl Deadline {
    pub(super) fn new(attempt: &JobAttempt, stop: LogStop) -> Self {
        let limit = limit(attempt.order.timeout_ms, &attempt.limits);
        let deadline = Instant::now() + START;
        Self {
            cancel: attempt.cancel.clone(),
            kill: attempt.kill.clone(),
            stop,
            full: CancellationToken::new(),
            limit,
            deadline,
            ended: None,
        }
    }

    /// The machine is there: the job's time begins, whatever the machine took.
    pub(super) fn begin(&mut self) {
        self.deadline = Instant::now() + self.limit;
    }

    /// Waits for what ends the job. After a gentle end, for what ends the rest as well.
    pub(super) async fn interrupted(&self, step: Option<Instant>) -> StopCause {
        loop {
            if let Interrupt::Job(cause) = self.interrupt(step).await {
                return cause;
            }
        }
    }

    /// Waits for what ends a step.
    pub(super) async fn interrupt(&self, step: Option<Instant>) -> Interrupt {
        let gentle = self.ended.is_none();
        tokio::select! {
            biased;
            () = self.kill.cancelled() => Interrupt::Job(StopCause::Killed),
            () = self.stop.broken.cancelled() => Interrupt::Job(StopCause::LogBroken),
            () = self.stop.limit.cancelled() => Interrupt::Job(StopCause::LogLimit),
            () = self.full.cancelled() => Interrupt::Job(StopCause::DiskLimit),
            () = self.cancel.cancelled(), if gentle => Interrupt::Job(StopCause::Cancelled),
            () = sleep_until(self.deadline) => {
                Interrupt::Job(if gentle { StopCause::Timeout } else { StopCause::Killed })
            }
            () = sleep_until(step.unwrap_or(self.deadline)), if step.is_some() => Interrupt::Step,
        }
    }

    /// Notes an end; the rest of the job gets its grace.
    pub(super) fn end(&mut self, cause: StopCause) {
        if self.ended.is_none() && cause.is_graceful() {
            self.deadline = Instant::now() + GRACE;
        }
        if self.ended.is_none_or(StopCause::is_graceful) {
            self.ended = Some(cause);
        }
    }

    /// Notes what came while nothing ran. True where nothing may start any more.
    pub(super) fn is_over(&mut self) -> bool {
        if self.ended.is_none() && self.cancel.is_cancelled() {
            self.end(StopCause::Cancelled);
        }
        if Instant::now() >= self.deadline {
            self.end(if self.ended.is_none() { StopCause::Timeout } else { StopCause::Killed });
        }
        for (token, cause) in [
            (&self.kill, StopCause::Killed),
            (&self.stop.broken, StopCause::LogBroken),
            (&self.stop.limit, StopCause::LogLimit),
            (&self.full, StopCause::DiskLimit),
        ] {
            if token.is_cancelled() && self.ended.is_none_or(StopCause::is_graceful) {
                self.ended = Some(cause);
            }
        }
        self.ended.is_some_and(|cause| !cause.is_graceful())
    }
}
