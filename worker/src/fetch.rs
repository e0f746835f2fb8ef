//! Brings what a job needs: repositories into local mirrors, checked-out trees as archives.

mod archive;
mod mirror;

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use workflow::plan::SourceRef;

pub use self::mirror::Mirrors;

/// What `actions/checkout` asks for.
#[derive(Debug, Clone, Default)]
pub struct Checkout {
    /// Commits of history; 0: all.
    pub depth: u32,
    /// Ref or commit other than the job's own; empty: the job's.
    pub reference: String,
}

/// Where a job's repository comes from.
pub trait Sources: Send + Sync {
    /// A tar archive of the work tree with its `.git` directory (no hooks, no remote credentials).
    fn checkout<'a>(
        &'a self,
        source: &'a SourceRef,
        checkout: &'a Checkout,
    ) -> BoxFuture<'a, anyhow::Result<BoxStream<'static, std::io::Result<Bytes>>>>;
}
