//! Where the jobs of `exec` get repositories: the checkout itself, and for the rest what a coordinator would ask.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use futures::{FutureExt as _, future::BoxFuture};
use nostr::{Event, Filter, Keys};
use nostr_client::relays::Relays;
use source::{
    EventQuery, RepositoryMirrors,
    lock::Lock,
    other_repositories::{FetchDepth, RepositoryRequest},
};
use worker::fetch::{ActionRef, CommitQuery, FetchedAction, LocalRepository, LocatedCommit, RepositoryFetcher};
use workflow::{
    dialect::workflow_ref::RemoteRepository,
    plan::{Dialect, SourceRef},
};

/// How long relays may take to say what they have of a repository.
const LOOK_UP: std::time::Duration = std::time::Duration::from_secs(8);

/// The checkout and what its workflow names.
pub(super) struct ExecSources {
    own: LocalRepository,
    outside: RepositoryMirrors,
    lock: Option<Lock>,
}

impl ExecSources {
    /// `cache` keeps what was fetched between runs; `relays` are asked for repositories on Nostr.
    pub(super) fn new(
        root: &Path,
        cache: &Path,
        actions: config::Actions,
        relays: Vec<String>,
        lock: Option<Lock>,
    ) -> Self {
        let settings = config::Source { allow_private: true, allow_file: true, ..config::Source::default() };
        let lookup = Arc::new(Asking { relays });
        let outside = RepositoryMirrors::new(cache.join("mirrors"), settings, lookup).with_actions(actions);
        Self { own: LocalRepository::new(root), outside, lock }
    }
}

impl ExecSources {
    /// A workflow file of another repository, and the commit it is of.
    pub(super) async fn workflow(
        &self,
        origin: &RemoteRepository,
        commit: Option<String>,
        path: &str,
    ) -> Result<(String, String)> {
        let need = FetchDepth::Tree(self.lock.as_ref().filter(|_| commit.is_none()));
        let reference = commit.as_deref().unwrap_or(&origin.reference);
        let found =
            self.outside.find(&RepositoryRequest { own: "", repository: &origin.repository, reference, need }).await?;
        let bytes = self.outside.file(&found, path, Dialect::of_any_path(path).max_file_bytes()).await?;
        let bytes = bytes.with_context(|| format!("{origin} has no {path} at commit {}", found.commit))?;
        Ok((
            found.commit.to_string(),
            String::from_utf8(bytes).with_context(|| format!("{path} of {origin} is not UTF-8"))?,
        ))
    }
}

impl RepositoryFetcher for ExecSources {
    fn locate<'a>(&'a self, source: &'a SourceRef, wanted: &'a CommitQuery) -> BoxFuture<'a, Result<LocatedCommit>> {
        async move {
            if wanted.repository.is_empty() {
                return self.own.locate(source, wanted).await;
            }
            let need = if wanted.everything { FetchDepth::Everything } else { FetchDepth::History };
            let asked =
                RepositoryRequest { own: "", repository: &wanted.repository, reference: &wanted.reference, need };
            let found = self.outside.find(&asked).await?;
            Ok(LocatedCommit {
                path: self.outside.folder(&found.key).await?,
                in_use: None,
                commit: found.commit.to_string(),
                reference: found.reference,
                refs: found.refs,
                origin: found.origin,
                notes: found.notes,
            })
        }
        .boxed()
    }

    fn action<'a>(&'a self, source: &'a SourceRef, action: &'a ActionRef) -> BoxFuture<'a, Result<FetchedAction>> {
        async move {
            if action.repository.is_empty() {
                return self.own.action(source, action).await;
            }
            let need = FetchDepth::Tree(self.lock.as_ref());
            let asked =
                RepositoryRequest { own: "", repository: &action.repository, reference: &action.reference, need };
            let found = self.outside.find(&asked).await?;
            let archive = self.outside.archive(&found.key, found.commit.as_str()).await?;
            Ok(FetchedAction { commit: found.commit.to_string(), notes: found.notes, archive })
        }
        .boxed()
    }
}

/// Relays, connected to only where a workflow names a repository on Nostr.
struct Asking {
    relays: Vec<String>,
}

impl EventQuery for Asking {
    fn find<'a>(&'a self, relays: &'a [String], filter: Filter) -> BoxFuture<'a, Vec<Event>> {
        async move {
            let config = config::Relays { allow_private: true, ..config::Relays::default() };
            let asked: Vec<String> = relays.iter().chain(&self.relays).cloned().collect();
            let found = Relays::new(&Keys::generate(), &config);
            found.fetch(&asked, &filter, LOOK_UP).await
        }
        .boxed()
    }

    fn write_relays<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Vec<String>> {
        std::future::ready(Vec::new()).boxed()
    }
}
