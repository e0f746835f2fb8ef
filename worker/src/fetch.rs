//! Brings what a job needs: repositories into local mirrors, checked-out trees and actions as archives.
//!
//! A [`RepositoryFetcher`] finds commits; [`checkout()`] makes a work tree of one, submodules included.

mod actions;
mod checkout;
mod checkout_options;
mod git;
mod mirror;
mod mirror_folder;
mod submodules;
mod tree_size;
mod work_tree;

use std::{fs::File, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture, stream::BoxStream};
use workflow::plan::SourceRef;

pub use self::{
    actions::ActionStore,
    checkout::{CheckoutArchive, checkout},
    checkout_options::{CheckoutOptions, SparseCheckout, SubmoduleMode},
    mirror::Mirrors,
};

/// A tar archive as it comes.
pub type Archive = BoxStream<'static, std::io::Result<Bytes>>;

/// One program of this machine as an archive, under a name.
pub fn program_archive(path: &std::path::Path, name: &'static str) -> std::io::Result<Archive> {
    work_tree::program(path, name)
}

/// A commit that a job asks for.
#[derive(Debug, Clone, Default)]
pub struct CommitQuery {
    /// As written in the workflow; empty: the job's own.
    pub repository: String,
    /// Branch, tag, full ref or commit; empty: the job's own commit, or the other repository's default branch.
    pub reference: String,
    /// Every branch and tag too.
    pub everything: bool,
}

/// A commit whose objects are on this machine.
#[derive(Debug, Clone)]
pub struct LocatedCommit {
    /// A repository that has them.
    pub path: PathBuf,
    /// Held, it is not removed; `None`: nobody would.
    pub in_use: Option<Arc<File>>,
    /// Full id.
    pub commit: String,
    /// Full name of the ref; empty: a commit was asked for.
    pub reference: String,
    /// Branches and tags, where everything was asked for, and the object of each.
    pub refs: Vec<(String, String)>,
    /// URL it came from, for relative URLs of submodules; empty: none.
    pub origin: String,
    /// How it was found, for the log.
    pub notes: Vec<String>,
}

/// An action of a repository at a commit, which is not the workspace's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActionRef {
    /// As written, `owner/repo` or a Nostr address; empty: the job's own, at its commit.
    pub repository: String,
    /// Folder in the repository; empty: its root.
    pub path: String,
    /// Branch, tag or commit, as written.
    pub reference: String,
}

impl ActionRef {
    /// `owner/repo@ref`: what is resolved to a commit.
    pub fn name(&self) -> String {
        format!("{}@{}", self.repository, self.reference)
    }

    /// Where the repository lies below the folder of actions: `owner/repo/ref`.
    pub fn folder(&self) -> String {
        if self.repository.is_empty() {
            return format!("self/{}", self.reference);
        }
        format!("{}/{}", self.repository.replace(':', "_").replace("//", "/"), self.reference)
    }
}

/// The files of an action's repository.
pub struct FetchedAction {
    /// Full id.
    pub commit: String,
    /// How it was found, for the log.
    pub notes: Vec<String>,
    /// Its files.
    pub archive: Archive,
}

/// Where a job's repository, and what its workflow names, come from.
pub trait RepositoryFetcher: Send + Sync {
    /// Finds a commit and brings its objects.
    fn locate<'a>(
        &'a self,
        source: &'a SourceRef,
        wanted: &'a CommitQuery,
    ) -> BoxFuture<'a, anyhow::Result<LocatedCommit>>;
    /// Finds an action and brings its files.
    fn action<'a>(
        &'a self,
        source: &'a SourceRef,
        action: &'a ActionRef,
    ) -> BoxFuture<'a, anyhow::Result<FetchedAction>>;
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

    /// Finds a commit of it.
    fn find(&self, source: &SourceRef, wanted: &CommitQuery) -> anyhow::Result<LocatedCommit> {
        let path = std::fs::canonicalize(&self.path)
            .with_context(|| format!("the repository {} is not there", self.path.display()))?;
        let repository =
            git2::Repository::open(&path).with_context(|| format!("{} is no git repository", path.display()))?;
        let asked = if wanted.reference.is_empty() { &source.reference } else { &wanted.reference };
        let full = [asked.clone(), format!("refs/tags/{asked}"), format!("refs/heads/{asked}")]
            .into_iter()
            .find(|name| name.starts_with("refs/") && repository.find_reference(name).is_ok());
        let object = if wanted.reference.is_empty() && !source.commit.is_empty() {
            git2::Oid::from_str(&source.commit).with_context(|| format!("`{}` is no commit id", source.commit))?
        } else if let Some(name) = &full {
            repository.find_reference(name)?.peel_to_commit().with_context(|| format!("{name} names no commit"))?.id()
        } else {
            match git2::Oid::from_str(asked) {
                Ok(id) if asked.len() >= 40 => id,
                _ => bail!("the repository has no branch, tag or commit `{asked}`"),
            }
        };
        let commit =
            repository.find_commit(object).with_context(|| format!("the repository has no commit {object}"))?.id();
        let named = |name: &String| name.starts_with("refs/") && git2::Reference::is_valid_name(name);
        let reference = full.or_else(|| Some(asked.clone()).filter(named)).unwrap_or_default();
        let mut refs = Vec::new();
        if wanted.everything {
            for found in repository.references()?.flatten() {
                let (Ok(name), Some(id)) = (found.name(), found.target()) else { continue };
                if name.starts_with("refs/heads/") || name.starts_with("refs/tags/") {
                    refs.push((name.to_owned(), id.to_string()));
                }
            }
        }
        let origin = repository.find_remote("origin").ok().and_then(|remote| remote.url().ok().map(str::to_owned));
        let origin = origin.filter(|url| url.starts_with("http")).unwrap_or_default();
        let commit = commit.to_string();
        Ok(LocatedCommit { path, in_use: None, commit, reference, refs, origin, notes: Vec::new() })
    }
}

impl RepositoryFetcher for LocalRepository {
    fn locate<'a>(
        &'a self,
        source: &'a SourceRef,
        wanted: &'a CommitQuery,
    ) -> BoxFuture<'a, anyhow::Result<LocatedCommit>> {
        async move {
            let name = &wanted.repository;
            ensure!(name.is_empty(), "{name}: repositories other than the job's own cannot be had here");
            let (this, source, wanted) = (self.clone(), source.clone(), wanted.clone());
            let found = tokio::task::spawn_blocking(move || this.find(&source, &wanted)).await;
            found.context("the look-up of a commit was ended")?
        }
        .boxed()
    }

    fn action<'a>(
        &'a self,
        source: &'a SourceRef,
        action: &'a ActionRef,
    ) -> BoxFuture<'a, anyhow::Result<FetchedAction>> {
        async move {
            let name = action.name();
            ensure!(action.repository.is_empty(), "{name}: actions of other repositories cannot be had here");
            let found = self.locate(source, &CommitQuery::default()).await?;
            let archive = work_tree::files(&found.path, &found.commit).await?;
            Ok(FetchedAction { commit: found.commit, notes: Vec::new(), archive })
        }
        .boxed()
    }
}
