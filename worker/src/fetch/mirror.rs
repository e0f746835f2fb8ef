//! Asks the coordinator for an attempt: names become commits, objects land in a bare mirror of each repository, so that
//! a job brings only what is new.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use proto::worker::{ArchiveRequest, Attempt, FetchDepth, ResolveRequest, Resolved, SourceRequest};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use workflow::plan::SourceRef;

use super::{
    ActionRef, ActionStore, CommitQuery, FetchedAction, LocatedCommit, RepositoryFetcher,
    git::git,
    mirror_folder::{self, MirrorFolder},
    work_tree::WorkTree,
};
use crate::coordinator_client::bulk::{BulkConnection, BulkServiceClient, refusal};

/// Commits that are named to the coordinator as already here.
const HAVE: usize = 64;
/// Refs that keep the commits of jobs.
const KEPT: &str = "refs/longshore";

/// The mirrors of a worker, which the processes of its jobs share.
pub struct Mirrors {
    folder: PathBuf,
    /// Bytes of all of them.
    quota: u64,
    actions: ActionStore,
}

impl Mirrors {
    /// Mirrors in a folder, which is made when needed, beside a store of actions. `quota`: bytes of all of them, and the most
    /// that is fetched at once.
    pub fn new(folder: PathBuf, quota: u64, actions: ActionStore) -> Self {
        Self { folder, quota, actions }
    }

    /// What fetches for one attempt, which may ask for its own repository alone.
    pub(crate) fn for_attempt(
        self: Arc<Self>,
        bulk: Arc<BulkConnection>,
        attempt: Attempt,
        token: String,
    ) -> Arc<dyn RepositoryFetcher> {
        Arc::new(AttemptSources { mirrors: self, bulk, attempt, token })
    }

    /// One fetch at a time for each action's commit, whichever process asks.
    async fn lock_action(&self, commit: &str) -> anyhow::Result<ActionLock> {
        let folder = self.folder.join("locks");
        let path = folder.join(commit);
        let locked = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder)?;
            let file = File::options().write(true).create(true).truncate(false).open(&path)?;
            file.lock()?;
            io::Result::Ok(ActionLock { path, _file: file })
        });
        locked.await?.context("folder of mirrors")
    }

    fn path(&self, repository: &str) -> PathBuf {
        self.folder.join(format!("{}.git", hex::encode(Sha256::digest(repository))))
    }
}

/// A lock whose file goes with it. Somebody who waited for it may then have it beside somebody who made it anew: both find
/// the action in the store, and would at worst fetch it twice.
struct ActionLock {
    path: PathBuf,
    _file: File,
}

impl Drop for ActionLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

struct AttemptSources {
    mirrors: Arc<Mirrors>,
    bulk: Arc<BulkConnection>,
    attempt: Attempt,
    token: String,
}

/// Objects that a mirror must have.
struct Objects<'a> {
    /// Names the mirror: as in `Resolved.repository`, or the job's own.
    repository: &'a str,
    /// What the coordinator is asked for; empty: the attempt's own.
    asked: &'a str,
    /// As `Resolved.grant`.
    grant: Bytes,
    commit: &'a str,
    also: &'a [String],
}

impl RepositoryFetcher for AttemptSources {
    fn locate<'a>(
        &'a self,
        source: &'a SourceRef,
        wanted: &'a CommitQuery,
    ) -> BoxFuture<'a, anyhow::Result<LocatedCommit>> {
        async move {
            let own = wanted.repository.is_empty();
            ensure!(!own || !source.repository.is_empty(), "this job has no repository to check out");
            if own && wanted.reference.is_empty() && !wanted.everything {
                let (repository, commit) = (source.repository.as_str(), source.commit.as_str());
                let mirror = self
                    .fetch_commit(&Objects { repository, asked: "", grant: Bytes::new(), commit, also: &[] })
                    .await?;
                return Ok(LocatedCommit {
                    path: mirror.path,
                    in_use: Some(mirror.in_use),
                    commit: source.commit.clone(),
                    reference: source.reference.clone(),
                    refs: Vec::new(),
                    origin: String::new(),
                    notes: Vec::new(),
                });
            }
            let as_job = own && wanted.reference.is_empty();
            let reference = if as_job { &source.commit } else { &wanted.reference };
            let depth = if wanted.everything { FetchDepth::AllRefs } else { FetchDepth::History };
            let found = self.resolve(source, &wanted.repository, reference, depth).await?;
            let also: Vec<String> = found.refs.values().cloned().collect();
            let (repository, commit) = (found.repository.as_str(), found.commit.as_str());
            let objects = Objects { repository, asked: repository, grant: found.grant.clone(), commit, also: &also };
            let mirror = self.fetch_commit(&objects).await?;
            Ok(LocatedCommit {
                path: mirror.path,
                in_use: Some(mirror.in_use),
                reference: if as_job { source.reference.clone() } else { found.reference },
                commit: found.commit,
                refs: found.refs.into_iter().collect(),
                origin: found.origin,
                notes: if own { Vec::new() } else { found.notes },
            })
        }
        .boxed()
    }

    fn action<'a>(
        &'a self,
        source: &'a SourceRef,
        action: &'a ActionRef,
    ) -> BoxFuture<'a, anyhow::Result<FetchedAction>> {
        async move {
            let found = match action.repository.as_str() {
                "" => own(source)?,
                name => self.resolve(source, name, &action.reference, FetchDepth::Tree).await?,
            };
            check_id(&found.commit)?;
            let store = &self.mirrors.actions;
            let _locked = self.mirrors.lock_action(&found.commit).await?;
            let archive = match store.open(&found.commit).await {
                Some(archive) => archive,
                None => {
                    let request = ArchiveRequest {
                        attempt: Some(self.attempt.clone()),
                        token: self.token.clone(),
                        repository: found.repository,
                        commit: found.commit.clone(),
                        grant: found.grant,
                    };
                    let parts = self.client().await?.archive(request).await.map_err(refusal)?.into_inner();
                    let pieces = parts
                        .map(|part| part.map(|part| part.data).map_err(|status| io::Error::other(refusal(status))));
                    store.keep(&found.commit, pieces.boxed()).await.with_context(|| action.name())?;
                    store.open(&found.commit).await.context("the store of actions lost what it was given")?
                }
            };
            Ok(FetchedAction { commit: found.commit, notes: found.notes, archive })
        }
        .boxed()
    }
}

impl AttemptSources {
    async fn client(&self) -> anyhow::Result<BulkServiceClient> {
        let mut bulk = self.bulk.client.clone();
        let client = bulk.wait_for(Option::is_some).await.context("the worker is ending")?.clone();
        client.context("no session with a coordinator")
    }

    async fn resolve(
        &self,
        source: &SourceRef,
        repository: &str,
        reference: &str,
        depth: FetchDepth,
    ) -> anyhow::Result<Resolved> {
        let request = ResolveRequest {
            attempt: Some(self.attempt.clone()),
            token: self.token.clone(),
            commit: source.commit.clone(),
            repository: repository.to_owned(),
            reference: reference.to_owned(),
            depth: depth.into(),
        };
        Ok(self.client().await?.resolve(request).await.map_err(refusal)?.into_inner())
    }

    /// The mirror, with the objects in it.
    async fn fetch_commit(&self, objects: &Objects<'_>) -> anyhow::Result<MirrorFolder> {
        let wanted: Vec<&str> =
            std::iter::once(objects.commit).chain(objects.also.iter().map(String::as_str)).collect();
        for id in &wanted {
            check_id(id)?;
        }
        let format = if objects.commit.len() == 64 { "sha256" } else { "sha1" };
        let path = self.mirrors.path(objects.repository);
        let mut begun_anew = false;
        let mirror = loop {
            let mirror = MirrorFolder::open(path.clone(), format).await?;
            let missing = missing(&mirror.path, &wanted).await?;
            if missing.is_empty() {
                break mirror;
            }
            let fetched = self.fetch(&mirror.path, objects, missing).await;
            let bundle = fetched.with_context(|| format!("commit {}", objects.commit))?;
            let is_full = mirror.bytes().saturating_add(bundle.bytes) > self.mirrors.quota;
            if !begun_anew && (is_full || mirror.is_scattered()) {
                begun_anew = true;
                drop(mirror);
                let gone = mirror_folder::remove_soon(&path).await.context("folder of mirrors")?;
                let most = self.mirrors.quota >> 20;
                ensure!(
                    gone || !is_full,
                    "the worker's copy of the repository has the {most} MiB of `disk.mirror_bytes`, and other jobs read \
                     it just now: try again"
                );
                continue;
            }
            bundle.add_to(&mirror.path).await.with_context(|| format!("commit {}", objects.commit))?;
            // What grew makes room for the next, and nobody waits for it.
            let (folder, quota) = (self.mirrors.folder.clone(), self.mirrors.quota);
            drop(tokio::task::spawn_blocking(move || mirror_folder::trim(&folder, quota)));
            let wanted = format!("{}^{{commit}}", objects.commit);
            git(&mirror.path, &["cat-file", "-e", &wanted])
                .await
                .context("the coordinator's bundle lacks the commit")?;
            break mirror;
        };
        // What a mirror has is told by its refs.
        git(&mirror.path, &["update-ref", &format!("{KEPT}/{}", objects.commit), objects.commit]).await?;
        Ok(mirror)
    }

    async fn fetch(&self, mirror: &Path, objects: &Objects<'_>, mut wanted: Vec<String>) -> anyhow::Result<Bundle> {
        let count = format!("--count={HAVE}");
        let kept =
            git(mirror, &["for-each-ref", "--sort=-creatordate", &count, "--format=%(objectname)", KEPT]).await?;
        let request = SourceRequest {
            attempt: Some(self.attempt.clone()),
            token: self.token.clone(),
            commit: wanted.remove(0),
            have: kept.lines().map(str::to_owned).collect(),
            repository: objects.asked.to_owned(),
            also: wanted,
            grant: objects.grant.clone(),
        };
        let mut parts = self.client().await?.source(request).await.map_err(refusal)?.into_inner();

        let file = tempfile::Builder::new().prefix("bundle-").tempfile().context("temporary folder")?;
        let mut bundle = Bundle { file, bytes: 0 };
        let mut file = tokio::fs::File::from_std(bundle.file.reopen().context("mirror")?);
        while let Some(part) = parts.message().await.map_err(refusal)? {
            bundle.bytes = bundle.bytes.saturating_add(part.data.len() as u64);
            let most = self.mirrors.quota;
            ensure!(bundle.bytes <= most, "the repository has more than the {} MiB of `disk.mirror_bytes`", most >> 20);
            file.write_all(&part.data).await.context("mirror")?;
        }
        file.flush().await.context("mirror")?;
        Ok(bundle)
    }
}

/// What a coordinator sent of a repository, in the job's own temporary folder, which goes with its process.
struct Bundle {
    file: tempfile::NamedTempFile,
    bytes: u64,
}

impl Bundle {
    async fn add_to(&self, mirror: &Path) -> anyhow::Result<()> {
        let path = self.file.path().to_str().context("the temporary folder's name is not UTF-8")?;
        // A mirror is never packed: that would go on beside this process, or end with it.
        let unpacked = ["-c", "gc.auto=0", "-c", "maintenance.auto=false", "fetch", "--quiet", "--no-tags", "--force"];
        let from = ["--no-write-fetch-head", path, "+refs/*:refs/*"];
        git(mirror, &[&unpacked[..], &from[..]].concat()).await.map(drop)
    }
}

/// The job's own repository at its commit, which nobody has to look for.
fn own(source: &SourceRef) -> anyhow::Result<Resolved> {
    ensure!(!source.repository.is_empty(), "this job has no repository");
    Ok(Resolved { repository: source.repository.clone(), commit: source.commit.clone(), ..Resolved::default() })
}

fn check_id(id: &str) -> anyhow::Result<()> {
    let full = matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(full, "`{id}` is not a full commit id");
    Ok(())
}

/// Which of these objects a mirror does not have.
async fn missing(mirror: &Path, ids: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut missing = Vec::new();
    let listed = WorkTree::at(mirror).feed(&["cat-file", "--batch-check=%(objectname)"], &ids.join("\n")).await?;
    for line in String::from_utf8_lossy(&listed).lines() {
        if let Some(id) = line.strip_suffix(" missing") {
            missing.push(id.to_owned());
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use tokio::sync::watch;

    use super::*;

    const REPOSITORY: &str = "30617:owner:repository";

    /// Sources without a coordinator, and a mirror with one commit: gives its folder and the commit.
    async fn with_a_commit(folder: &Path) -> (Arc<dyn RepositoryFetcher>, PathBuf, SourceRef) {
        let mirrors = Mirrors::new(folder.to_owned(), 1 << 30, ActionStore::new(folder.join("actions")));
        let path = mirrors.path(REPOSITORY);
        std::fs::create_dir_all(&path).unwrap();
        git(&path, &["init", "--quiet", "--bare"]).await.unwrap();
        let tree = git(&path, &["hash-object", "-t", "tree", "-w", "/dev/null"]).await.unwrap();
        let words = ["-c", "user.name=n", "-c", "user.email=e", "commit-tree", "-m", "x", tree.trim()];
        let commit = git(&path, &words).await.unwrap().trim().to_owned();
        let (_, url) = watch::channel(None);
        let bulk = Arc::new(BulkConnection::new(url, None));
        let sources = Arc::new(mirrors).for_attempt(bulk, Attempt::default(), String::new());
        (sources, path, SourceRef { repository: REPOSITORY.into(), commit, ..SourceRef::default() })
    }

    #[tokio::test]
    async fn what_a_git_that_was_killed_leaves_in_a_mirror_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (sources, mirror, source) = with_a_commit(folder.path()).await;
        std::fs::create_dir_all(mirror.join("refs/longshore")).unwrap();
        let left = [format!("refs/longshore/{}.lock", source.commit), "config.lock".into(), "packed-refs.lock".into()];
        let left: Vec<_> = left.into_iter().chain(["objects/pack/tmp_pack_x".into()]).map(|n| mirror.join(n)).collect();
        for _ in 0..2 {
            left.iter().for_each(|path| std::fs::write(path, "").unwrap());
            sources.locate(&source, &CommitQuery::default()).await.unwrap();
            assert!(left.iter().all(|path| !path.exists()));
        }
    }

    #[tokio::test]
    async fn a_mirror_whose_making_was_ended_in_the_middle_is_made_to_its_end() {
        for part in ["refs", "config", "objects/pack", "HEAD"] {
            let folder = tempfile::tempdir().unwrap();
            let (sources, mirror, source) = with_a_commit(folder.path()).await;
            let path = mirror.join(part);
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.unwrap();
            sources.locate(&source, &CommitQuery::default()).await.unwrap_or_else(|error| panic!("{part}: {error:#}"));
        }
    }
}
