//! Brings what a job needs: repositories into local mirrors, checked-out trees as archives.

mod archive;
mod mirror;

use std::path::PathBuf;

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture, stream::BoxStream};
use workflow::plan::SourceRef;

pub use self::{archive::checkout_archive, mirror::Mirrors};

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

/// One repository on this machine, whatever a job's source is called: `longshore exec`.
#[derive(Debug, Clone)]
pub struct LocalRepository {
    path: PathBuf,
}

impl LocalRepository {
    /// The repository at a path, bare or not.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Sources for LocalRepository {
    fn checkout<'a>(
        &'a self,
        source: &'a SourceRef,
        checkout: &'a Checkout,
    ) -> BoxFuture<'a, anyhow::Result<BoxStream<'static, std::io::Result<Bytes>>>> {
        let reference = if checkout.reference.is_empty() { &source.reference } else { &checkout.reference };
        let commit = if checkout.reference.is_empty() { source.commit.as_str() } else { "" };
        checkout_archive(&self.path, commit, reference, checkout.depth).boxed()
    }
}
