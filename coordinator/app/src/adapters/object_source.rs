//! Objects of repositories, as workers ask for them.

use anyhow::ensure;
use bytes::Bytes;
use config::Config;
use dispatch::SourceObjects;
use domain::run::{Repository, Visibility};
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use proto::worker::{self as wire, ResolveRequest};
use source::{
    RepositoryMirrors,
    other_repositories::{FetchDepth, RepositoryRequest},
};
use std::sync::Arc;

use crate::repository_policy::RepositoryPolicy;

type Bytestream = BoxStream<'static, std::io::Result<Bytes>>;

/// Repository objects for workers.
pub(crate) struct ObjectSource {
    pub(crate) sources: Arc<RepositoryMirrors>,
    pub(crate) config: Arc<Config>,
}

/// Whether workflows of the repository `own` may have the files of another: all but one whose runs the operator keeps
/// private, which is for its owner's repositories alone. What is fetched by URL is open to everybody.
fn may_have(config: &Config, own: &str, other: &str) -> bool {
    let parts = |address: &str| {
        let (owner, identifier) = address.strip_prefix("30617:")?.split_once(':')?;
        Some((owner.to_owned(), identifier.to_owned()))
    };
    let Some((of_other, identifier)) = parts(other) else { return true };
    if other == own || parts(own).is_some_and(|(of_own, _)| of_own == of_other) {
        return true;
    }
    let repository = Repository { address: other.to_owned(), owner: of_other, identifier, relays: Vec::new() };
    matches!(RepositoryPolicy::new(config, &repository).visibility(), Visibility::Public)
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
            let found = self.sources.find(&RepositoryRequest { repository, reference: &asked.reference, need }).await?;
            ensure!(
                may_have(&self.config, own, &found.key),
                "{repository} is private here: a workflow of another owner gets none of it unless the operator sets \
                 repositories.\"{}\".visibility = \"public\"",
                found.key
            );
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

#[cfg(test)]
mod tests {
    use config::{RepositoryConfig, VisibilityConfig};

    use super::*;

    #[test]
    fn a_private_repository_is_for_workflows_of_its_owner_alone() {
        let (alice, bob) = ("aa".repeat(32), "bb".repeat(32));
        let [secret, open, other] =
            [(&alice, "secret"), (&alice, "open"), (&bob, "secret")].map(|(key, name)| format!("30617:{key}:{name}"));
        let mut config = Config::default();
        let private = RepositoryConfig { visibility: VisibilityConfig::Readers, ..RepositoryConfig::default() };
        config.repositories.insert(secret.clone(), private.clone());
        for (own, wanted, may) in [
            (&secret, &secret, true),
            (&open, &secret, true),
            (&other, &secret, false),
            (&String::new(), &secret, false),
            (&other, &open, true),
            (&secret, &other, true),
            (&other, &"https://git.example/a/b".to_owned(), true),
            (&other, &"tree https://git.example/a/b".to_owned(), true),
        ] {
            assert_eq!(may_have(&config, own, wanted), may, "{own} {wanted}");
        }
        config.repositories.insert("*".to_owned(), private);
        assert!(!may_have(&config, &other, &open), "all are private that are not set to be public");
        config.repositories.insert(open.clone(), RepositoryConfig::default());
        assert!(may_have(&config, &other, &open));
    }
}
