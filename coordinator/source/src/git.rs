//! Bare mirrors: the network side through the `git` program, objects through `git2`.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::process::Command;

use domain::id::{CommitId, MalformedId};

use self::process::{head, not_started, stream};
use super::{
    address::is_object_id,
    objects,
    tree_size::{self, TreeLimits},
};
use network::{CheckedUrl, Reach};

mod process;

pub(super) use self::process::{Ended, bare_git, confine};

/// Bytes of git's complaints that are kept.
const COMPLAINT: u64 = 4096;
/// Bytes of its output that are kept, and refs read from it.
const OUTPUT: u64 = 4 << 20;
const REFS: usize = 5000;
/// Packing may take so many times longer than any other command. Runs of the repository wait for it.
const PACKING: u32 = 2;
/// Refs that keep what runs need.
const KEPT: &str = "refs/longshore/";
/// How long a proof of ancestry may take.
const PROOF: Duration = Duration::from_secs(10);
/// The mode of a symbolic link.
const LINK: i32 = 0o120_000;
/// Files of one folder that are listed.
const NAMES: usize = 200;

/// The file of a mirror that tells by its time when the mirror was used.
pub(super) const HEAD: &str = "HEAD";

/// One repository's objects on this machine.
#[derive(Debug, Clone)]
pub struct Mirror {
    path: PathBuf,
    reach: Reach,
    limits: GitLimits,
    opened: OpenRepository,
}

/// What git may take, whatever a server sends.
#[derive(Debug, Clone, Copy)]
pub struct GitLimits {
    /// Time of one command.
    pub time: Duration,
    /// Bytes of one fetch.
    pub fetch: u64,
    /// Bytes that no fetch takes of the disk's free space.
    pub min_free: u64,
    /// What a tree may hold whose files are sent to a worker.
    pub tree: TreeLimits,
}

impl From<&config::Source> for GitLimits {
    fn from(settings: &config::Source) -> Self {
        Self {
            time: Duration::from_secs(settings.command),
            fetch: settings.fetch_bytes,
            min_free: settings.min_free,
            tree: TreeLimits { entries: settings.tree_entries, bytes: settings.tree_bytes },
        }
    }
}

/// What is known of a commit that is here.
#[derive(Debug)]
pub struct KnownCommit {
    /// Full id.
    pub commit: CommitId,
    /// Whether the first of the tips is this commit.
    pub is_first_tip: bool,
    /// Its message and the name of its author, for the event payload.
    pub description: Option<(String, String)>,
    /// Its first parent, where it has one.
    pub parent: Option<String>,
}

/// The repository, once something was read of it: opening it costs more than most reads.
#[derive(Clone, Default)]
struct OpenRepository(Arc<Mutex<Option<git2::Repository>>>);

impl std::fmt::Debug for OpenRepository {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("OpenRepository")
    }
}

impl OpenRepository {
    fn read<T>(
        &self,
        path: &Path,
        read: impl FnOnce(&git2::Repository) -> Result<T, git2::Error>,
    ) -> Result<T, git2::Error> {
        let mut opened = self.0.lock();
        let repository = match opened.take() {
            Some(repository) => repository,
            None => git2::Repository::open_bare(path)?,
        };
        read(opened.insert(repository))
    }
}

/// What went wrong with git, for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct GitError(String);

impl Mirror {
    /// Name of the folder of a repository's mirror.
    pub fn name(repository: &str) -> String {
        format!("{}.git", hex::encode(Sha256::digest(repository.as_bytes())))
    }

    /// The mirror of a repository below `folder`, made if it is not there. Named by the hash of the repository's
    /// address: nothing from outside becomes part of a path.
    pub async fn open(folder: &Path, repository: &str, reach: Reach, limits: GitLimits) -> Result<Self, GitError> {
        let path = folder.join(Self::name(repository));
        let mirror = Self { path, reach, limits, opened: OpenRepository::default() };
        if let Ok(head) = std::fs::File::open(mirror.path.join(HEAD)) {
            // When it was used last. Where that can't be written it is removed sooner, and fetched again.
            let _ = head.set_modified(SystemTime::now());
        } else {
            std::fs::create_dir_all(folder)
                .map_err(|error| GitError(format!("cannot make the folder {}: {error}", folder.display())))?;
            let mut command = mirror.bare_command();
            command.args(["init", "--quiet", "--bare", "--template="]).arg(&mirror.path);
            mirror.run(command).await?;
        }
        Ok(mirror)
    }

    /// A mirror that is there, for what needs no network.
    pub(super) fn stored(path: PathBuf, limits: GitLimits) -> Self {
        Self { path, reach: Reach::default(), limits, opened: OpenRepository::default() }
    }

    /// Fetches objects by id and keeps them. The URL was checked; its host is not resolved again.
    pub async fn fetch_commits(&self, from: &CheckedUrl, commits: &[String]) -> Result<(), GitError> {
        let specs = commits.iter().filter(|id| is_object_id(id)).map(|id| format!("+{id}:refs/longshore/{id}"));
        self.fetch(from, specs.collect()).await
    }

    /// Fetches a ref, or an object by its id (checked by the caller), into a ref.
    pub async fn fetch_ref(&self, from: &CheckedUrl, name: &str, into: &str) -> Result<(), GitError> {
        self.fetch(from, vec![format!("+{name}:{into}")]).await
    }

    /// The same mirror, into which one fetch brings no more bytes than this.
    pub(super) fn fetching_at_most(mut self, bytes: u64) -> Self {
        self.limits.fetch = self.limits.fetch.min(bytes);
        self
    }

    /// Fetches one commit without its history, by id, else by the ref that names it.
    pub async fn fetch_tree(&self, from: &CheckedUrl, commit: &str, reference: &str) -> Result<(), GitError> {
        let by_id = self.fetch_to_depth(from, vec![format!("+{commit}:refs/longshore/{commit}")], Some(1)).await;
        if by_id.is_ok() || reference.is_empty() {
            return by_id;
        }
        self.fetch_to_depth(from, vec![format!("+{reference}:refs/fetched/one")], Some(1)).await
    }

    /// Fetches every branch and tag below `refs/fetched/`.
    pub async fn fetch_everything(&self, from: &CheckedUrl) -> Result<(), GitError> {
        let specs = ["heads", "tags"].map(|kind| format!("+refs/{kind}/*:refs/fetched/{kind}/*"));
        self.fetch(from, specs.into()).await
    }

    /// Refs of another server that fit one of the names, which were checked by the caller, with what each stands for.
    /// An annotated tag comes twice: `refs/tags/v1` and `refs/tags/v1^{}`, its commit. The branch that HEAD names comes
    /// before the others.
    pub async fn list(&self, from: &CheckedUrl, names: &[String]) -> Result<Vec<(String, String)>, GitError> {
        let mut command = self.network_command(from);
        command.args(["ls-remote", "--quiet", "--symref", "--", from.url.as_str()]).args(names);
        let text = self.run(command).await?;
        let (mut refs, mut head) = (Vec::new(), None);
        for (value, name) in text.lines().take(REFS).filter_map(|line| line.split_once('\t')) {
            if let (Some(branch), "HEAD") = (value.strip_prefix("ref: "), name) {
                head = Some(branch.to_owned());
            } else if is_object_id(value) {
                refs.extend(head.take().map(|branch| (branch, value.to_owned())));
                refs.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(refs)
    }

    async fn fetch(&self, from: &CheckedUrl, specs: Vec<String>) -> Result<(), GitError> {
        self.fetch_to_depth(from, specs, None).await
    }

    async fn fetch_to_depth(&self, from: &CheckedUrl, specs: Vec<String>, depth: Option<u32>) -> Result<(), GitError> {
        if specs.is_empty() {
            return Ok(());
        }
        let mut command = self.network_command(from);
        command.args(["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--force"]);
        command.args(depth.map(|depth| format!("--depth={depth}")));
        command.args(["--", from.url.as_str()]).args(specs);
        let limits = GitLimits { fetch: self.limits.fetch.min(self.room()?), ..self.limits };
        Self { limits, ..self.clone() }.run(command).await.map(drop)
    }

    /// Bytes that a fetch may take of the disk.
    fn room(&self) -> Result<u64, GitError> {
        let Ok(disk) = rustix::fs::statvfs(&self.path) else { return Ok(u64::MAX) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        match free.checked_sub(self.limits.min_free) {
            Some(room) if room > 0 => Ok(room),
            _ => Err(GitError(format!(
                "the disk of the pool's mirrors has {} MiB free, and source.min_free keeps {} MiB of it: its operator has \
                 to make room",
                free >> 20,
                self.limits.min_free >> 20
            ))),
        }
    }

    /// git that connects to the address which was checked.
    fn network_command(&self, from: &CheckedUrl) -> Command {
        let mut command = self.bare_command();
        command.arg("--git-dir").arg(&self.path);
        if let (Some(host), false) = (from.url.host_str(), from.addresses.is_empty()) {
            let port = from.url.port_or_known_default().unwrap_or(443);
            let pinned: Vec<String> = from.addresses.iter().map(|address| address.ip().to_string()).collect();
            command.args(["-c", &format!("http.curloptResolve={host}:{port}:{}", pinned.join(","))]);
        }
        command
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the mirror on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&git2::Repository) -> Result<T, git2::Error> + Send + 'static,
    ) -> Result<T, GitError> {
        let (path, opened) = (self.path.clone(), self.opened.clone());
        let done = tokio::task::spawn_blocking(move || opened.read(&path, read)).await;
        done.map_err(|error| GitError(format!("reading a mirror was ended: {error}")))?
            .map_err(|error| GitError(error.message().to_owned()))
    }

    /// The commit that an object id stands for: itself, or what a tag object points at.
    pub async fn peel(&self, object: &str) -> Option<CommitId> {
        let object = object.to_owned();
        self.read(move |repository| peel(repository, &object)).await.ok()?.parse().ok()
    }

    /// Those of the object ids that stand for a commit which is here.
    pub async fn present(&self, objects: Vec<String>) -> HashSet<String> {
        let present = self.read(move |repository| {
            Ok(objects.into_iter().filter(|object| peel(repository, object).is_ok()).collect())
        });
        present.await.unwrap_or_default()
    }

    /// The only commit whose id begins with these hex digits.
    pub async fn complete(&self, prefix: &str) -> Option<CommitId> {
        let may_be = prefix.len() >= 7 && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
        if may_be { self.peel(prefix).await } else { None }
    }

    /// Makes sure a commit stays: refs keep it from being collected.
    pub async fn keep(&self, commit: &str) -> Result<(), GitError> {
        let id = commit.to_owned();
        let kept = self.read(move |repository| keep(repository, &id));
        kept.await.map_err(|error| GitError(format!("cannot keep commit {commit}: {error}")))
    }

    /// Keeps the commit that an object id stands for, as [`Self::keep`] does, and tells what is known of it; `None`: it
    /// is not here.
    pub async fn keep_known(&self, object: &str, tip: Option<&String>) -> Result<Option<KnownCommit>, GitError> {
        let (id, tip) = (object.to_owned(), tip.cloned());
        let known = self.read(move |repository| {
            let Ok(commit) = peel(repository, &id) else { return Ok(None) };
            keep(repository, &commit)?;
            let is_first_tip = tip.is_some_and(|tip| peel(repository, &tip).is_ok_and(|tip| tip == commit));
            let description = describe(repository, &commit).ok();
            let parent = first_parent(repository, &commit).ok().flatten();
            let commit = commit.parse().map_err(|error: MalformedId| git2::Error::from_str(&error.to_string()))?;
            Ok(Some(KnownCommit { commit, is_first_tip, description, parent }))
        });
        known.await.map_err(|error| GitError(format!("cannot keep commit {object}: {error}")))
    }

    /// Lets a commit go: refs that kept it, or a tag of it, are removed.
    pub async fn forget(&self, commit: &str) -> Result<(), GitError> {
        let id = commit.to_owned();
        let forgotten = self.read(move |repository| {
            let mut gone = Vec::new();
            for reference in repository.references_glob(&format!("{KEPT}*"))? {
                let reference = reference?;
                if reference.peel_to_commit().is_ok_and(|commit| commit.id().to_string() == id) {
                    gone.push(reference);
                }
            }
            gone.iter_mut().try_for_each(git2::Reference::delete)
        });
        forgotten.await.map_err(|error| GitError(format!("cannot let commit {commit} go: {error}")))
    }

    /// Removes a ref, where it is there.
    pub(super) async fn remove_ref(&self, name: &str) -> Result<(), GitError> {
        let name = name.to_owned();
        let removed = self.read(move |repository| match repository.find_reference(&name) {
            Ok(mut reference) => reference.delete(),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(()),
            Err(error) => Err(error),
        });
        removed.await
    }

    /// Bytes of the packs that are here; 0 where they can't be looked at.
    pub(super) async fn pack_bytes(&self) -> u64 {
        let packs = self.path.join("objects/pack");
        let size = |entry: std::io::Result<std::fs::DirEntry>| Some(entry.ok()?.metadata().ok()?.len());
        let sum = move || std::fs::read_dir(packs).into_iter().flatten().filter_map(size).sum();
        tokio::task::spawn_blocking(sum).await.unwrap_or_default()
    }

    /// The message of a commit that is here.
    pub(super) async fn message(&self, commit: &str) -> Result<String, GitError> {
        let commit = commit.to_owned();
        self.read(move |repository| Ok(describe(repository, &commit)?.0)).await
    }

    /// Packs all objects into one file, and removes those that no ref keeps any more. Nothing may be fetched meanwhile.
    pub async fn pack(&self) -> Result<(), GitError> {
        let mut command = self.bare_command();
        // A machine that builds must not feel it.
        command.arg("--git-dir").arg(&self.path).args(["gc", "--quiet", "--prune=1.hour.ago"]);
        let limits = GitLimits { time: self.limits.time.saturating_mul(PACKING), fetch: u64::MAX, ..self.limits };
        let patient = Self { limits, ..self.clone() };
        patient.run(command).await.map(drop)
    }

    /// Index of the first of `tips` that is `commit` or a descendant of it, as far as they are here and it can be proven
    /// in time: what is not proven by then counts as not proven.
    pub async fn first_holder(&self, tips: &[String], commit: &CommitId) -> Option<usize> {
        let objects = tips.to_vec();
        let known = self.read(move |repository| {
            Ok(objects.iter().map(|tip| peel(repository, tip).ok()).collect::<Vec<Option<String>>>())
        });
        let known = known.await.unwrap_or_default();
        let known: Vec<(usize, &str)> =
            known.iter().enumerate().filter_map(|(index, tip)| Some((index, tip.as_deref()?))).collect();
        let proof = tokio::time::timeout(PROOF, self.prove(&known, commit.as_str())).await;
        proof.unwrap_or(Ok(None)).unwrap_or_default()
    }

    /// The walk over the history is a process with limits of its own: histories are as long, and their commits as large, as
    /// somebody likes.
    async fn prove(&self, tips: &[(usize, &str)], commit: &str) -> Result<Option<usize>, GitError> {
        let Some(((first, tip), others)) = tips.split_first() else { return Ok(None) };
        // The first is the ref that the request names: it counts before all others.
        if *tip == commit || self.holds(&[tip], commit).await? {
            return Ok(Some(*first));
        }
        if let Some((index, _)) = others.iter().find(|(_, tip)| *tip == commit) {
            return Ok(Some(*index));
        }
        // One walk says that none does, which is what a commit from elsewhere costs.
        let all: Vec<&str> = others.iter().map(|(_, tip)| *tip).collect();
        if all.is_empty() || !self.holds(&all, commit).await? {
            return Ok(None);
        }
        for (index, tip) in others {
            if self.holds(&[tip], commit).await? {
                return Ok(Some(*index));
            }
        }
        Ok(None)
    }

    /// Whether one of the tips has a commit in its history.
    pub(super) async fn holds(&self, tips: &[&str], commit: &str) -> Result<bool, GitError> {
        let mut command = self.bare_command();
        command.arg("--git-dir").arg(&self.path).args(["rev-list", "--max-count=1", commit, "--not"]).args(tips);
        Ok(self.run(command).await?.is_empty())
    }

    /// A file at a commit; `None` where there is none. Symbolic links are not followed.
    pub fn file(&self, commit: &str, path: &str, limit: usize) -> Result<Option<Vec<u8>>, GitError> {
        let found = self.opened.read(&self.path, |repository| {
            let found = objects::entry(repository, git2::Oid::from_str(commit)?, Path::new(path))?;
            let Some((id, git2::ObjectType::Blob, mode)) = found else { return Ok(Ok(None)) };
            if mode == LINK {
                return Ok(Ok(None));
            }
            let (size, _) = repository.odb()?.read_header(id)?;
            if size > limit {
                return Ok(Err(GitError(format!("{path} has {size} bytes, the limit is {limit}"))));
            }
            Ok(Ok(Some(repository.find_blob(id)?.content().to_vec())))
        });
        found.map_err(|error| GitError(format!("cannot read {path} at {commit}: {}", error.message())))?
    }

    /// Paths of the YAML files directly in these folders at a commit; none where the commit is not here.
    pub fn names(&self, commit: &str, folders: &[&str]) -> Vec<String> {
        let found = self.opened.read(&self.path, |repository| {
            let commit = git2::Oid::from_str(commit)?;
            let mut paths = Vec::new();
            for folder in folders {
                let Some((id, git2::ObjectType::Tree, _)) = objects::entry(repository, commit, Path::new(folder))?
                else {
                    continue;
                };
                let inside = objects::tree(repository, id)?;
                let names = inside.iter().filter_map(|entry| Some(format!("{folder}/{}", entry.name().ok()?)));
                paths.extend(names.filter(|path| path.ends_with(".yml") || path.ends_with(".yaml")).take(NAMES));
            }
            Ok(paths)
        });
        found.unwrap_or_default()
    }

    /// A bundle of commits (and tag objects) with their history, less what `have` reaches.
    pub async fn bundle(
        &self,
        wanted: &[String],
        have: &[String],
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, GitError> {
        let mut command = self.bare_command();
        command.arg("--git-dir").arg(&self.path).args(["bundle", "create", "--quiet", "-"]);
        for id in wanted {
            self.keep(id).await?;
            command.arg(format!("refs/longshore/{id}"));
        }
        let known = have.iter().filter(|id| is_object_id(id) && !wanted.contains(id)).cloned().collect();
        command.args(self.present(known).await.iter().map(|id| format!("^{id}")));
        stream(command, "git bundle", self.limits.fetch)
    }

    /// The files of a commit as tar, as the repository's `export-ignore` attributes leave them.
    pub async fn archive(&self, commit: &str) -> Result<BoxStream<'static, std::io::Result<Bytes>>, GitError> {
        self.keep(commit).await?;
        let (id, limits) = (commit.to_owned(), self.limits.tree);
        if let Some(excess) = self.read(move |repository| tree_size::excess(repository, &id, limits)).await? {
            return Err(GitError(format!("commit {commit} is too large: {excess}")));
        }
        let mut command = self.bare_command();
        command.arg("--git-dir").arg(&self.path).args(["archive", "--format=tar", commit]);
        stream(command, "git archive", self.limits.fetch)
    }

    /// As [`bare_git`], which may reach what this mirror may.
    pub(super) fn bare_command(&self) -> Command {
        let mut command = bare_git();
        let protocols = if self.reach.file { "https:http:file" } else { "https:http" };
        command.env("GIT_ALLOW_PROTOCOL", protocols);
        command
    }

    /// Runs git to its end and gives what it printed, where it ended well.
    pub(super) async fn run(&self, command: Command) -> Result<String, GitError> {
        let Ended { status, output, complaint } = self.finish(command).await?;
        if status.success() {
            return Ok(output);
        }
        // What git says where the limit ended a process of its own, or the server sent nonsense.
        if complaint.contains("index-pack") {
            let most = self.limits.fetch >> 20;
            return Err(GitError(format!("{complaint} (a fetch may have {most} MiB here: source.fetch_bytes)")));
        }
        Err(GitError(complaint))
    }

    /// Runs git to its end, however that is.
    pub(super) async fn finish(&self, mut command: Command) -> Result<Ended, GitError> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(not_started)?;
        confine(&child, self.limits.fetch);
        let (output, complaint) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let (output, complaint) = tokio::join!(head(output, OUTPUT), head(complaint, COMPLAINT));
            child.wait().await.map(|status| (status, output, complaint))
        };
        let time = self.limits.time;
        let (status, output, complaint) = tokio::time::timeout(time, work)
            .await
            .map_err(|_| GitError(format!("git took longer than {} s", time.as_secs())))?
            .map_err(|error| GitError(format!("git: {error}")))?;
        let lines: Vec<&str> = complaint.lines().filter(|line| !line.trim().is_empty()).collect();
        Ok(Ended { status, output, complaint: lines.join("; ") })
    }
}

impl GitError {
    /// With this text.
    pub(super) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

fn keep(repository: &git2::Repository, commit: &str) -> Result<(), git2::Error> {
    let (name, id) = (format!("{KEPT}{commit}"), git2::Oid::from_str(commit)?);
    match repository.refname_to_id(&name) {
        Ok(known) if known == id => Ok(()),
        _ => repository.reference(&name, id, true, "built").map(drop),
    }
}

fn describe(repository: &git2::Repository, commit: &str) -> Result<(String, String), git2::Error> {
    let found = objects::commit(repository, git2::Oid::from_str(commit)?)?;
    let author = String::from_utf8_lossy(found.author().name_bytes()).into_owned();
    Ok((String::from_utf8_lossy(found.message_bytes()).into_owned(), author))
}

fn first_parent(repository: &git2::Repository, commit: &str) -> Result<Option<String>, git2::Error> {
    let found = objects::commit(repository, git2::Oid::from_str(commit)?)?;
    Ok(found.parent_id(0).ok().map(|parent| parent.to_string()))
}

fn peel(repository: &git2::Repository, object: &str) -> Result<String, git2::Error> {
    Ok(objects::peel(repository, object)?.to_string())
}
