//! Tasks that are awaited at shutdown and whose panics are logged.

use std::{any::Any, future::Future, panic::AssertUnwindSafe};

use futures::FutureExt as _;
use tokio_util::task::TaskTracker;

/// Spawns a task that is waited for at shutdown.
pub(super) fn spawn(tracker: &TaskTracker, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    drop(tracker.spawn(caught(name, task).map(drop)));
}

/// Awaits something that may panic; the panic is logged and `None` returned.
// No `async fn`: its future would have room for the task twice, and a session with each worker is one.
pub(super) fn caught<T>(name: &str, task: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    AssertUnwindSafe(task).catch_unwind().map(move |ended| match ended {
        Ok(value) => Some(value),
        Err(panic) => {
            tracing::error!(task = name, "ended by a bug: {}", text_of(&*panic));
            None
        }
    })
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
