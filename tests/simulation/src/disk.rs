//! The disk under the coordinator's database: it may be slow or full, and it is gone with the process that had it open.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use store::{StoreError, testing::Disk};
use tokio_util::sync::CancellationToken;

use crate::random::Random;

/// Longest time of a write, in milliseconds.
const WRITE_MS: u64 = 3;

/// The machine's disk.
#[derive(Debug, Clone)]
pub(crate) struct Machine(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    random: Random,
    full: bool,
    slow: bool,
}

/// The disk as one process sees it.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    machine: Machine,
    killed: CancellationToken,
}

impl Machine {
    pub(crate) fn new(random: Random) -> Self {
        Self(Arc::new(Mutex::new(State { random, full: false, slow: false })))
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    pub(crate) fn set_slow(&self, slow: bool) {
        self.0.lock().slow = slow;
    }

    /// For a process that ends with `killed`.
    pub(crate) fn mount(&self, killed: CancellationToken) -> Mount {
        Mount { machine: self.clone(), killed }
    }

    fn delay(&self) -> Duration {
        let mut state = self.0.lock();
        let longest = if state.slow { 200 * WRITE_MS } else { WRITE_MS };
        state.random.millis(0..longest)
    }
}

impl Disk for Mount {
    fn write(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        let this = self.clone();
        Box::pin(async move {
            tokio::time::sleep(this.machine.delay()).await;
            if this.killed.is_cancelled() {
                return std::future::pending().await;
            }
            match this.machine.0.lock().full {
                true => Err(StoreError::Database("database or disk is full".into())),
                false => Ok(()),
            }
        })
    }

    fn written(&self) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            // Here a kill meets a process whose commit is on the disk and that does not know it.
            tokio::time::sleep(this.machine.delay()).await;
            if this.killed.is_cancelled() {
                std::future::pending::<()>().await;
            }
        })
    }
}
