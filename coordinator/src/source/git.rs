//! Bare mirrors: the network side through the `git` program, objects through `git2`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use sha2::{Digest, Sha256};
use tokio::{io::AsyncReadExt, process::Command};
use tokio_util::io::ReaderStream;

use super::address::is_object_id;
use crate::network::{Checked, Reach};

/// Bytes of git's complaints that are kept.
const COMPLAINT: u64 = 4096;

/// One repository's objects on this machine.
#[derive(Debug, Clone)]
pub struct Mirror {
    path: PathBuf,
    reach: Reach,
    limit: Duration,
}

/// What went wrong with git, for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct GitError(String);

impl Mirror {
    /// The mirror of a repository below `folder`, made if it is not there. Named by the hash of the repository's
    /// address: nothing from outside becomes part of a path.
    pub async fn open(folder: &Path, repository: &str, reach: Reach, limit: Duration) -> Result<Self, GitError> {
        let name = format!("{}.git", hex::encode(Sha256::digest(repository.as_bytes())));
        let mirror = Self { path: folder.join(name), reach, limit };
        if !mirror.path.join("HEAD").exists() {
            std::fs::create_dir_all(folder)
                .map_err(|error| GitError(format!("cannot make the folder {}: {error}", folder.display())))?;
            let mut command = mirror.bare_command();
            command.args(["init", "--quiet", "--bare", "--template="]).arg(&mirror.path);
            mirror.run(command).await?;
        }
        Ok(mirror)
    }

    /// Fetches objects by id and keeps them. The URL was checked; its host is not resolved again.
    pub async fn fetch_commits(&self, from: &Checked, commits: &[String]) -> Result<(), GitError> {
        let specs = commits.iter().filter(|id| is_object_id(id)).map(|id| format!("+{id}:refs/longshore/{id}"));
        self.fetch(from, specs.collect()).await
    }

    /// Fetches a ref (checked by its caller) below `refs/fetched/`, for servers that give no object by id.
    pub async fn fetch_ref(&self, from: &Checked, name: &str) -> Result<(), GitError> {
        self.fetch(from, vec![format!("+{name}:refs/fetched/{}", name.trim_start_matches("refs/"))]).await
    }

    async fn fetch(&self, from: &Checked, specs: Vec<String>) -> Result<(), GitError> {
        if specs.is_empty() {
            return Ok(());
        }
        let mut command = self.bare_command();
        command.arg("--git-dir").arg(&self.path);
        if let (Some(host), false) = (from.url.host_str(), from.addresses.is_empty()) {
            let port = from.url.port_or_known_default().unwrap_or(443);
            let pinned: Vec<String> = from.addresses.iter().map(|address| address.ip().to_string()).collect();
            command.args(["-c", &format!("http.curloptResolve={host}:{port}:{}", pinned.join(","))]);
        }
        command.args(["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--force"]);
        command.args(["--", from.url.as_str()]).args(specs);
        self.run(command).await
    }

    /// The commit that an object id stands for: itself, or what a tag object points at.
    pub fn peel(&self, object: &str) -> Option<String> {
        let repository = git2::Repository::open_bare(&self.path).ok()?;
        let object = repository.revparse_single(&format!("{object}^{{commit}}")).ok()?;
        Some(object.id().to_string())
    }

    /// The only commit whose id begins with these hex digits.
    pub fn complete(&self, prefix: &str) -> Option<String> {
        (prefix.len() >= 7 && prefix.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| self.peel(prefix))?
    }

    /// Makes sure a commit stays: refs keep it from being collected.
    pub fn keep(&self, commit: &str) -> Result<(), GitError> {
        let keep = || {
            let repository = git2::Repository::open_bare(&self.path)?;
            let id = git2::Oid::from_str(commit)?;
            repository.reference(&format!("refs/longshore/{commit}"), id, true, "built").map(drop)
        };
        keep().map_err(|error: git2::Error| GitError(format!("cannot keep commit {commit}: {}", error.message())))
    }

    /// Whether `commit` is one of `tips` or an ancestor of one that is here.
    pub fn reaches(&self, tips: &[String], commit: &str) -> bool {
        let Ok(repository) = git2::Repository::open_bare(&self.path) else { return false };
        let Ok(wanted) = git2::Oid::from_str(commit) else { return false };
        tips.iter()
            .filter_map(|tip| self.peel(tip))
            .filter_map(|tip| git2::Oid::from_str(&tip).ok())
            .any(|tip| tip == wanted || repository.graph_descendant_of(tip, wanted).unwrap_or(false))
    }

    /// A file at a commit; `None` where there is none. Symbolic links are not followed.
    pub fn file(&self, commit: &str, path: &str, limit: usize) -> Result<Option<Vec<u8>>, GitError> {
        let context = |error: git2::Error| GitError(format!("cannot read {path} at {commit}: {}", error.message()));
        let repository = git2::Repository::open_bare(&self.path).map_err(context)?;
        let id = git2::Oid::from_str(commit).map_err(context)?;
        let tree = repository.find_commit(id).and_then(|commit| commit.tree()).map_err(context)?;
        let Ok(entry) = tree.get_path(Path::new(path)) else { return Ok(None) };
        if entry.kind() != Some(git2::ObjectType::Blob) || entry.filemode() == 0o120_000 {
            return Ok(None);
        }
        let (size, _) = repository.odb().and_then(|odb| odb.read_header(entry.id())).map_err(context)?;
        if size > limit {
            return Err(GitError(format!("{path} has {size} bytes, the limit is {limit}")));
        }
        let blob = repository.find_blob(entry.id()).map_err(context)?;
        Ok(Some(blob.content().to_vec()))
    }

    /// The commit's message and author, for the event payload.
    pub fn describe(&self, commit: &str) -> Option<(String, String)> {
        let repository = git2::Repository::open_bare(&self.path).ok()?;
        let found = repository.find_commit(git2::Oid::from_str(commit).ok()?).ok()?;
        let author = String::from_utf8_lossy(found.author().name_bytes()).into_owned();
        Some((String::from_utf8_lossy(found.message_bytes()).into_owned(), author))
    }

    /// A bundle of the commit with its history, less what `have` reaches.
    pub async fn bundle(
        &self,
        commit: &str,
        have: &[String],
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, GitError> {
        self.keep(commit)?;
        let mut command = self.bare_command();
        command.arg("--git-dir").arg(&self.path).args(["bundle", "create", "--quiet", "-"]);
        command.arg(format!("refs/longshore/{commit}"));
        let known = have.iter().filter(|id| is_object_id(id) && *id != commit && self.peel(id).is_some());
        command.args(known.map(|id| format!("^{id}")));
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| GitError(format!("cannot start git: {error}; install git 2.37 or later")))?;
        let Some(output) = child.stdout.take() else {
            return Err(GitError("git bundle has no output".into()));
        };
        // The exit status counts: a bundle that ended early must not look complete.
        let ended = futures::stream::once(async move {
            match child.wait().await {
                Ok(status) if status.success() => Ok(Bytes::new()),
                Ok(status) => Err(std::io::Error::other(format!("git bundle ended with {status}"))),
                Err(error) => Err(error),
            }
        });
        Ok(ReaderStream::with_capacity(output, 64 * 1024).chain(ended).boxed())
    }

    /// git with nothing of this machine's configuration, no prompt, no hooks and no redirects.
    fn bare_command(&self) -> Command {
        let mut command = Command::new("git");
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "SSL_CERT_FILE"));
        let protocols = if self.reach.file { "https:http:file" } else { "https:http" };
        command.env("GIT_ALLOW_PROTOCOL", protocols).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("HOME", "/nonexistent").env("LC_ALL", "C");
        command.args(["-c", "http.followRedirects=false", "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"]);
        command.args(["-c", "protocol.version=2", "-c", "safe.directory=*", "-c", "credential.helper="]);
        command.args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30"]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn run(&self, mut command: Command) -> Result<(), GitError> {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| GitError(format!("cannot start git: {error}; install git 2.37 or later")))?;
        let mut complaint = Vec::new();
        let work = async {
            if let Some(mut pipe) = child.stderr.take() {
                // The rest is read too, so that git does not block on a full pipe.
                let _ = (&mut pipe).take(COMPLAINT).read_to_end(&mut complaint).await;
                let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
            }
            child.wait().await
        };
        let status = tokio::time::timeout(self.limit, work)
            .await
            .map_err(|_| GitError(format!("git took longer than {} s", self.limit.as_secs())))?
            .map_err(|error| GitError(format!("git: {error}")))?;
        if status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&complaint);
        let lines: Vec<&str> = complaint.lines().filter(|line| !line.trim().is_empty()).collect();
        Err(GitError(lines.join("; ")))
    }
}
