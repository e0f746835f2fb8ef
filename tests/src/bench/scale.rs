//! How much of each large measurement is done: the whole for published figures, a part to see that it works.

use std::time::Duration;

/// A part of the whole, 1 at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale(f64);

impl Scale {
    /// The whole.
    pub const WHOLE: Self = Self(1.0);

    /// A part; `None` where it is not above 0 and at most 1.
    pub fn new(part: f64) -> Option<Self> {
        (part > 0.0 && part <= 1.0).then_some(Self(part))
    }

    /// Whether figures may be published.
    pub fn is_whole(self) -> bool {
        self == Self::WHOLE
    }

    /// A number of things, at least `least`.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small, positive"
    )]
    pub fn count(self, whole: usize, least: usize) -> usize {
        ((whole as f64 * self.0).round() as usize).max(least)
    }

    /// A time, at least a second.
    pub fn time(self, whole: Duration) -> Duration {
        whole.mul_f64(self.0).max(Duration::from_secs(1))
    }
}

impl std::str::FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = text.parse().ok().and_then(Self::new);
        part.ok_or_else(|| format!("`{text}` is no part of 1: give a number above 0 and at most 1"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;

    #[test]
    fn a_part_of_a_measurement_keeps_what_it_needs_at_least() {
        let tenth: Scale = "0.1".parse().unwrap();
        assert_eq!((tenth.count(400, 8), tenth.count(40, 8)), (40, 8));
        assert_eq!(tenth.time(Duration::from_secs(60)), Duration::from_secs(6));
        assert_eq!(tenth.time(Duration::from_secs(2)), Duration::from_secs(1));
        assert!(!tenth.is_whole() && Scale::WHOLE.is_whole());
    }

    #[test]
    fn more_than_the_whole_and_nothing_are_refused() {
        for wrong in ["0", "-1", "1.5", "NaN", "all"] {
            assert!(wrong.parse::<Scale>().is_err(), "{wrong}");
        }
    }
}
