//! Ends a job that uses more disk than it may.

use std::sync::Arc;

use proto::STEP_SETUP;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::log_writer::LogWriter;
use crate::sandbox::Machine;

/// Looks until it is dropped; cancels `full` where the job uses more than `limit` bytes (0: any number), or the most of a
/// disk that is nearly full. The log says which.
pub(super) fn watch(
    machine: &Arc<dyn Machine>,
    limit: u64,
    full: CancellationToken,
    log: LogWriter,
) -> AbortOnDropHandle<()> {
    let machine = Arc::clone(machine);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let breach = machine.watch_disk(limit).await;
        full.cancel();
        log.notice(STEP_SETUP, &format!("##[error]{breach}")).await;
    }))
}
