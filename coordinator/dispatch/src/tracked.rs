//! Tasks that are awaited at shutdown and whose panics are logged.

use std::{any::Any, future::Future, panic::AssertUnwindSafe};

use futures::FutureExt as _;
use tokio_util::task::TaskTracker;

/// Spawns a task that is waited for at shutdown.
pub(super) fn spawn(tracker: &TaskTracker, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    drop(tracker.spawn(async move {
        _ = caught(name, task).await;
    }));
}

/// Awaits something that may panic; the panic is logged and `None` returned.
pub(super) async fn caught<T>(name: &str, task: impl Future<Output = T>) -> Option<T> {
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(value) => Some(value),
        Err(panic) => {
            tracing::error!(task = name, "ended by a bug: {}", text_of(&*panic));
            None
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
