//! Makes the archive that `actions/checkout` unpacks: a work tree with a `.git` directory of its own.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use tokio::{process::Command, sync::mpsc};

/// Bytes in one piece of an archive.
const PIECE: usize = 256 * 1024;

/// A tar archive of `commit` checked out as `reference`, made from the repository at `repository`.
///
/// An empty commit means the one that `reference` names, which may then also be a short branch or tag name or a
/// commit id. The new `.git` has no hooks and no remote; its branches stand below `refs/remotes/origin`, as
/// `actions/checkout` leaves them. `depth` counts commits of history; 0: all, with every branch and tag.
pub async fn checkout_archive(
    repository: &Path,
    commit: &str,
    reference: &str,
    depth: u32,
) -> anyhow::Result<BoxStream<'static, io::Result<Bytes>>> {
    let repository = std::fs::canonicalize(repository)
        .with_context(|| format!("the repository {} is not there", repository.display()))?;
    let wanted = resolve(repository.clone(), commit.to_owned(), reference.to_owned()).await?;
    let folder = tempfile::tempdir().context("no room for a checkout in the temporary folder")?;
    let git = Git { folder: folder.path().to_owned() };
    git.run(&["init", "--quiet", "--template=", "--initial-branch=main", "."]).await?;
    fetch(&git, &repository, &wanted, depth).await?;
    match wanted.reference.strip_prefix("refs/heads/") {
        Some(branch) => git.run(&["checkout", "--quiet", "--force", "-B", branch, &wanted.commit]).await?,
        None => git.run(&["checkout", "--quiet", "--force", "--detach", &wanted.commit]).await?,
    }
    Ok(stream(folder))
}

struct Wanted {
    commit: String,
    /// A full name that was proven to be one; empty: none.
    reference: String,
}

/// Finds the commit and the full name of a reference.
async fn resolve(repository: PathBuf, commit: String, reference: String) -> anyhow::Result<Wanted> {
    let found = move || -> anyhow::Result<Wanted> {
        let repository = git2::Repository::open(&repository)
            .with_context(|| format!("{} is no git repository", repository.display()))?;
        let full = [reference.clone(), format!("refs/heads/{reference}"), format!("refs/tags/{reference}")]
            .into_iter()
            .find(|name| name.starts_with("refs/") && repository.find_reference(name).is_ok());
        let object = if !commit.is_empty() {
            git2::Oid::from_str(&commit).with_context(|| format!("`{commit}` is no commit id"))?
        } else if let Some(name) = &full {
            repository.find_reference(name)?.peel_to_commit().with_context(|| format!("{name} names no commit"))?.id()
        } else {
            match git2::Oid::from_str(&reference) {
                Ok(id) if reference.len() >= 40 => id,
                _ => bail!("the repository has no branch, tag or commit `{reference}`"),
            }
        };
        let commit =
            repository.find_commit(object).with_context(|| format!("the repository has no commit {object}"))?;
        let named = |name: &String| name.starts_with("refs/") && git2::Reference::is_valid_name(name);
        let reference = full.or_else(|| Some(reference).filter(named)).unwrap_or_default();
        Ok(Wanted { commit: commit.id().to_string(), reference })
    };
    tokio::task::spawn_blocking(found).await.context("the look-up of a commit was ended")?
}

async fn fetch(git: &Git, repository: &Path, wanted: &Wanted, depth: u32) -> anyhow::Result<()> {
    let target = match (wanted.reference.strip_prefix("refs/heads/"), wanted.reference.as_str()) {
        (Some(branch), _) => format!("refs/remotes/origin/{branch}"),
        (None, name) if name.starts_with("refs/tags/") => name.to_owned(),
        (None, name) if name.starts_with("refs/pull/") => name.replacen("refs/", "refs/remotes/", 1),
        _ => "refs/remotes/origin/HEAD_COMMIT".to_owned(),
    };
    let own = format!("+{}:{target}", wanted.commit);
    let from = repository.to_str().context("the repository's path is not UTF-8")?;
    let depth = format!("--depth={depth}");
    // A commit that no branch names any more is served too.
    let mut arguments =
        vec!["fetch", "--quiet", "--no-tags", "--upload-pack=git -c uploadpack.allowAnySHA1InWant=true upload-pack"];
    if depth == "--depth=0" {
        arguments.extend([from, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]);
        git.run(&arguments).await?;
        arguments.truncate(4);
    } else {
        arguments.push(&depth);
    }
    arguments.extend([from, &own]);
    git.run(&arguments).await
}

/// Runs `git` in a folder, apart from this machine's configuration.
struct Git {
    folder: PathBuf,
}

impl Git {
    async fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("git");
        command
            .args(["-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "protocol.file.allow=always"])
            .args(["-c", "advice.detachedHead=false", "-c", "gc.auto=0"])
            .args(arguments)
            .current_dir(&self.folder)
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let output =
            command.output().await.context("the program `git` could not be started; install it on the worker")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("git {} failed: {}", arguments.first().unwrap_or(&""), said.trim());
        }
        Ok(())
    }
}

/// Streams a folder as tar, and removes it afterwards.
fn stream(folder: tempfile::TempDir) -> BoxStream<'static, io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(8);
    tokio::task::spawn_blocking(move || {
        let mut archive = tar::Builder::new(io::BufWriter::with_capacity(PIECE, Pieces(sender.clone())));
        archive.follow_symlinks(false);
        archive.mode(tar::HeaderMode::Complete);
        let written = append(&mut archive, folder.path(), Path::new(""))
            .and_then(|()| archive.into_inner()?.into_inner().map_err(Into::into).map(drop));
        if let Err(error) = written {
            // Nobody listens any more where this fails.
            let _ = sender.blocking_send(Err(error));
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver).boxed()
}

/// Appends what a folder holds; everything belongs to root, which the unpacking side replaces by its own user.
fn append(archive: &mut tar::Builder<impl io::Write>, root: &Path, below: &Path) -> io::Result<()> {
    let mut entries = std::fs::read_dir(root.join(below))?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = below.join(entry.file_name());
        let path = entry.path();
        let metadata = std::fs::symlink_metadata(&path)?;
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&metadata);
        header.set_uid(0);
        header.set_gid(0);
        if metadata.is_dir() {
            header.set_size(0);
            archive.append_data(&mut header, &name, io::empty())?;
            append(archive, root, &name)?;
        } else if metadata.is_symlink() {
            header.set_size(0);
            archive.append_link(&mut header, &name, std::fs::read_link(&path)?)?;
        } else {
            archive.append_data(&mut header, &name, std::fs::File::open(&path)?)?;
        }
    }
    Ok(())
}

struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl io::Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.blocking_send(Ok(Bytes::copy_from_slice(data))).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    async fn sh(folder: &Path, script: &str) -> String {
        let output = Command::new("sh").args(["-ec", script]).current_dir(folder).output().await.unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    async fn unpacked(
        repository: &Path,
        commit: &str,
        reference: &str,
        depth: u32,
    ) -> anyhow::Result<tempfile::TempDir> {
        let mut pieces = checkout_archive(repository, commit, reference, depth).await?;
        let mut data = Vec::new();
        while let Some(piece) = pieces.next().await {
            data.extend_from_slice(&piece.unwrap());
        }
        let folder = tempfile::tempdir().unwrap();
        tar::Archive::new(data.as_slice()).unpack(folder.path()).unwrap();
        Ok(folder)
    }

    #[tokio::test]
    async fn a_checkout_has_the_commit_its_branch_and_the_depth_asked_for() {
        let repository = tempfile::tempdir().unwrap();
        let git = "git -c user.name=n -c user.email=e@example.org";
        sh(
            repository.path(),
            &format!(
                "git init -q -b main .; mkdir -p 'a b'; echo one > 'a b/f'; chmod +x 'a b/f'; ln -s 'a b/f' l; git add .
                 {git} commit -qm one; {git} tag -a -m v v1; echo two > 'a b/f'; {git} commit -qam two"
            ),
        )
        .await;
        let head = sh(repository.path(), "git rev-parse HEAD").await;
        let facts = "git status --porcelain; git log --format=%s | tr '\\n' ' '; git symbolic-ref -q --short HEAD || echo detached; \
                     cat 'a b/f'; test -x 'a b/f'; readlink l; ls .git/hooks 2>/dev/null || true";

        let folder = unpacked(repository.path(), &head, "refs/heads/main", 1).await.unwrap();
        assert_eq!(sh(folder.path(), facts).await, "two main\ntwo\na b/f");
        let folder = unpacked(repository.path(), &head, "refs/heads/main", 0).await.unwrap();
        assert_eq!(sh(folder.path(), facts).await, "two one main\ntwo\na b/f");
        let folder = unpacked(repository.path(), "", "v1", 1).await.unwrap();
        assert_eq!(sh(folder.path(), facts).await, "one detached\none\na b/f");
        let gone = sh(
            repository.path(),
            &format!("{git} commit -q --allow-empty -m gone; git rev-parse HEAD; git reset -q --hard HEAD~1"),
        )
        .await;
        let folder = unpacked(repository.path(), &gone, "refs/heads/main", 1).await.unwrap();
        assert_eq!(sh(folder.path(), facts).await, "gone main\ntwo\na b/f");

        let error = unpacked(repository.path(), "", "--upload-pack=x", 1).await.unwrap_err();
        assert!(error.to_string().contains("no branch, tag or commit"), "{error}");
    }
}
