//! Where `exec` runs jobs: a sandbox whose machines begin with the tree of the checkout.

use std::{collections::BTreeMap, io, path::Path, path::PathBuf, sync::Arc};

use anyhow::Context;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use tokio_util::io::{ReaderStream, SyncIoBridge};
use ::worker::sandbox::{
    Machine, MachineSpec, Sandbox, SandboxError,
    docker::{Docker, DockerConfig},
    host::Host,
};

/// A back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// A Docker engine.
    Docker,
    /// This machine, without isolation.
    Host,
}

/// What a workspace begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workspace {
    /// Nothing.
    Empty,
    /// The checkout, changes that were not committed included.
    Tree,
}

/// Opens a back end.
pub(crate) async fn back_end(kind: Kind, config: DockerConfig) -> anyhow::Result<Arc<dyn Sandbox>> {
    match kind {
        Kind::Docker => {
            let docker = Docker::connect(config).await.context(
                "jobs run in containers of a Docker engine (trusted code can run without one: --sandbox host)",
            )?;
            Ok(docker)
        }
        Kind::Host => {
            eprintln!("WARNING: --sandbox host runs every step as you, on this machine, with all you can read and write.");
            Ok(Host::new()?)
        }
    }
}

pub(super) async fn open(kind: Kind, workspace: Workspace, tree: &Path) -> anyhow::Result<Arc<dyn Sandbox>> {
    // Two runs at a time must not sweep each other's machines.
    let config = DockerConfig { worker: format!("exec-{}", std::process::id()), ..DockerConfig::default() };
    let inner = back_end(kind, config).await?;
    Ok(match workspace {
        Workspace::Empty => inner,
        Workspace::Tree => Arc::new(Prepared { inner, tree: tree.to_owned() }),
    })
}

/// Runner labels and their images: those given, and a worker's defaults. An image for `ubuntu-latest` stands for the
/// other default labels too.
pub(crate) fn images(kind: Kind, given: &[(String, String)]) -> BTreeMap<String, String> {
    let mut images = ::worker::config::Config::default().labels;
    if let Some((_, image)) = given.iter().find(|(label, _)| label == "ubuntu-latest") {
        images.values_mut().for_each(|default| default.clone_from(image));
    }
    if kind == Kind::Host {
        images.insert("self-hosted".into(), String::new());
    }
    images.extend(given.iter().cloned());
    images
}

/// A sandbox that unpacks a tree into each machine's workspace.
struct Prepared {
    inner: Arc<dyn Sandbox>,
    tree: PathBuf,
}

impl Sandbox for Prepared {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn acquire(&self, spec: MachineSpec) -> BoxFuture<'_, Result<Arc<dyn Machine>, SandboxError>> {
        async move {
            let machine = self.inner.acquire(spec).await?;
            let files = files(&self.tree).await;
            let tree = self.tree.clone();
            let (writer, reader) = tokio::io::duplex(256 * 1024);
            let packed = tokio::task::spawn_blocking(move || pack(&tree, files, SyncIoBridge::new(writer)));
            let archive = ReaderStream::with_capacity(reader, 256 * 1024).boxed();
            let unpacked = machine.unpack(&machine.workspace(), false, archive).await;
            let packed = packed.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            let result = match (packed, unpacked) {
                (_, Err(error)) => Err(error),
                (Err(error), Ok(())) => {
                    Err(SandboxError::Refused(format!("{} can't be read: {error}", self.tree.display())))
                }
                (Ok(()), Ok(())) => Ok(()),
            };
            match result {
                Ok(()) => Ok(machine),
                Err(error) => {
                    machine.destroy().await;
                    Err(error)
                }
            }
        }
        .boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<usize, SandboxError>> {
        self.inner.sweep()
    }

    fn warm(&self, images: &[String]) {
        self.inner.warm(images);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// The files git would keep, `.git` itself included; everything where the folder is no repository.
async fn files(tree: &Path) -> Option<Vec<String>> {
    let listed = super::subject::git(tree, &["ls-files", "--cached", "--others", "--exclude-standard", "-z"]).await?;
    let mut files: Vec<String> = listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    files.push(".git".into());
    Some(files)
}

fn pack(tree: &Path, files: Option<Vec<String>>, to: impl io::Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    archive.follow_symlinks(false);
    match files {
        None => archive.append_dir_all(".", tree)?,
        Some(files) => {
            for file in files {
                let path = tree.join(&file);
                match std::fs::symlink_metadata(&path) {
                    Ok(found) if found.is_dir() => archive.append_dir_all(&file, &path)?,
                    Ok(_) => archive.append_path_with_name(&path, &file)?,
                    // Deleted, and not yet committed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    archive.into_inner()?.flush()
}

