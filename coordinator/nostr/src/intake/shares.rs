//! What requests may take of intake: authors that the policy knows have a share of their own, all others share what is
//! left.

use std::time::Duration;

use crate::{policy::AuthorStanding, relays::Urgency};

/// Whose share something is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Authors that the policy knows.
    Known,
    /// All others together.
    Others,
}

/// Limits of one share.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShareLimits {
    /// Events that wait for their turn.
    pub(super) queue: usize,
    /// Bytes of those.
    pub(super) queue_bytes: usize,
    /// Events handled at the same time.
    pub(super) at_once: usize,
    /// Requests that wait for their partner.
    pub(super) waiting: usize,
    /// Of those, of one author.
    pub(super) waiting_of_author: usize,
    /// Bytes of those.
    pub(super) waiting_bytes: usize,
    /// Part of the configured time that a request waits.
    wait_divisor: u64,
    /// Relays that a request names, on which its partner is looked for.
    pub(super) relays_of_others: usize,
}

const KNOWN: ShareLimits = ShareLimits {
    queue: 1024,
    queue_bytes: 32 << 20,
    at_once: 64,
    waiting: 4096,
    waiting_of_author: 512,
    waiting_bytes: 32 << 20,
    wait_divisor: 1,
    relays_of_others: 16,
};
/// In a pool where everybody may run.
const OTHERS_OF_OPEN: ShareLimits =
    ShareLimits { queue: 4096, queue_bytes: 16 << 20, waiting: 2048, relays_of_others: 3, ..KNOWN };
const OTHERS: ShareLimits = ShareLimits {
    queue: 1024,
    queue_bytes: 4 << 20,
    at_once: 8,
    waiting: 256,
    waiting_of_author: 4,
    waiting_bytes: 2 << 20,
    wait_divisor: 5,
    relays_of_others: 0,
};

impl Share {
    pub(super) fn of(standing: AuthorStanding) -> Self {
        match standing {
            AuthorStanding::Known => Self::Known,
            AuthorStanding::Unknown | AuthorStanding::Excluded => Self::Others,
        }
    }

    pub(super) fn limits(self, pool_is_open: bool) -> ShareLimits {
        match self {
            Self::Known => KNOWN,
            Self::Others if pool_is_open => OTHERS_OF_OPEN,
            Self::Others => OTHERS,
        }
    }

    pub(super) fn urgency(self) -> Urgency {
        match self {
            Self::Known => Urgency::First,
            Self::Others => Urgency::Later,
        }
    }
}

impl ShareLimits {
    /// How long a request waits for its partner, where so many seconds are configured.
    pub(super) fn wait(self, seconds: u64) -> Duration {
        Duration::from_secs(seconds.div_ceil(self.wait_divisor))
    }
}
