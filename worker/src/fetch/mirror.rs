//! Keeps a bare mirror of each repository, so that a job brings only what is new.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex as State, PoisonError},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use proto::worker::{Attempt, SourceRequest};
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncWriteExt as _, process::Command, sync::Mutex};
use workflow::plan::SourceRef;

use super::{Checkout, Sources, archive};
use crate::link::Bulk;

/// Commits that are named to the coordinator as already here.
const HAVE: usize = 64;
/// Refs that keep the commits of jobs.
const KEPT: &str = "refs/longshore";

/// The mirrors of a worker.
pub struct Mirrors {
    folder: PathBuf,
    /// One fetch at a time for each repository.
    busy: State<HashMap<String, Arc<Mutex<()>>>>,
}

impl Mirrors {
    /// Mirrors in a folder, which is made when needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, busy: State::default() }
    }

    /// Sources of one attempt, which may ask for its own repository alone.
    pub(crate) fn for_attempt(self: Arc<Self>, bulk: Bulk, attempt: Attempt, token: String) -> Arc<dyn Sources> {
        Arc::new(AttemptSources { mirrors: self, bulk, attempt, token })
    }

    fn turn(&self, repository: &str) -> Arc<Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.entry(repository.to_owned()).or_default().clone()
    }

    fn path(&self, repository: &str) -> PathBuf {
        self.folder.join(format!("{}.git", hex::encode(Sha256::digest(repository))))
    }
}

struct AttemptSources {
    mirrors: Arc<Mirrors>,
    bulk: Bulk,
    attempt: Attempt,
    token: String,
}

impl Sources for AttemptSources {
    fn checkout<'a>(
        &'a self,
        source: &'a SourceRef,
        checkout: &'a Checkout,
    ) -> BoxFuture<'a, anyhow::Result<BoxStream<'static, std::io::Result<Bytes>>>> {
        Box::pin(async move {
            ensure!(!source.repository.is_empty(), "this job has no repository to check out");
            let mirror = self.bring(source).await?;
            let (commit, reference) = match checkout.reference.as_str() {
                "" => (source.commit.as_str(), source.reference.as_str()),
                other => ("", other),
            };
            archive::checkout_archive(&mirror, commit, reference, checkout.depth).await
        })
    }
}

impl AttemptSources {
    /// The mirror, with the commit in it.
    async fn bring(&self, source: &SourceRef) -> anyhow::Result<PathBuf> {
        let commit = source.commit.as_str();
        ensure!(
            matches!(commit.len(), 40 | 64) && commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "`{commit}` is not a full commit id"
        );
        let mirror = self.mirrors.path(&source.repository);
        let turn = self.mirrors.turn(&source.repository);
        let _turn = turn.lock().await;
        if !mirror.join("HEAD").exists() {
            let format = if commit.len() == 64 { "sha256" } else { "sha1" };
            std::fs::create_dir_all(&mirror).context("folder of mirrors")?;
            git(&mirror, &["init", "--quiet", "--bare", "--object-format", format]).await?;
        }
        let wanted = format!("{commit}^{{commit}}");
        if git(&mirror, &["cat-file", "-e", &wanted]).await.is_err() {
            self.fetch(&mirror, commit).await.with_context(|| format!("commit {commit}"))?;
            git(&mirror, &["cat-file", "-e", &wanted]).await.context("the coordinator's bundle lacks the commit")?;
        }
        // Objects without a ref may be collected.
        git(&mirror, &["update-ref", &format!("{KEPT}/{commit}"), commit]).await?;
        Ok(mirror)
    }

    async fn fetch(&self, mirror: &Path, commit: &str) -> anyhow::Result<()> {
        let count = format!("--count={HAVE}");
        let kept =
            git(mirror, &["for-each-ref", "--sort=-creatordate", &count, "--format=%(objectname)", KEPT]).await?;
        let request = SourceRequest {
            attempt: Some(self.attempt.clone()),
            token: self.token.clone(),
            commit: commit.to_owned(),
            have: kept.lines().map(str::to_owned).collect(),
        };
        let mut bulk = self.bulk.clone();
        let client = bulk.wait_for(Option::is_some).await.context("the worker is ending")?.clone();
        let mut client = client.context("no session with a coordinator")?;
        let asked = client.source(request).await.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
        let mut parts = asked.into_inner();

        let bundle = tempfile::Builder::new().prefix("bundle-").tempfile_in(mirror).context("mirror")?;
        let mut file = tokio::fs::File::from_std(bundle.reopen().context("mirror")?);
        while let Some(part) = parts.message().await.map_err(|status| anyhow::anyhow!("{}", status.message()))? {
            file.write_all(&part.data).await.context("mirror")?;
        }
        file.flush().await.context("mirror")?;
        let path = bundle.path().to_str().context("the data folder's name is not UTF-8")?;
        // Branches and tags come along where the bundle names them: a checkout may ask for another than the job's.
        git(mirror, &["fetch", "--quiet", "--no-tags", "--force", path, "+refs/*:refs/*"]).await?;
        Ok(())
    }
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
