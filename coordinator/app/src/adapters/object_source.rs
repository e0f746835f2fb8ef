//! Objects of repositories, as workers ask for them.

use bytes::Bytes;
use dispatch::SourceObjects;
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use proto::worker::{self as wire, ResolveRequest};
use source::{
    RepositoryMirrors,
    other_repositories::{FetchDepth, RepositoryRequest},
};
use std::sync::Arc;

type Bytestream = BoxStream<'static, std::io::Result<Bytes>>;

/// Repository objects for workers.
pub(crate) struct ObjectSource {
    pub(crate) sources: Arc<RepositoryMirrors>,
}

impl SourceObjects for ObjectSource {
    fn bundle<'a>(
        &'a self,
        repository: &'a str,
        wanted: &'a [String],
        have: &'a [String],
    ) -> BoxFuture<'a, anyhow::Result<Bytestream>> {
        async move { Ok(self.sources.bundle(repository, wanted, have).await?) }.boxed()
    }

    fn resolve<'a>(&'a self, own: &'a str, asked: &'a ResolveRequest) -> BoxFuture<'a, anyhow::Result<wire::Resolved>> {
        async move {
            let lock = match asked.depth() {
                wire::FetchDepth::Tree => self.sources.lock_of(own, &asked.commit).await?,
                _ => None,
            };
            let need = match asked.depth() {
                wire::FetchDepth::Tree => FetchDepth::Tree(lock.as_ref()),
                wire::FetchDepth::AllRefs => FetchDepth::Everything,
                wire::FetchDepth::History | wire::FetchDepth::Unspecified => FetchDepth::History,
            };
            let repository = if asked.repository.is_empty() { own } else { &asked.repository };
            let asked = RepositoryRequest { own, repository, reference: &asked.reference, need };
            let found = self.sources.find(&asked).await?;
            Ok(wire::Resolved {
                grant: Bytes::new(),
                repository: found.key,
                commit: found.commit.to_string(),
                reference: found.reference,
                refs: found.refs.into_iter().collect(),
                origin: found.origin,
                notes: found.notes,
            })
        }
        .boxed()
    }

    fn archive<'a>(&'a self, repository: &'a str, commit: &'a str) -> BoxFuture<'a, anyhow::Result<Bytestream>> {
        async move { Ok(self.sources.archive(repository, commit).await?) }.boxed()
    }
}
