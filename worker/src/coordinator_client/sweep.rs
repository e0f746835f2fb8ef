//! Removes what jobs left behind, for as long as the worker runs: what could not be removed is tried again.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval_at};

use super::Executor;

/// Between two sweeps.
const INTERVAL: Duration = Duration::from_secs(60);

/// Sweeps every minute; the sweep at the start is the caller's.
pub(super) async fn run(executor: Arc<dyn Executor>) {
    let mut ticks = interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        executor.sweep().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::BoxFuture;

    use super::*;
    use crate::{coordinator_client::AssignedJob, job::ProgressReporter};

    #[derive(Default)]
    struct Sweeps(AtomicUsize);

    impl Executor for Sweeps {
        fn execute(&self, _: AssignedJob, _: Arc<dyn ProgressReporter>) -> BoxFuture<'static, Vec<u8>> {
            Box::pin(std::future::pending())
        }

        fn sweep(&self) -> BoxFuture<'_, ()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn leftovers_are_swept_every_minute() {
        let sweeps = Arc::new(Sweeps::default());
        let _ = tokio::time::timeout(Duration::from_secs(200), run(sweeps.clone())).await;
        assert_eq!(sweeps.0.load(Ordering::Relaxed), 3);
    }
}
