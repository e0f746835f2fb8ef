//! Sends the commands to workers that the store holds: cancels of their leases, and drains by the operator. Also stores
//! that the connected workers were seen.
//!
//! A command is state of a row: whichever coordinator has the worker's session sends it, again in each new session, until
//! the attempt is over or the row changes.

use std::{collections::HashSet, sync::Arc, time::Duration};

use store::{Change, ChangeNotification, WorkerChange};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Inner;

/// The store is read this often even if no change was announced, and connected workers are stored as seen.
const READ_INTERVAL: Duration = Duration::from_secs(30);

pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    let mut changes = inner.config.store.subscribe();
    let (mut everything, mut next_read) = (true, Instant::now());
    loop {
        if Instant::now() >= next_read {
            (everything, next_read) = (true, Instant::now() + READ_INTERVAL.mul_f64(0.75 + fastrand::f64() / 2.0));
        }
        if let Err(error) = apply(&inner, everything).await {
            warn!("commands to workers can't be read, trying again: {error:#}");
            next_read = next_read.min(Instant::now() + Duration::from_secs(1));
        }
        everything = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep_until(next_read) => true,
            lagged = announced(&mut changes) => lagged,
        };
    }
}

/// Returns when leases or workers changed. True: a change was missed.
async fn announced(changes: &mut tokio::sync::broadcast::Receiver<ChangeNotification>) -> bool {
    loop {
        match changes.recv().await {
            Ok(ChangeNotification::Leases | ChangeNotification::Workers) => return false,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

async fn apply(inner: &Inner, everything: bool) -> anyhow::Result<()> {
    let store = &inner.config.store;
    if everything {
        let read_at = Instant::now();
        let leases = store.leases().await?;
        inner.registry.lock().sync_leases(leases, read_at);
        let ids: Vec<String> = inner.registry.lock().connected().into_iter().map(|worker| worker.id).collect();
        if !ids.is_empty() {
            let at = (inner.config.clock)();
            store.commit(vec![Change::Workers(WorkerChange::Seen { ids, at })]).await?;
        }
    }
    let cancels = store.leases_to_cancel().await?;
    let workers = store.workers().await?;
    // No worker stops for what a power failure undoes.
    store.synced().await?;
    inner.registry.lock().send_cancels(&cancels);
    let draining: HashSet<String> = workers.into_iter().filter(|row| row.draining).map(|row| row.id).collect();
    if inner.registry.lock().set_draining(&draining) {
        inner.assign.notify_one();
    }
    Ok(())
}
