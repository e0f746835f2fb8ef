//! What a simulation decides over: the disk under a database in memory.

use futures::future::BoxFuture;

use super::StoreError;

/// The disk under a database in memory.
pub trait Disk: Send + Sync {
    /// Called before a group is written. An error is the group's, and nothing is written; a future that never ends is a
    /// process that was killed before.
    fn write(&self) -> BoxFuture<'static, Result<(), StoreError>>;
    /// Called after groups are committed and before their callers are answered. A future that never ends is a process
    /// that was killed in between.
    fn written(&self) -> BoxFuture<'static, ()>;
}
