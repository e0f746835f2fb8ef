//! Makes a checked-out tree of a mirror's commit, as a tar archive.

use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio_util::io::{ReaderStream, SyncIoBridge};
use workflow::plan::SourceRef;

use super::{Checkout, mirror::git};

/// A tar archive of the work tree with its `.git` directory: no hooks, no remote.
pub(super) async fn checkout_archive(
    mirror: &Path,
    source: &SourceRef,
    checkout: &Checkout,
) -> anyhow::Result<BoxStream<'static, std::io::Result<Bytes>>> {
    let commit = match checkout.reference.as_str() {
        "" => source.commit.clone(),
        other => {
            let name = format!("{other}^{{commit}}");
            let found = git(mirror, &["rev-parse", "--verify", "--quiet", "--end-of-options", &name]).await;
            found.with_context(|| format!("ref `{other}` is not in the repository"))?.trim().to_owned()
        }
    };
    let folder = tempfile::tempdir().context("temporary folder")?;
    let tree = folder.path();
    git(tree, &["init", "--quiet", "--template=", "--initial-branch=main"]).await?;
    let (url, depth) = (format!("file://{}", mirror.display()), format!("--depth={}", checkout.depth));
    let mut fetch = vec!["-c", "protocol.file.allow=always", "fetch", "--quiet", "--no-tags"];
    if checkout.depth > 0 {
        fetch.push(&depth);
    }
    fetch.extend([url.as_str(), commit.as_str()]);
    git(tree, &fetch).await?;
    let branch = source.reference.strip_prefix("refs/heads/").filter(|_| checkout.reference.is_empty());
    match branch {
        Some(branch) => git(tree, &["checkout", "--quiet", "--force", "-B", branch, &commit, "--"]).await?,
        None => git(tree, &["checkout", "--quiet", "--force", "--detach", &commit, "--"]).await?,
    };

    let (writer, reader) = tokio::io::duplex(256 * 1024);
    tokio::task::spawn_blocking(move || {
        let mut archive = tar::Builder::new(SyncIoBridge::new(writer));
        archive.follow_symlinks(false);
        // A reader that goes away is no failure of the archive; a broken archive is seen by its reader.
        let written = archive.append_dir_all(".", folder.path()).and_then(|()| archive.finish());
        if let Err(error) = written {
            tracing::warn!(%error, "a checkout could not be packed");
        }
    });
    Ok(Box::pin(ReaderStream::with_capacity(reader, 256 * 1024)))
}
