//! How many pull requests of people whom a repository does not know are looked at: each costs a look at relays, a fetch
//! from a server of their choice, and a run that waits. Pure.

use std::collections::HashMap;

/// How long counts hold (ms).
const WINDOW: u64 = 3_600_000;

/// What is looked at within an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Events of one author.
    pub author: u32,
    /// Events of all of them about one repository.
    pub repository: u32,
    /// Events of all of them about all repositories.
    pub all: u32,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { author: 20, repository: 120, all: 600 }
    }
}

/// What was looked at in this hour. It holds no more keys than events were taken.
#[derive(Debug, Default)]
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

/// Why an event is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateExceeded {
    /// Its author had as many as one may.
    #[error(
        "its author, who is no maintainer, has published as many events of pull requests as are looked at in an hour"
    )]
    Author,
    /// The repository had.
    #[error(
        "this repository had as many events of pull requests by others than maintainers as are looked at in an hour"
    )]
    Repository,
    /// This pool had.
    #[error("this pool has looked at as many pull requests by others than maintainers as it does in an hour")]
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
        Self { limits, ..Self::default() }
    }

    /// Takes one more event, at a time (ms).
    ///
    /// # Errors
    /// There were as many as may be; nothing is counted then.
    pub fn take(&mut self, author: &str, repository: &str, now: u64) -> Result<(), RateExceeded> {
        if now / WINDOW != self.window {
            *self = Self { window: now / WINDOW, ..Self::new(self.limits) };
        }
        let count = |counts: &HashMap<String, u32>, key: &str| counts.get(key).copied().unwrap_or_default();
        if count(&self.authors, author) >= self.limits.author {
            return Err(RateExceeded::Author);
        }
        if count(&self.repositories, repository) >= self.limits.repository {
            return Err(RateExceeded::Repository);
        }
        if self.all >= self.limits.all {
            return Err(RateExceeded::All);
        }
        self.all += 1;
        *self.authors.entry(author.to_owned()).or_default() += 1;
        *self.repositories.entry(repository.to_owned()).or_default() += 1;
        Ok(())
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
            assert_eq!(rates.take(author, repository, 5), expected, "{author} {repository}");
        }
        assert_eq!((rates.authors.len(), rates.repositories.len()), (4, 2), "what was refused takes no room");
        assert!(rates.is_first(RateExceeded::All) && !rates.is_first(RateExceeded::All));
        assert!(rates.is_first(RateExceeded::Author));
        assert_eq!(rates.take("a", "r", WINDOW), Ok(()), "an hour later");
        assert!(rates.is_first(RateExceeded::All));
    }
}
