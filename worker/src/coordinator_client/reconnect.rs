//! How long a worker waits before it connects again.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// The shortest and the longest wait; jitter adds up to as much again.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(2500));
/// A session that ended sooner counts as a failed attempt: the next one would likely end alike.
const SHORT_SESSION: Duration = Duration::from_secs(10);

/// Growing waits with jitter, which begin anew after a session that lasted.
pub(super) struct Reconnect(ExponentialBackoff);

impl Reconnect {
    pub(super) fn new() -> Self {
        let waits = ExponentialBuilder::default().with_min_delay(WAITS.0).with_max_delay(WAITS.1);
        Self(waits.without_max_times().with_jitter().build())
    }

    /// The next wait. `lasted`: how long the session was up; `None`: there was none.
    pub(super) fn wait(&mut self, lasted: Option<Duration>) -> Duration {
        if lasted.is_some_and(|lasted| lasted >= SHORT_SESSION) {
            *self = Self::new();
        }
        self.0.next().unwrap_or(WAITS.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_end_at_once_are_as_far_apart_as_failed_connections() {
        let mut reconnect = Reconnect::new();
        assert!(reconnect.wait(None) < 2 * WAITS.0 + Duration::from_millis(1));
        for _ in 0..10 {
            reconnect.wait(Some(Duration::from_millis(50)));
        }
        assert!(reconnect.wait(Some(Duration::from_millis(50))) >= WAITS.1);
        assert!(reconnect.wait(Some(SHORT_SESSION)) < 2 * WAITS.0 + Duration::from_millis(1));
    }
}
