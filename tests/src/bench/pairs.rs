//! Pairs of measurements, ours beside the floor, and what can be said of them.

use std::time::Duration;

/// Measurements in milliseconds, taken in turns.
#[derive(Debug, Default)]
pub struct Pairs {
    pairs: Vec<(f64, f64)>,
    failures: Vec<String>,
}

/// Ratios of all pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratios {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// 19 of 20 are at most this.
    pub p95: f64,
}

impl Pairs {
    /// Adds a pair. Where either side failed, the pair counts as a failure: it is never left out.
    pub fn push(&mut self, ours: Result<Duration, String>, floor: Result<Duration, String>) {
        match (ours, floor) {
            (Ok(ours), Ok(floor)) => self.pairs.push((millis(ours), millis(floor))),
            (Err(cause), _) | (_, Err(cause)) => self.failures.push(cause),
        }
    }

    /// Whole pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is no whole pair.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Why pairs failed.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Our middle measurement.
    pub fn ours(&self) -> Option<f64> {
        median(&self.pairs.iter().map(|pair| pair.0).collect::<Vec<_>>())
    }

    /// The floor's middle measurement.
    pub fn floor(&self) -> Option<f64> {
        median(&self.pairs.iter().map(|pair| pair.1).collect::<Vec<_>>())
    }

    /// Ratios pair by pair, so that a slow moment of the machine weighs on both sides.
    pub fn ratios(&self) -> Option<Ratios> {
        let mut ratios: Vec<f64> = self.pairs.iter().map(|(ours, floor)| ours / floor).collect();
        ratios.sort_by(f64::total_cmp);
        let p95 = (ratios.len() * 95).div_ceil(100).saturating_sub(1);
        Some(Ratios { median: median(&ratios)?, min: *ratios.first()?, max: *ratios.last()?, p95: *ratios.get(p95)? })
    }

    /// Whether every pair was measured and the middle ratio is at most the limit.
    pub fn hold(&self, limit: f64) -> bool {
        self.failures.is_empty() && self.ratios().is_some_and(|ratios| ratios.median <= limit)
    }
}

/// The middle value, or the mean of the two middle ones.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(upper, *sorted.get(sorted.len() / 2 - 1)?) })
}

/// Milliseconds.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;

    fn pairs(of: &[(u64, u64)]) -> Pairs {
        let mut pairs = Pairs::default();
        for (ours, floor) in of {
            pairs.push(Ok(Duration::from_millis(*ours)), Ok(Duration::from_millis(*floor)));
        }
        pairs
    }

    #[test]
    fn the_median_of_ratios_is_not_the_ratio_of_medians() {
        let pairs = pairs(&[(10, 10), (40, 20), (90, 30)]);
        let ratios = pairs.ratios().unwrap();
        assert_eq!(ratios, Ratios { median: 2.0, min: 1.0, max: 3.0, p95: 3.0 });
        assert_eq!((pairs.ours(), pairs.floor()), (Some(40.0), Some(20.0)));
    }

    #[test]
    fn an_even_number_of_values_has_its_middle_between_two() {
        for (values, expected) in [(vec![], None), (vec![3.0], Some(3.0)), (vec![4.0, 1.0, 2.0, 9.0], Some(3.0))] {
            assert_eq!(median(&values), expected);
        }
    }

    #[test]
    fn one_failure_fails_the_goal_however_good_the_rest_is() {
        let mut pairs = pairs(&[(1, 10), (1, 10)]);
        assert!(pairs.hold(0.1));
        assert!(!pairs.hold(0.09));
        pairs.push(Err("the job failed".into()), Ok(Duration::from_millis(10)));
        assert!(!pairs.hold(0.1));
        assert_eq!((pairs.len(), pairs.failures().len()), (2, 1));
    }

    #[test]
    fn a_goal_without_a_measurement_does_not_hold() {
        assert!(!Pairs::default().hold(1.0));
    }
}
