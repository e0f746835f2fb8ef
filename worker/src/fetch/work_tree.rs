//! A work tree in the making: a folder, the `git` that works in it, and its way into an archive.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::{io::AsyncWriteExt as _, process::Command, sync::mpsc};

use super::Archive;

/// Bytes in one piece of an archive.
const PIECE: usize = 256 * 1024;

/// A folder in which a repository is checked out.
#[derive(Debug, Clone)]
pub(super) struct WorkTree {
    folder: PathBuf,
}

impl WorkTree {
    /// A new repository in a folder. Nothing of this machine's templates comes with it: no hooks, no filters.
    pub(super) async fn init(folder: PathBuf, commit: &str) -> anyhow::Result<Self> {
        let tree = Self { folder };
        let format = if commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        tree.git(&["init", "--quiet", "--template=", "--initial-branch=main", format, "."]).await?;
        Ok(tree)
    }

    /// A repository that is there.
    pub(super) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Fetches from a repository on this machine, without history beyond `depth` (0: all of it).
    pub(super) async fn fetch(&self, from: &Path, specs: &[String], depth: u32) -> anyhow::Result<()> {
        let from = from.to_str().context("the repository's path is not UTF-8")?;
        let depth = format!("--depth={depth}");
        // The one place where another repository's files are read, and it is our own mirror. A commit that no branch
        // names any more is served too.
        let mut arguments = vec!["-c", "protocol.file.allow=always", "fetch", "--quiet", "--no-tags"];
        arguments.extend(["--no-recurse-submodules", "--no-write-fetch-head", "--stdin"]);
        arguments.push("--upload-pack=git -c uploadpack.allowAnySHA1InWant=true upload-pack");
        arguments.extend((depth != "--depth=0").then_some(depth.as_str()));
        arguments.push(from);
        self.feed(&arguments, &specs.join("\n")).await.map(drop)
    }

    /// Runs `git`, apart from this machine's configuration. Gives what it printed.
    pub(super) async fn git(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        self.feed(arguments, "").await
    }

    /// `git` in this folder, apart from this machine's configuration; dropped, it is killed.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .args(["-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"])
            .args(["-c", "protocol.allow=never", "-c", "advice.detachedHead=false", "-c", "gc.auto=0"])
            .args(arguments)
            .current_dir(&self.folder)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH"))
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs `git` with something to read.
    pub(super) async fn feed(&self, arguments: &[&str], input: &str) -> anyhow::Result<Vec<u8>> {
        let mut child = self
            .command(arguments)
            .spawn()
            .context("the program `git` could not be started; install it on the worker")?;
        let stdin = child.stdin.take();
        let feeding = async {
            if let Some(mut stdin) = stdin {
                // Where git does not read it all, it says why.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let (_, output) = tokio::join!(feeding, child.wait_with_output());
        let output = output.context("git")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let name = arguments.iter().find(|word| !word.starts_with('-') && !word.contains('=')).unwrap_or(&"");
            bail!("git {name} failed: {}", said.trim());
        }
        Ok(output.stdout)
    }
}

/// The files of a commit as an archive.
pub(super) async fn files(repository: &Path, commit: &str) -> anyhow::Result<Archive> {
    let packed = WorkTree::at(repository).git(&["archive", "--format=tar", commit]).await?;
    Ok(futures::stream::once(async { Ok(Bytes::from(packed)) }).boxed())
}

/// One program as an archive, under a name.
pub(super) fn program(path: &Path, name: &'static str) -> io::Result<Archive> {
    let mut file = std::fs::File::open(path)?;
    Ok(send(move |archive| {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.metadata()?.len());
        header.set_mode(0o755);
        archive.append_data(&mut header, name, &mut file)
    }))
}

/// Streams a folder as tar, and removes it afterwards.
pub(super) fn stream(folder: tempfile::TempDir) -> Archive {
    send(move |archive| append(archive, folder.path(), Path::new("")))
}

type Builder = tar::Builder<io::BufWriter<Pieces>>;

/// What a function writes, as it comes.
fn send(write: impl FnOnce(&mut Builder) -> io::Result<()> + Send + 'static) -> Archive {
    let (sender, receiver) = mpsc::channel(8);
    tokio::task::spawn_blocking(move || {
        let mut archive = tar::Builder::new(io::BufWriter::with_capacity(PIECE, Pieces(sender.clone())));
        archive.follow_symlinks(false);
        archive.mode(tar::HeaderMode::Complete);
        let written =
            write(&mut archive).and_then(|()| archive.into_inner()?.into_inner().map_err(Into::into).map(drop));
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
