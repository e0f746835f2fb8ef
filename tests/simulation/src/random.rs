//! Random decisions of a seed. Each part of a simulation draws from a stream of its own, so that one more decision in one
//! part changes none of another.

use std::{ops::Range, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// One stream.
#[derive(Debug)]
pub(crate) struct Random(StdRng);

impl Random {
    /// The stream of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A stream for a part of what this one is for.
    pub(crate) fn part(&mut self) -> Self {
        Self::new(self.0.random())
    }

    /// A number of the range.
    pub(crate) fn number(&mut self, range: Range<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// An index below `length`, which is not 0.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        self.0.random_range(0..length)
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.number(0..100) < chance
    }

    /// A time of the range, in milliseconds.
    pub(crate) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.number(range))
    }
}
