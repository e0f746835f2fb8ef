//! Asks the coordinator for an attempt: names become commits, objects land in a bare mirror of each repository, so that
//! a job brings only what is new.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use proto::worker::{ArchiveRequest, Attempt, FetchDepth, ResolveRequest, Resolved, SourceRequest};
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncWriteExt as _, process::Command};
use workflow::plan::SourceRef;

use super::{
    ActionRef, ActionStore, CommitQuery, FetchedAction, LocatedCommit, RepositoryFetcher, mirror_quota,
    work_tree::WorkTree,
};
use crate::coordinator_client::bulk::{BulkConnection, BulkServiceClient, refusal};

/// Commits that are named to the coordinator as already here.
const HAVE: usize = 64;
/// Files that are locked while something is fetched, a share of the repositories each.
const LOCKS: u8 = 64;
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

    /// One fetch at a time for each repository, whichever process asks. The lock is held until the file is dropped.
    async fn lock(&self, repository: &str) -> anyhow::Result<File> {
        let folder = self.folder.join("locks");
        let number = Sha256::digest(repository).first().map_or(0, |byte| byte % LOCKS);
        let locked = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder)?;
            let file =
                File::options().write(true).create(true).truncate(false).open(folder.join(number.to_string()))?;
            file.lock()?;
            io::Result::Ok(file)
        });
        locked.await?.context("folder of mirrors")
    }

    fn path(&self, repository: &str) -> PathBuf {
        self.folder.join(format!("{}.git", hex::encode(Sha256::digest(repository))))
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
                let path = self
                    .fetch_commit(&Objects { repository, asked: "", grant: Bytes::new(), commit, also: &[] })
                    .await?;
                return Ok(LocatedCommit {
                    path,
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
            let path = self.fetch_commit(&objects).await?;
            Ok(LocatedCommit {
                path,
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
            let found = self.resolve(source, &action.repository, &action.reference, FetchDepth::Tree).await?;
            check_id(&found.commit)?;
            let store = &self.mirrors.actions;
            let _locked = self.mirrors.lock(&found.commit).await?;
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
    async fn fetch_commit(&self, objects: &Objects<'_>) -> anyhow::Result<PathBuf> {
        let wanted: Vec<&str> =
            std::iter::once(objects.commit).chain(objects.also.iter().map(String::as_str)).collect();
        for id in &wanted {
            check_id(id)?;
        }
        let mirror = self.mirrors.path(objects.repository);
        let _locked = self.mirrors.lock(objects.repository).await?;
        if !mirror.join("HEAD").exists() {
            let format = if objects.commit.len() == 64 { "sha256" } else { "sha1" };
            std::fs::create_dir_all(&mirror).context("folder of mirrors")?;
            git(&mirror, &["init", "--quiet", "--bare", "--object-format", format]).await?;
        }
        mirror_quota::used(&mirror);
        let missing = missing(&mirror, &wanted).await?;
        if !missing.is_empty() {
            let fetched = self.fetch(&mirror, objects, missing).await;
            // What grew makes room for the next, and nobody waits for it.
            let (folder, quota) = (self.mirrors.folder.clone(), self.mirrors.quota);
            drop(tokio::task::spawn_blocking(move || mirror_quota::trim(&folder, quota)));
            fetched.with_context(|| format!("commit {}", objects.commit))?;
            let wanted = format!("{}^{{commit}}", objects.commit);
            git(&mirror, &["cat-file", "-e", &wanted]).await.context("the coordinator's bundle lacks the commit")?;
        }
        // Objects without a ref may be collected.
        git(&mirror, &["update-ref", &format!("{KEPT}/{}", objects.commit), objects.commit]).await?;
        Ok(mirror)
    }

    async fn fetch(&self, mirror: &Path, objects: &Objects<'_>, mut wanted: Vec<String>) -> anyhow::Result<()> {
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

        // In the job's own temporary folder, which goes with its process.
        let bundle = tempfile::Builder::new().prefix("bundle-").tempfile().context("temporary folder")?;
        let mut file = tokio::fs::File::from_std(bundle.reopen().context("mirror")?);
        let mut length = 0_u64;
        while let Some(part) = parts.message().await.map_err(refusal)? {
            length = length.saturating_add(part.data.len() as u64);
            let most = self.mirrors.quota;
            ensure!(length <= most, "the repository has more than the {} MiB of `disk.mirror_bytes`", most >> 20);
            file.write_all(&part.data).await.context("mirror")?;
        }
        file.flush().await.context("mirror")?;
        let path = bundle.path().to_str().context("the temporary folder's name is not UTF-8")?;
        git(mirror, &["fetch", "--quiet", "--no-tags", "--force", path, "+refs/*:refs/*"]).await?;
        Ok(())
    }
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

/// Runs git in a repository, free of the machine's own configuration. Returns what it printed.
pub(super) async fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("the program `git` is needed on a worker: install it")?;
    if !output.status.success() {
        let command = arguments.first().copied().unwrap_or_default();
        bail!("git {command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
