//! The wall clock.

use std::time::SystemTime;

use workflow::time::unix_millis;

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    unix_millis(SystemTime::now())
}
