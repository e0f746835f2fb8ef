//! How long workers, offers and cancels may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long workers, offers and cancels may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseTimeouts {
    /// A worker that is not heard for this long loses its attempts.
    pub lease_ms: u64,
    /// How often a worker renews.
    pub renew_ms: u64,
    /// An offer that is not accepted by then goes back to the queue; it is no try.
    pub offer_ms: u64,
    /// A cancel that is not confirmed by then costs the worker the slot.
    pub confirm_ms: u64,
}

impl Default for LeaseTimeouts {
    fn default() -> Self {
        Self { lease_ms: 30_000, renew_ms: 10_000, offer_ms: 5_000, confirm_ms: 60_000 }
    }
}

impl LeaseTimeouts {
    /// See [`Self::lease_ms`].
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// See [`Self::renew_ms`].
    pub fn renew(&self) -> Duration {
        Duration::from_millis(self.renew_ms)
    }

    /// See [`Self::offer_ms`].
    pub fn offer(&self) -> Duration {
        Duration::from_millis(self.offer_ms)
    }

    /// See [`Self::confirm_ms`].
    pub fn confirm(&self) -> Duration {
        Duration::from_millis(self.confirm_ms)
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
