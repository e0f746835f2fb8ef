//! Waits between tries: doubled each time, up to a longest, with jitter so that what failed together is not tried
//! together.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

/// Waits between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// Wait after the first try, without jitter.
    pub first: Duration,
    /// Longest wait, without jitter.
    pub longest: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(60) }
    }
}

impl BackOff {
    /// The wait after this many tries (from 1): between its share of the doubling and twice as much.
    pub fn delay(&self, tries: u32) -> Duration {
        let delays = ExponentialBuilder::new()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_factor(2.0)
            .without_max_times()
            .with_jitter();
        let before = tries.saturating_sub(1).min(64) as usize;
        delays.build().nth(before).unwrap_or(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_carry_jitter() {
        let back_off = BackOff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
        for (tries, seconds) in [(0, 1), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (40, 60), (u32::MAX, 60)] {
            let (delay, plain) = (back_off.delay(tries), Duration::from_secs(seconds));
            assert!(delay >= plain && delay <= plain * 2, "{tries} tries: {delay:?}");
        }
        let delays: std::collections::HashSet<Duration> = (0..20).map(|_| back_off.delay(3)).collect();
        assert!(delays.len() > 1, "jitter");
    }
}
