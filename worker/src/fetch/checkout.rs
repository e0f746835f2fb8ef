//! Makes the archive that `actions/checkout` unpacks: a work tree with a `.git` directory of its own.

use anyhow::Context as _;
use workflow::plan::SourceRef;

use super::{
    Archive, CheckoutOptions, CommitQuery, LocatedCommit, RepositoryFetcher, SubmoduleMode,
    submodules::{self, CheckedOut},
    tree_size::TreeBudget,
    work_tree::{WorkTree, stream},
};

/// A work tree as an archive.
pub struct CheckoutArchive {
    /// Full id.
    pub commit: String,
    /// Full name of the ref; empty: a commit was asked for.
    pub reference: String,
    /// How it was found, for the log.
    pub notes: Vec<String>,
    /// The work tree with its `.git`.
    pub archive: Archive,
}

/// Checks out a commit. The new `.git` has no hooks and no credentials; branches stand below `refs/remotes/origin`, as
/// `actions/checkout` leaves them.
pub async fn checkout(
    sources: &dyn RepositoryFetcher,
    source: &SourceRef,
    wanted: &CheckoutOptions,
) -> anyhow::Result<CheckoutArchive> {
    let asked = CommitQuery {
        repository: wanted.repository.clone(),
        reference: wanted.reference.clone(),
        everything: wanted.depth == 0 || wanted.tags,
    };
    let located = sources.locate(source, &asked).await?;
    let folder = tempfile::tempdir().context("no room for a checkout in the temporary folder")?;
    let tree = WorkTree::init(folder.path().to_owned(), &located.commit).await?;
    let mut budget = TreeBudget::new(wanted.most_bytes);
    let sparse = wanted.sparse.as_ref();
    // Beside each other: the mirror has all of it already.
    let counting = async {
        let counted = budget.take(&located.path, &located.commit, sparse).await;
        counted.with_context(|| format!("commit {} cannot be checked out", located.commit))
    };
    let (start, links) = tokio::try_join!(fetch(&tree, &located, wanted), counting)?;
    if !wanted.remote.is_empty() {
        tree.git(&["remote", "add", "origin", "--", &wanted.remote]).await?;
    }
    if let Some(sparse) = &wanted.sparse {
        let mode = if sparse.cone { "--cone" } else { "--no-cone" };
        tree.feed(&["sparse-checkout", "set", mode, "--stdin"], &sparse.patterns).await?;
    }
    match located.reference.strip_prefix("refs/heads/") {
        Some(branch) => tree.git(&["checkout", "--quiet", "--force", "-B", branch, &start]).await?,
        None => tree.git(&["checkout", "--quiet", "--force", "--detach", &located.commit]).await?,
    };
    let mut notes = located.notes.clone();
    if wanted.submodules != SubmoduleMode::None {
        let main = CheckedOut { tree: &tree, located: &located, links };
        submodules::add(sources, source, main, wanted, &mut budget, &mut notes).await?;
    }
    Ok(CheckoutArchive { commit: located.commit, reference: located.reference, notes, archive: stream(folder) })
}

/// Brings the objects into the new repository. Gives the name that the commit has there.
async fn fetch(tree: &WorkTree, located: &LocatedCommit, wanted: &CheckoutOptions) -> anyhow::Result<String> {
    let local = |name: &str| match name.strip_prefix("refs/heads/") {
        Some(branch) => Some(format!("refs/remotes/origin/{branch}")),
        None if name.starts_with("refs/tags/") => Some(name.to_owned()),
        None => name.strip_prefix("refs/pull/").map(|pull| format!("refs/remotes/pull/{pull}")),
    };
    let target = local(&located.reference).unwrap_or_else(|| "refs/remotes/origin/HEAD_COMMIT".to_owned());
    let tag = located.refs.iter().find(|(name, _)| *name == located.reference && name.starts_with("refs/tags/"));
    let object = tag.map_or(&located.commit, |(_, object)| object);
    let mut specs = vec![format!("+{object}:{target}")];
    for (name, object) in &located.refs {
        let is_wanted = wanted.depth == 0 || name.starts_with("refs/tags/");
        if let Some(local) = local(name).filter(|local| is_wanted && *local != target) {
            specs.push(format!("+{object}:{local}"));
        }
    }
    tree.fetch(&located.path, &specs, wanted.depth).await?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::path::Path;

    use futures::StreamExt as _;
    use tokio::process::Command;

    use super::*;
    use crate::fetch::LocalRepository;

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
        let local = LocalRepository::new(repository);
        let source = SourceRef { commit: commit.into(), reference: reference.into(), ..SourceRef::default() };
        let other = if commit.is_empty() { reference } else { "" };
        let wanted = CheckoutOptions { depth, reference: other.into(), ..CheckoutOptions::default() };
        let mut pieces = checkout(&local, &source, &wanted).await?.archive;
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
