//! How much people have whom a repository does not know: each pull request costs a look at relays, a fetch from a server of
//! their choice, and a run that waits. Pure.

use std::collections::HashMap;

/// How long counts hold (ms).
const WINDOW: u64 = 3_600_000;

/// What they have within an hour: events, bytes, or whatever is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// One author.
    pub author: u32,
    /// All of them together of one repository.
    pub repository: u32,
    /// All of them together of all repositories.
    pub all: u32,
}

/// What they had in this hour. It holds no more keys than were taken for.
#[derive(Debug)]
pub struct OutsiderRates {
    limits: RateLimits,
    /// Which hour the counts are of.
    window: u64,
    all: u32,
    authors: HashMap<String, u32>,
    repositories: HashMap<String, u32>,
    /// Whether it was said in this hour that one was refused for this reason.
    said: [bool; 3],
}

/// Why there is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateExceeded {
    /// Its author had as much as one may.
    #[error("its author, who is no maintainer, had as much as one has in an hour")]
    Author,
    /// The repository had.
    #[error("others than maintainers had as much of this repository as they have in an hour")]
    Repository,
    /// This pool had.
    #[error("others than maintainers had as much of this pool as they have in an hour")]
    All,
}

impl RateExceeded {
    fn place(self) -> usize {
        match self {
            Self::Author => 0,
            Self::Repository => 1,
            Self::All => 2,
        }
    }
}

impl OutsiderRates {
    /// Under these limits.
    pub fn new(limits: RateLimits) -> Self {
        let (authors, repositories) = Default::default();
        Self { limits, window: 0, all: 0, authors, repositories, said: [false; 3] }
    }

    /// Takes so much more, at a time (ms).
    ///
    /// # Errors
    /// It would be more than may be; nothing is counted then.
    pub fn take(&mut self, author: &str, repository: &str, amount: u32, now: u64) -> Result<(), RateExceeded> {
        if now / WINDOW != self.window {
            *self = Self { window: now / WINDOW, ..Self::new(self.limits) };
        }
        let count = |counts: &HashMap<String, u32>, key: &str| counts.get(key).copied().unwrap_or_default();
        let exceeds = |had: u32, most: u32| had.saturating_add(amount) > most;
        if exceeds(count(&self.authors, author), self.limits.author) {
            return Err(RateExceeded::Author);
        }
        if exceeds(count(&self.repositories, repository), self.limits.repository) {
            return Err(RateExceeded::Repository);
        }
        if exceeds(self.all, self.limits.all) {
            return Err(RateExceeded::All);
        }
        self.all += amount;
        *self.authors.entry(author.to_owned()).or_default() += amount;
        *self.repositories.entry(repository.to_owned()).or_default() += amount;
        Ok(())
    }

    /// Gives back what was taken at a time (ms) and not needed.
    pub fn give_back(&mut self, author: &str, repository: &str, amount: u32, taken_at: u64) {
        if taken_at / WINDOW != self.window {
            return;
        }
        let counts = [self.authors.get_mut(author), self.repositories.get_mut(repository), Some(&mut self.all)];
        counts.into_iter().flatten().for_each(|count| *count = count.saturating_sub(amount));
    }

    /// Whether a refusal is the first for its reason in this hour: what strangers send does not fill the log either.
    pub fn is_first(&mut self, why: RateExceeded) -> bool {
        self.said.get_mut(why.place()).is_some_and(|said| !std::mem::replace(said, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_14_a_flood_of_pull_requests_is_bounded_by_author_by_repository_and_in_sum() {
        let mut rates = OutsiderRates::new(RateLimits { author: 2, repository: 3, all: 5 });
        for (author, repository, expected) in [
            ("a", "r", Ok(())),
            ("a", "r", Ok(())),
            ("a", "r", Err(RateExceeded::Author)),
            ("a", "s", Err(RateExceeded::Author)),
            ("b", "r", Ok(())),
            ("c", "r", Err(RateExceeded::Repository)),
            ("c", "s", Ok(())),
            ("d", "s", Ok(())),
            ("e", "t", Err(RateExceeded::All)),
        ] {
            assert_eq!(rates.take(author, repository, 1, 5), expected, "{author} {repository}");
        }
        assert_eq!((rates.authors.len(), rates.repositories.len()), (4, 2), "what was refused takes no room");
        assert!(rates.is_first(RateExceeded::All) && !rates.is_first(RateExceeded::All));
        assert!(rates.is_first(RateExceeded::Author));
        assert_eq!(rates.take("a", "r", 1, WINDOW), Ok(()), "an hour later");
        assert!(rates.is_first(RateExceeded::All));
    }

    #[test]
    fn what_was_taken_in_advance_and_not_needed_is_given_back_within_its_hour() {
        let mut rates = OutsiderRates::new(RateLimits { author: 100, repository: 150, all: 200 });
        assert_eq!(rates.take("a", "r", 64, 5), Ok(()));
        assert_eq!(rates.take("a", "r", 64, 5), Err(RateExceeded::Author));
        rates.give_back("a", "r", 60, 5);
        assert_eq!(rates.take("a", "r", 64, 5), Ok(()));
        assert_eq!(rates.take("b", "r", 83, 5), Err(RateExceeded::Repository), "68 are had");
        assert_eq!(rates.take("a", "r", 64, WINDOW), Ok(()));
        rates.give_back("a", "r", 64, 5);
        assert_eq!(rates.take("a", "r", 64, WINDOW), Err(RateExceeded::Author), "of another hour nothing comes back");
    }
}
