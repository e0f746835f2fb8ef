//! Ends a job that uses more disk than it may.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::sandbox::Machine;

/// Between two looks, at least.
const PAUSE: Duration = Duration::from_secs(3);
/// Looking takes at most one part in so many of the time.
const SHARE: u32 = 10;

/// Looks until it is dropped; cancels `full` where the job uses more than `limit` bytes.
pub(super) fn watch(machine: Arc<dyn Machine>, limit: u64, full: CancellationToken) -> Option<AbortOnDropHandle<()>> {
    if limit == 0 {
        return None;
    }
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let began = Instant::now();
            match machine.disk_used().await {
                Ok(Some(used)) if used > limit => return full.cancel(),
                Ok(Some(_)) => {}
                // A machine whose disk cannot be seen, or that is gone.
                Ok(None) | Err(_) => return,
            }
            sleep(PAUSE.max(began.elapsed() * SHARE)).await;
        }
    })))
}
